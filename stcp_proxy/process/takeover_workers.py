"""The listening sockets of worker processes, for a new process that takes over."""

from __future__ import annotations

import dataclasses
import socket
from collections.abc import Sequence

from stcp_proxy.net.unix_socket import inode_of, made_here
from stcp_proxy.process.companion import Companion
from stcp_proxy.process.reload_parent import ReloadParent
from stcp_proxy.process.takeover_messages import parse_handed
from stcp_proxy.process.takeover_server import Offer


class InWorkers:
    """A source of sockets for `TakeoverServer`: the workers of this parent.

    Several workers may have the same socket. It is offered once, and every worker that has it gives it up.

    Args:
        leader: talks to the workers.
        beside: what is served beside the tunnels; the parent has a copy of its unix sockets.
    """

    def __init__(self, leader: ReloadParent, beside: Companion | None) -> None:
        self._leader = leader
        self._beside = beside
        self._owners: dict[int, list[tuple[int, int]]] = {}
        """For each inode, the workers that have the socket, and its number there."""
        self._inodes: list[int] = []

    def offer(self) -> Offer:
        """See `Source.offer`. The sockets are copies."""
        found: Offer = []
        self._owners, self._inodes = {}, []
        made = self._leader.made_files() | {inode_of(sock) for sock in self._admin_sockets() if made_here(sock)}
        numbers: dict[int, int] = {}
        for worker, message in self._leader.collect():
            for handed, sock in zip(parse_handed(message.rest["handed"]), message.sockets, strict=True):
                inode = inode_of(sock)
                number = numbers[worker] = numbers.get(worker, -1) + 1
                self._owners.setdefault(inode, []).append((worker, number))
                if inode in self._inodes:
                    sock.close()
                    continue
                self._inodes.append(inode)
                found.append((dataclasses.replace(handed, made=inode in made), sock))
        return found

    def done(self, offer: Offer) -> None:
        """See `Source.done`."""
        for _, sock in offer:
            sock.close()

    def give_up(self, taken: Sequence[int]) -> None:
        """See `Source.give_up`."""
        inodes = {self._inodes[number] for number in taken}
        numbers: dict[int, list[int]] = {}
        for inode in inodes:
            for worker, number in self._owners[inode]:
                numbers.setdefault(worker, []).append(number)
        self._leader.replaced(numbers, inodes)
        if self._beside is not None:
            self._beside.hand_over({sock for sock in self._admin_sockets() if inode_of(sock) in inodes})

    def _admin_sockets(self) -> list[socket.socket]:
        return [] if self._beside is None else self._beside.listeners
