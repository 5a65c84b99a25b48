"""Places that strangers share fairly: by source network, then by the hosts of one network.

Two questions are answered, each in constant time:

- Who loses a place? The oldest member of the host with the most places, in the network with the most places. So a host that opens
  many connections pays with its own, and a newcomer from elsewhere is safe.
- Whose turn is it? Networks take turns, the hosts of a network take turns, and each host's oldest member is first.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from typing import Final, Generic, TypeVar

from stcp_proxy.net.source import Source

K = TypeVar("K", bound=Hashable)


class _Ranking:
    """Names with a size each: the largest, and the one whose turn it is."""

    __slots__ = ("_by_size", "_most", "_sizes")

    def __init__(self) -> None:
        self._sizes: dict[str, int] = {}
        """In the order of their turns."""
        self._by_size: dict[int, dict[str, None]] = {}
        self._most = 0

    def __bool__(self) -> bool:
        return bool(self._sizes)

    def change(self, name: str, by: int) -> None:
        """Let a name grow or shrink by one; a name of size zero is forgotten."""
        old = self._sizes.get(name, 0)
        new = old + by
        if old:
            peers = self._by_size[old]
            del peers[name]
            if not peers:
                del self._by_size[old]
        if new:
            self._sizes[name] = new
            self._by_size.setdefault(new, {})[name] = None
        else:
            del self._sizes[name]
        if new > self._most or (old == self._most and old not in self._by_size):
            self._most = new

    @property
    def largest(self) -> str:
        """The largest name; of equals the one that has had its size for longest."""
        return next(iter(self._by_size[self._most]))

    @property
    def first(self) -> str:
        """The name whose turn it is."""
        return next(iter(self._sizes))

    def rotate(self, name: str) -> None:
        """Let a name wait until all others have had their turn."""
        self._sizes[name] = self._sizes.pop(name)


class FairPlaces(Generic[K]):
    """Members with a place each, by source.

    Attributes:
        members: the members, the oldest first, and their sources; for reading.
    """

    __slots__ = ("_hosts", "_networks", "_queues", "members")

    def __init__(self) -> None:
        self.members: Final[dict[K, Source]] = {}
        self._networks: Final = _Ranking()
        self._hosts: Final[dict[str, _Ranking]] = {}
        """By network."""
        self._queues: Final[dict[str, dict[K, None]]] = {}
        """The members of each host, the oldest first."""

    def __len__(self) -> int:
        return len(self.members)

    def __contains__(self, member: K) -> bool:
        return member in self.members

    def __iter__(self) -> Iterator[K]:
        """All members, the oldest first."""
        return iter(self.members)

    def add(self, member: K, source: Source) -> None:
        """Give a place to a member that has none."""
        self.members[member] = source
        self._networks.change(source.network, 1)
        hosts = self._hosts.get(source.network)
        if hosts is None:
            hosts = self._hosts[source.network] = _Ranking()
        hosts.change(source.host, 1)
        self._queues.setdefault(source.host, {})[member] = None

    def discard(self, member: K) -> bool:
        """Take a member's place back. Returns whether it had one."""
        source = self.members.pop(member, None)
        if source is None:
            return False
        self._networks.change(source.network, -1)
        hosts = self._hosts[source.network]
        hosts.change(source.host, -1)
        if not hosts:
            del self._hosts[source.network]
        queue = self._queues[source.host]
        del queue[member]
        if not queue:
            del self._queues[source.host]
        return True

    @property
    def victim(self) -> K:
        """The member that loses its place first; there is at least one."""
        return next(iter(self._queues[self._hosts[self._networks.largest].largest]))

    def take(self) -> K:
        """Take the member whose turn it is out of its place; there is at least one."""
        if len(self.members) == 1:
            (member,) = self.members
            self.discard(member)
            return member
        network = self._networks.first
        hosts = self._hosts[network]
        host = hosts.first
        member = next(iter(self._queues[host]))
        self._networks.rotate(network)
        hosts.rotate(host)
        self.discard(member)
        return member
