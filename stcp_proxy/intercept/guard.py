"""The guard: the chains that stand between a captured destination and the wire.

Interception depends on connection tracking. A connection that loses its entry there (`conntrack -F`, a timeout), a segment that
tracking finds invalid, and traffic that another table exempts from tracking are not redirected: their next segment would leave
in the clear. So after address translation the guard looks at every TCP packet that is about to leave the host. It lets pass:

1. packets that interception has turned to this host;
2. packets of a connection that the rules let out when it began: the label `let_out` says so;
3. answers of this host's own servers: the label `answer` says so;
4. packets of the proxy, and packets to destinations that the file leaves alone.

The guard resets everything else that goes to a captured destination. With tproxy another chain drops a packet that has the mark
for loopback and is about to leave by another interface: somebody has deleted the route for it.

Labels live in connection tracking, so they are lost with it. What the proxy sends after that gets its label again from the
proxy's user or mark. For servers the guard keeps a second memory: the sets `served4` and `served6` hold the addresses and ports
of connections that this host has accepted. `--apply` fills them with the connections that are open already. A set is bounded:
once it is full, and after its timeout, a server that speaks first after `conntrack -F` loses the connection.

A label says which direction it is for. A connection through the proxy has labels too, when the proxy answers a forwarded client:
without a direction they would let the client's segments pass the proxy.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

from stcp_proxy.config.plan import CapturePlan
from stcp_proxy.intercept.nft_text import FIRST_ANSWER, TUPLES, base_chain, chain, connection_set, interfaces, match

_TIMEOUT: Final = "5d"
"""Of an entry in `served4` and `served6`: as long as connection tracking remembers an idle connection by default."""
_SIZE: Final = 65_535
_AFTER_NAT: Final = -99
_LABELS: Final = 128
"""How many labels an entry of connection tracking has room for."""


class Labels(NamedTuple):
    """Numbers of the connection labels that a table uses.

    Attributes:
        let_out: the connection began as one that the rules leave alone.
        answer: a server of this host, or behind it, accepted the connection.
    """

    let_out: int
    answer: int


def labels_of(table: str) -> Labels:
    """The labels of a table. Two tables must not share them: what one leaves alone, the other may capture."""
    first = int.from_bytes(hashlib.sha256(table.encode()).digest()[:2], "big") % (_LABELS // 2) * 2
    return Labels(first, first + 1)


def sets() -> Iterator[str]:
    """The sets of connections that this host has accepted."""
    for version in TUPLES:
        yield from connection_set(f"served{version}", version, timeout=_TIMEOUT, size=_SIZE)


def spared(capture: CapturePlan, own: Sequence[str], labels: Labels) -> Iterator[str]:
    """The chains for what the rules leave alone: the proxy, its peers, and what the file excludes.

    Args:
        capture: what the file captures and excludes.
        own: matches for the proxy's own packets.
        labels: of the table.
    """
    patterns = dict.fromkeys((*capture.peers, *capture.exclude))
    yield from chain("spared", [f"{each} goto let_out".lstrip() for each in (*own, *map(match, patterns))])
    yield from chain("let_out", [f"ct label set {labels.let_out}", "accept"])


def wanted(capture: CapturePlan, verdict: str) -> list[str]:
    """One rule for each captured destination."""
    return [verdict] if capture.only is None else [f"{match(pattern)} {verdict}".lstrip() for pattern in capture.only]


def guard(
    capture: CapturePlan, labels: Labels, *, divert: int | None, local: Sequence[str] = (), later: int = 0
) -> Iterator[str]:
    """The chains of the guard; the table also needs `sets` and `spared`.

    Args:
        capture: what the file captures.
        labels: of the table.
        divert: the mark of packets that policy routing sends to loopback; None with redirect.
        local: rules for packets to this host itself, before they are accepted.
        later: how many steps of priority behind the table's own guard, for a second one.
    """
    yield from base_chain(
        "guard_output",
        f"type filter hook output priority {_AFTER_NAT + later}",
        ["meta l4proto != tcp accept", *_intercepted(divert), *local, 'oif "lo" accept', "goto guard"],
    )
    if divert is not None:
        lines = [f'meta mark {divert:#x} oif != "lo" drop']
        yield from base_chain("guard_routing", f"type filter hook postrouting priority {_AFTER_NAT + later}", lines)
    if capture.forwarded:
        lines = [f"iifname != {interfaces(capture.forwarded)} accept", "meta l4proto != tcp accept", "goto guard"]
        yield from base_chain("guard_forward", f"type filter hook forward priority {_AFTER_NAT + later}", lines)
    yield from chain("guard", _guard(capture, labels))
    yield from chain("answer", [f"ct label set {labels.answer}", *_remember(), "accept"])
    yield from chain("refuse", [*_served(labels), "meta l4proto tcp reject with tcp reset"])


def _intercepted(divert: int | None) -> list[str]:
    """Accept what interception has turned to this host."""
    if divert is None:
        return ["ip daddr 127.0.0.1 accept", "ip6 daddr ::1 accept"]
    return [f"meta mark {divert:#x} accept"]


def _guard(capture: CapturePlan, labels: Labels) -> list[str]:
    return [
        "tcp flags & (syn | rst) == rst accept",  # it carries no data: the kernel's answer for a closed port
        f"ct direction original ct label {labels.let_out} accept",
        f"ct direction reply ct label {labels.answer} accept",
        f"ct direction reply {FIRST_ANSWER} goto answer",
        f"ct state untracked {FIRST_ANSWER} goto answer",
        "jump spared",
        *wanted(capture, "goto refuse"),
    ]


def _remember() -> list[str]:
    return [f"update @served{version} {{ {tuples} }}" for version, tuples in TUPLES.items()]


def _served(labels: Labels) -> list[str]:
    return [f"{tuples} @served{version} ct label set {labels.answer} accept" for version, tuples in TUPLES.items()]
