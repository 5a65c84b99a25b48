"""The counts of one tunnel since the process began.

A connection costs a few additions, a byte none. All of it happens in Trio's thread.
"""

from __future__ import annotations

import collections
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Annotated, Final

from stcp_proxy.counters.issuers import Issuers
from stcp_proxy.counters.merging import NESTED, SUM, SUM_EACH
from stcp_proxy.counters.steps import Dials, Handshakes
from stcp_proxy.errors import REFUSED, ConnectCheck, Judgement, PeerLeft

UNKNOWN: Final = "(unknown)"
"""The name of every peer that has not authenticated."""
_MAX_REFUSALS: Final = 50
_MAX_KEYS: Final = 10
"""Unknown keys from one host that are listed each by itself."""


@dataclass(slots=True, kw_only=True)
class Counts:
    """What is counted. A new count needs a field here, and a line in `admin.metrics` or `admin.status_schema` to be seen.

    Attributes:
        accepted: connections so far.
        ended: relayed connections that have ended, by peer, engine and reason.
        refused: connections that were not relayed, by peer and label.
        checks: connections of health checks, by label; they are not among the refused.
        bytes_to_wire, bytes_to_plain: application bytes of the connections that have ended.
        handshakes, dials: results and durations.
        limits: how often each limit made new connections wait, or refused one.
        audited: connections that audit mode admitted, by the label of the refusal that it took the place of.
        legs: connections handed to an engine, by their wire leg: `new`, or `kept` from an earlier connection.
    """

    accepted: Annotated[int, SUM] = 0
    ended: Annotated[dict[tuple[str, str, str], int], SUM_EACH] = field(default_factory=collections.Counter)
    refused: Annotated[dict[tuple[str, str], int], SUM_EACH] = field(default_factory=collections.Counter)
    checks: Annotated[dict[str, int], SUM_EACH] = field(
        default_factory=lambda: collections.Counter({ConnectCheck.label: 0, PeerLeft.label: 0})
    )
    bytes_to_wire: Annotated[int, SUM] = 0
    bytes_to_plain: Annotated[int, SUM] = 0
    handshakes: Annotated[Handshakes, NESTED] = field(default_factory=Handshakes)
    dials: Annotated[Dials, NESTED] = field(default_factory=Dials)
    limits: Annotated[dict[str, int], SUM_EACH] = field(
        default_factory=lambda: collections.Counter(
            max_connections=0, max_handshakes=0, descriptors=0, max_connections_per_peer=0, rate_per_peer=0
        )
    )
    audited: Annotated[dict[str, int], SUM_EACH] = field(default_factory=collections.Counter)
    legs: Annotated[dict[str, int], SUM_EACH] = field(default_factory=lambda: collections.Counter(new=0, kept=0))

    @property
    def total_ended(self) -> int:
        """Relayed connections that have ended."""
        return sum(self.ended.values())

    @property
    def total_refused(self) -> int:
        """Connections that were not relayed."""
        return sum(self.refused.values())

    @property
    def ended_by_reason(self) -> dict[str, int]:
        """Relayed connections that have ended, by reason alone."""
        return _by_last(self.ended)

    @property
    def refused_by_reason(self) -> dict[str, int]:
        """Connections that were not relayed, by label alone."""
        return _by_last(self.refused)


def _by_last(counts: dict[tuple[str, str, str], int] | dict[tuple[str, str], int]) -> dict[str, int]:
    found: collections.Counter[str] = collections.Counter()
    for labels, count in counts.items():
        found[labels[-1]] += count
    return dict(found)


@dataclass(slots=True)
class Refusal:
    """Connections that were refused for one reason, from one host.

    Attributes:
        at: time of the last one, seconds since 1970.
        client: address of the last client.
        peer: its configured name; empty where it has not authenticated.
        reason: the label.
        why: the reason in a sentence.
        remedy: what to do about it; may be empty.
        key: the public key that the peer has proved and no rule allows; empty otherwise.
        count: the number of connections.
        judgement: what the failure means.
        at_target: whether the failure is one of this side's target.
        first: time of the first one, seconds since 1970.
        served: time of the first later connection from the same host that was served; None while there is none.
    """

    at: float
    client: str
    peer: str
    reason: str
    why: str
    remedy: str
    key: str = ""
    count: int = 1
    judgement: Judgement = REFUSED
    at_target: bool = False
    first: float = 0.0
    served: float | None = None


class Refusals:
    """The last refusals.

    A repeated refusal is one with a count, and one host can fill few places with new keys. So a scanner does not push out what
    matters.
    """

    def __init__(self) -> None:
        self._kept: collections.OrderedDict[tuple[str, str, str, str], Refusal] = collections.OrderedDict()
        self._unserved: set[str] = set()
        """Hosts with a refusal and no served connection after it."""

    def add(self, refusal: Refusal) -> None:
        """Add a refusal; the oldest kind is dropped when there are too many."""
        host = _host(refusal.client)
        kind = (host, refusal.reason, refusal.why, refusal.key)
        before = self._kept.pop(kind, None)
        refusal.first = refusal.at
        if before is not None:
            refusal.count += before.count
            if before.served is None:
                refusal.first = before.first
        self._kept[kind] = refusal
        self._unserved.add(host)
        keys = [each for each in self._kept if each[0] == host and each[3]] if refusal.key else []
        if len(keys) > _MAX_KEYS:
            del self._kept[keys[0]]
        if len(self._kept) > _MAX_REFUSALS:
            self._kept.popitem(last=False)
        if len(self._unserved) > _MAX_REFUSALS:
            self._unserved = {each[0] for each in self._kept}

    def note_served(self, client: str, now: float) -> None:
        """Note that a connection was served: earlier refusals of its host are over. A refused key stays refused.

        Args:
            client: address of the client.
            now: seconds since 1970.
        """
        if not self._unserved or (host := _host(client)) not in self._unserved:
            return
        self._unserved.discard(host)
        for (other, _, _, key), refusal in self._kept.items():
            if other == host and not key and refusal.served is None:
                refusal.served = now

    def __iter__(self) -> Iterator[Refusal]:
        """The latest first."""
        return reversed(self._kept.values())


def _host(client: str) -> str:
    """The host of a client's address, which also stands for a client without a port."""
    return client.rpartition(":")[0]


@dataclass(slots=True)
class KeyUse:
    """The use of a pair of keys, this side's and a peer's.

    Attributes:
        last: when the peer last authenticated with them, seconds since 1970; None for never.
        total: connections so far.
    """

    last: float | None = None
    total: int = 0


class Ledger(Counts):
    """Everything that is kept of one tunnel.

    Attributes:
        refusals: the last ones.
        pairs: use of keys, by this side's and the peer's public key, 32 bytes each.
        issuers: use of authorities by peers with certificates.
    """

    __slots__ = ("issuers", "pairs", "refusals")

    def __init__(self) -> None:
        super().__init__()
        self.refusals: Final = Refusals()
        self.pairs: Final[dict[tuple[bytes, bytes], KeyUse]] = {}
        self.issuers: Final = Issuers()
