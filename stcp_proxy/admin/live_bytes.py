"""Application bytes of open connections, counted without cost for each byte.

The user-space engine keeps its counts in fields, which are read here. Each count of the kernel takes a system call: some
microseconds of the loop that also carries the connections. So one snapshot reads at most `READS` counts of the kernel, the oldest
values first; the other connections keep their last value. Sums never go down, because an old value is never larger than the
present one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from stcp_proxy.admin.cooperate import Steps
from stcp_proxy.admin.interface import Link

READS: Final = 1000
"""The largest number of kernel counts that one snapshot reads."""
_IN_KERNEL: Final = "kernel"

BytesOfConnections = Mapping[Link, tuple[int, int]]
"""For each connection, application bytes so far: (plain to wire, wire to plain)."""


class Meter:
    """Reads the counts of open connections.

    Args:
        reads: the largest number of kernel counts that one snapshot reads.
    """

    def __init__(self, reads: int = READS) -> None:
        self._reads = reads
        self._seen: dict[Link, tuple[int, int]] = {}
        """The last values of connections in the kernel, the oldest first."""

    async def read(self, links: Iterable[Link], steps: Steps) -> BytesOfConnections:
        """Read the counts of `links`, all open connections.

        Args:
            links: the connections.
            steps: lets the event loop run between steps.
        """
        counts: dict[Link, tuple[int, int]] = {}
        in_kernel = []
        for link in links:
            relay = link.relay
            if relay is None:
                counts[link] = (link.early, 0)
            elif relay.engine == _IN_KERNEL:
                in_kernel.append(link)
            else:
                to_wire, to_plain = relay.counts()
                counts[link] = (to_wire + link.early, to_plain)
            await steps.pause()
        if in_kernel or self._seen:
            counts |= await self._read_kernel(in_kernel, steps)
        return counts

    async def _read_kernel(self, links: list[Link], steps: Steps) -> BytesOfConnections:
        alive = set(links)
        seen = {link: (link.early, 0) for link in links if link not in self._seen}
        seen |= {link: counts for link, counts in self._seen.items() if link in alive}
        for link in list(seen)[: self._reads]:
            del seen[link]
            relay = link.relay
            assert relay is not None  # noqa: S101  (a connection keeps its relay once it has one)
            to_wire, to_plain = relay.counts()
            seen[link] = (to_wire + link.early, to_plain)
            await steps.pause()
        self._seen = seen
        return seen
