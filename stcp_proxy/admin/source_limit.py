"""A rate limit for each source address, so that one source cannot delay the requests of other sources.

Without this limit, one source with a few hundred connections a second would delay the probes of an orchestrator. The orchestrator
would then kill a healthy proxy. A probe comes from its own source, which has its own rate.
"""

from __future__ import annotations

import collections
import ipaddress
from typing import Any, Final

import trio

RATE: Final = 50.0
"""The rate, in connections or probes a second, that one source may sustain."""
BURST: Final = 100.0
"""The burst: connections or probes that one source may make at once."""
_MAX_SOURCES: Final = 4096
_MAX_WAITING: Final = 64.0
"""The largest debt of a source, in tokens. Further connections do not lengthen the wait of its next one."""
_IPV6_NETWORK: Final = 64
"""The prefix length that names an IPv6 source, because one host can use every address of its network."""


class SourceLimit:
    """Token buckets by source. When there are too many sources, the least recently seen one is forgotten."""

    def __init__(self) -> None:
        self._buckets: collections.OrderedDict[str, tuple[float, float]] = collections.OrderedDict()
        """For each source, the number of tokens and the time of the last update, on Trio's clock."""

    def allow(self, source: str) -> bool:
        """Take one token of a source.

        Args:
            source: its name, from `source_of`.

        Returns:
            Whether a token was available.
        """
        left = self._left(source)
        allowed = left >= 1.0
        self._keep(source, left - 1.0 if allowed else left)
        return allowed

    async def turn(self, source: str) -> None:
        """Take one token of a source; wait until one is available."""
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
