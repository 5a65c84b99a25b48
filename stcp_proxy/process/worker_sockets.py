"""Listening sockets of several workers: a set for each, on one port (SO_REUSEPORT); or one that all of them share."""

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
from stcp_proxy.net.unix_socket import change_mode, in_place, remember_file
from stcp_proxy.tunnel.acceptor import BACKLOG


@dataclasses.dataclass(slots=True)
class Door:
    """Where one tunnel is reached, as the parent of the workers keeps it.

    Attributes:
        sets: for each worker its listening sockets; the same for all where they share them.
        port: of TCP sockets; None for a unix socket.
    """

    sets: list[list[socket.socket]]
    port: int | None

    @classmethod
    def shared(cls, sockets: list[socket.socket], workers: int) -> Self:
        """Sockets that are there already, for all workers."""
        unix = sockets[0].family == socket.AF_UNIX
        for sock in sockets:
            remember_file(sock)
        return cls([sockets] * workers, None if unix else sockets[0].getsockname()[1])

    @classmethod
    def open(cls, tunnel: TunnelPlan, workers: int, *, leaving: Collection[int | None] = ()) -> Self:
        """Listen for a tunnel.

        Args:
            tunnel: whose address it is.
            workers: how many there are.
            leaving: ports that workers listen on and are about to give up, with SO_REUSEPORT.

        Raises:
            ConfigError: it cannot be listened on; nothing is left open.
        """
        if isinstance(tunnel.bind, UnixAddress):
            return cls.shared(open_listeners(tunnel.bind, backlog=BACKLOG, mode=tunnel.bind_mode), workers)
        # Bound alone first: SO_REUSEPORT would let a second proxy in beside a running one without a word.
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

    def keep_what_is_ours(self) -> None:
        """The workers have their sockets: the parent keeps a unix socket, to remove its file in the end. A port that nobody
        serves any more must not go on taking connections.
        """
        if self.port is not None:
            self.close()

    @property
    def lost(self) -> bool:
        """Whether the file of its unix socket was removed or replaced."""
        return self.port is None and not all(map(in_place, self.sets[0]))

    def change_mode(self, mode: int) -> None:
        """Another mode for the file of a unix socket."""
        if self.port is None:
            change_mode(self.sets[0], mode)

    def close(self) -> None:
        """Close the parent's sockets, and remove the file of a unix socket."""
        for listener in itertools.chain.from_iterable(self.sets):
            close_listeners([listener])
