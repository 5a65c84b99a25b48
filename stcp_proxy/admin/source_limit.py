"""A rate limit for each source address, so that one source at the admin address takes nothing from another.

Without it, a few hundred connections a second of one stranger would delay the probes of an orchestrator, which then kills a proxy
that works. A probe comes from a source of its own, and has its own rate.
"""

from __future__ import annotations

import collections
import ipaddress
from typing import Any, Final

import trio

RATE: Final = 50.0
"""Connections or probes a second that one source may make for long."""
BURST: Final = 100.0
"""Connections or probes that it may make at once."""
_MAX_SOURCES: Final = 4096
_MAX_WAITING: Final = 64.0
"""Tokens that a source can owe: more connections than this do not lengthen the wait of its next one."""
_IPV6_NETWORK: Final = 64
"""Bits of an IPv6 address that name a source: a host has as many addresses below them as it likes."""


class SourceLimit:
    """Token buckets by source; the source seen longest ago is forgotten when there are too many."""

    def __init__(self) -> None:
        self._buckets: collections.OrderedDict[str, tuple[float, float]] = collections.OrderedDict()
        """For each source, the tokens left and when that was counted, on Trio's clock."""

    def allow(self, source: str) -> bool:
        """Take one token of a source.

        Args:
            source: its name, as `source_of` gives it.

        Returns:
            Whether there was one.
        """
        left = self._left(source)
        allowed = left >= 1.0
        self._keep(source, left - 1.0 if allowed else left)
        return allowed

    async def turn(self, source: str) -> None:
        """Take one token of a source, and return when it is there."""
        left = max(self._left(source) - 1.0, -_MAX_WAITING)
        self._keep(source, left)
        if left < 0:
            await trio.sleep(-left / RATE)

    def _left(self, source: str) -> float:
        left, at = self._buckets.pop(source, (BURST, trio.current_time()))
        return min(BURST, left + (trio.current_time() - at) * RATE)

    def _keep(self, source: str, left: float) -> None:
        self._buckets[source] = (left, trio.current_time())
        if len(self._buckets) > _MAX_SOURCES:
            self._buckets.popitem(last=False)


def source_of(address: Any) -> str:
    """The name of the source behind a socket address: an IPv4 address, an IPv6 network, or empty for a unix socket."""
    if not isinstance(address, tuple):
        return ""
    ip = ipaddress.ip_address(str(address[0]).partition("%")[0])
    if isinstance(ip, ipaddress.IPv4Address):
        return str(ip)
    if ip.ipv4_mapped is not None:
        return str(ip.ipv4_mapped)
    return str(ipaddress.ip_network((ip, _IPV6_NETWORK), strict=False))
