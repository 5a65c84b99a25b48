"""A rate limit for each source address, so that one source cannot delay the requests of other sources.

Without this limit, one source with a few hundred connections a second would delay the probes of an orchestrator. The orchestrator
would then kill a healthy proxy. A probe comes from its own source, which has its own rate.
"""

from __future__ import annotations

from typing import Any, Final

import trio

from stcp_proxy.net import source
from stcp_proxy.net.token_buckets import TokenBuckets

BACKLOG: Final = 4096
"""Connections that wait in the kernel until they are accepted: with fewer, a flood fills the places that a probe needs. The
kernel takes `net.core.somaxconn` if that is less."""
RATE: Final = 50.0
"""The rate, in connections or probes a second, that one source may sustain."""
BURST: Final = 100.0
"""The burst: connections or probes that one source may make at once."""
_MAX_WAITING: Final = 64.0
"""The largest debt of a source, in tokens. Further connections do not lengthen the wait of its next one."""


class SourceLimit:
    """Token buckets by source. When there are too many sources, the least recently seen one is forgotten."""

    def __init__(self) -> None:
        self._buckets: Final = TokenBuckets(RATE, BURST)

    def allow(self, source: str) -> bool:
        """Take one token of a source.

        Args:
            source: its name, from `source_of`.

        Returns:
            Whether a token was available.
        """
        return self._buckets.take(source, trio.current_time())

    def is_far_behind(self, source: str) -> bool:
        """Whether the next connection of a source would wait for the longest time."""
        return self._buckets.left(source, trio.current_time()) < 1.0 - _MAX_WAITING

    async def turn(self, source: str) -> None:
        """Take one token of a source; wait until one is available."""
        left = self._buckets.charge(source, trio.current_time(), debt=_MAX_WAITING)
        if left < 0:
            await trio.sleep(-left / RATE)


def source_of(address: Any) -> str:
    """The name of the source behind a socket address: an IPv4 address, an IPv6 network, or empty for a unix socket."""
    return source.source_of(address).host
