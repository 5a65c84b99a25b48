"""Listening sockets of several workers: a set for each on one port (SO_REUSEPORT), or one set that all of them share."""

from __future__ import annotations

import dataclasses
import itertools
import socket
from collections.abc import Collection
from typing import Self

from stcp_proxy.config import TunnelPlan
from stcp_proxy.errors import ConfigError
from stcp_proxy.net.address import UnixAddress
from stcp_proxy.net.listen import close_listeners, open_listeners
from stcp_proxy.net.unix_socket import change_mode, forget_file, in_place, inode_of, remember_file
from stcp_proxy.tunnel.acceptor import BACKLOG


@dataclasses.dataclass(slots=True)
class WorkerListeners:
    """The listening sockets of one tunnel, as the parent of the workers holds them.

    Attributes:
        sets: the listening sockets of each worker; several may have the same socket.
        port: the port of TCP sockets; None for a unix socket.
    """

    sets: list[list[socket.socket]]
    port: int | None

    @classmethod
    def shared(cls, sockets: list[socket.socket], workers: int) -> Self:
        """Share sockets that are open already among the workers.

        Each worker gets a socket of every address. Where an old process had several for one address, they are dealt out, so that
        somebody accepts from each of them.
        """
        unix = sockets[0].family == socket.AF_UNIX
        by_address: dict[object, list[socket.socket]] = {}
        for sock in sockets:
            remember_file(sock)
            by_address.setdefault((sock.family, sock.getsockname()), []).append(sock)
        sets: list[list[socket.socket]] = [[] for _ in range(workers)]
        for group in by_address.values():
            for index in range(max(workers, len(group))):
                sets[index % workers].append(group[index % len(group)])
        return cls(sets, None if unix else sockets[0].getsockname()[1])

    @classmethod
    def open(cls, tunnel: TunnelPlan, workers: int, *, leaving: Collection[int | None] = ()) -> Self:
        """Listen for a tunnel.

        Args:
            tunnel: whose address it is.
            workers: the number of workers.
            leaving: ports that the workers listen on with SO_REUSEPORT and are about to give up.

        Raises:
            ConfigError: the address cannot be bound; nothing is left open.
        """
        if isinstance(tunnel.bind, UnixAddress):
            return cls.shared(open_listeners(tunnel.bind, backlog=BACKLOG, mode=tunnel.bind_mode), workers)
        # Bind without SO_REUSEPORT first: with it, a second proxy could share the port of a running one unnoticed.
        port = tunnel.bind.port
        try:
            alone = open_listeners(tunnel.bind, backlog=1, freebind=tunnel.freebind)
            port = alone[0].getsockname()[1]
            close_listeners(alone)
        except ConfigError:
            if not port or port not in leaving:
                raise
        address = dataclasses.replace(tunnel.bind, port=port)
        sets: list[list[socket.socket]] = []
        try:
            for _ in range(workers):
                sets.append(open_listeners(address, backlog=BACKLOG, shared=True, freebind=tunnel.freebind))
        except BaseException:
            cls(sets, port).close()
            raise
        return cls(sets, port)

    def close_tcp_sockets(self) -> None:
        """Close the parent's TCP sockets when the workers have theirs: a port that no worker serves must not accept connections.

        The parent keeps a unix socket, to remove its file at the end.
        """
        if self.port is not None:
            self.close()

    @property
    def lost(self) -> bool:
        """Whether the file of its unix socket was removed or replaced."""
        return self.port is None and not all(map(in_place, itertools.chain.from_iterable(self.sets)))

    def change_mode(self, mode: int) -> None:
        """Change the mode of the file of a unix socket."""
        if self.port is None:
            change_mode(self.sets[0], mode)

    def hand_over(self, kept: Collection[int]) -> None:
        """Close the parent's sockets, and leave the files of those with these inodes to a new process."""
        for sock in itertools.chain.from_iterable(self.sets):
            if sock.fileno() >= 0 and inode_of(sock) in kept:
                forget_file([sock])
        self.close()

    def close(self) -> None:
        """Close the parent's sockets, and remove the file of a unix socket."""
        for listener in itertools.chain.from_iterable(self.sets):
            close_listeners([listener])
