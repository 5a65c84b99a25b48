"""The handshakes under way, and who loses its place to a newcomer when there are too many.

Strangers can open connections to listening sockets and stay silent. They must not delay the handshakes of others, nor those of
this host's own programs. So a newcomer takes the place of a stranger: the oldest of the source that holds the most places.

After a refusal the agent waits for the peer's end of the stream, so that the refusal arrives. A peer that asks again and again
for what it may not have would keep others out. So a refused peer counts as a stranger. An accepted peer frees its place at once.

Connecting sockets keep their places. The kernel hands out one more handshake of a user only while the user has fewer places than
are free of connecting sockets (kernel/sock_share.c). A newcomer waits where no stranger has a place.
"""

from __future__ import annotations

from collections import Counter
from typing import Final

import trio

from stcp_proxy.agent.handshakes import Record
from stcp_proxy.agent.netlink_abi import SocketRole
from stcp_proxy.net.pattern import plain_ip

_HOST_BITS: Final = 64
"""Bits of an IPv6 address that a host chooses itself."""


class Places:
    """The places of handshakes.

    Args:
        most: how many there are.

    Attributes:
        most: how many there are.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self._held: Final[dict[Record, trio.CancelScope]] = {}
        self._freed = trio.Event()

    async def take(self, record: Record) -> trio.CancelScope:
        """Take a place for a handshake, as soon as there is one. The handshake runs in the scope that this returns."""
        while len(self._held) >= self.most:
            loser = self._loser()
            if loser is None:
                await self._freed.wait()
                self._freed = trio.Event()
            else:
                self._held.pop(loser).cancel()
        scope = self._held[record] = trio.CancelScope()
        return scope

    def leave(self, record: Record) -> None:
        """Free the place of a handshake that has ended."""
        self._held.pop(record, None)
        self._freed.set()

    def _loser(self) -> Record | None:
        """The handshake that loses its place; None where every one keeps it."""
        strangers = [record for record in self._held if _is_stranger(record)]
        if not strangers:
            return None
        places = Counter(map(_source, strangers))
        return max(strangers, key=lambda record: places[_source(record)])  # the first of them is the oldest


def _is_stranger(record: Record) -> bool:
    return record.pending.role is SocketRole.RESPONDER and (not record.channel or record.refusal is not None)


def _source(record: Record) -> tuple[int, int] | None:
    """The host at the other end: its IPv4 address, or the network of its IPv6 address."""
    if record.remote is None:
        return None
    ip = plain_ip(record.remote.ip)
    return ip.version, int(ip) if ip.version == 4 else int(ip) >> _HOST_BITS
