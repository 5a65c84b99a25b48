"""The guard: the chains that keep a captured connection from leaving the host unencrypted.

Interception depends on connection tracking, which can fail. A connection can lose its entry there (`conntrack -F`, a timeout),
tracking can find a segment invalid, or a different table can exempt traffic from tracking. Without the guard, the next segment
would leave unencrypted. So after address translation the guard checks every TCP packet that is about to leave the host. It
accepts:

1. packets that interception has redirected to this host;
2. packets of a connection that the rules did not capture when it began: it has the label `let_out`;
3. answers of this host's own servers: the connection has the label `answer`;
4. packets of the proxy, and packets to destinations that the file excludes.

The guard sets the mark bit `PASSED` on every TCP packet that it admits, because the egress filter drops packets to captured
destinations without this bit. The guard's own chain sets the bit, and clears it before it refuses a packet. So while a table is
deleted, chain after chain, no unchecked packet has the bit.

The guard resets every other packet to a captured destination. With tproxy, a further chain drops a packet that has the mark for
loopback and is about to leave by a different interface: the route for the mark has been deleted.

Labels are a part of connection tracking, so they are lost with its entries. A later packet of the proxy restores its label, by
the user or the mark of the proxy. For servers the guard has its own record: the sets `served4` and `served6` contain the
addresses and ports of connections that this host has accepted. `--apply` fills them with the connections that are already open. A
set has a size and a timeout. Beyond these limits, a connection is lost if the server is the first to send after `conntrack -F`.

A label applies to one direction. When the proxy answers a forwarded client, this connection has labels too. Without a direction,
they would let the client's segments bypass the proxy.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

from stcp_proxy.config.plan import CapturePlan
from stcp_proxy.intercept.egress_program import PASSED
from stcp_proxy.intercept.nft_text import FIRST_ANSWER, TUPLES, base_chain, chain, connection_set, counter, interfaces, match

_TIMEOUT: Final = "5d"
"""The timeout of an entry in `served4` and `served6`: the default time for which connection tracking remembers an idle
connection."""
_SIZE: Final = 65_535
"""The largest number of entries in `served4` and `served6`."""
_AFTER_NAT: Final = -99
"""The priority of the guard: right after address translation of outgoing packets (-100)."""
LINK_LOCAL: Final = "ip6 daddr fe80::/10"
"""Matches packets to link-local addresses."""
PASS: Final = f"meta mark set meta mark | {PASSED:#x}"
"""Sets the bit by which the egress filter admits a packet."""
COUNTERS: Final = {
    "refused_link_local": "dialled link-local IPv6 destinations, which cannot be intercepted: write such a destination under"
    " 'exclude', or dial a global address",
    "refused": "were not known to be intercepted: their rules or their connection tracking were lost, or they were open before"
    " the rules",
}
"""Counters of a table: their names, and a text about the counted packets. A refused connection counts one or a few packets."""
_LABELS: Final = 128
"""The number of labels that fit into an entry of connection tracking."""
_FIRST_PREF: Final = 2
"""It is small, because a filter with a smaller preference may accept a packet for good. The default preference is 49152."""


class Labels(NamedTuple):
    """Numbers of the connection labels that a table uses.

    Attributes:
        let_out: the rules did not capture the connection when it began.
        answer: a server on this host, or behind it, accepted the connection.
    """

    let_out: int
    answer: int


def labels_of(table: str) -> Labels:
    """The labels of a table. Two tables need different labels: one may capture a connection that the other does not capture."""
    first = int.from_bytes(hashlib.sha256(table.encode()).digest()[:2], "big") % (_LABELS // 2) * 2
    return Labels(first, first + 1)


def pref_of(table: str) -> int:
    """The preference of a table's egress filter among the filters of an interface. Two tables need two filters."""
    return _FIRST_PREF + labels_of(table).let_out


def sets() -> Iterator[str]:
    """The sets of connections that this host has accepted."""
    for version in TUPLES:
        yield from connection_set(f"served{version}", version, timeout=_TIMEOUT, size=_SIZE)


def spared(capture: CapturePlan, own: Sequence[str], labels: Labels) -> Iterator[str]:
    """The chains for excluded traffic: the proxy's own, its peers', and the destinations that the file excludes.

    Args:
        capture: what the file captures and excludes.
        own: matches for the proxy's own packets.
        labels: the labels of the table.
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
    """The chains of the guard. The table also needs `sets` and `spared`.

    Args:
        capture: what the file captures.
        labels: the labels of the table.
        divert: the mark of packets that policy routing sends to loopback; None with redirect.
        local: rules for packets to this host itself, before they are accepted.
        later: added to the priority, so that a second guard runs after the first one.
    """
    yield from base_chain(
        "guard_output",
        f"type filter hook output priority {_AFTER_NAT + later}",
        ["meta l4proto != tcp accept", *_intercepted(divert), *local, 'oif "lo" accept', "goto guard"],
    )
    if divert is not None:
        lines = [f'meta mark {divert:#x} oif != "lo" drop']
        yield from base_chain("guard_routing", f"type filter hook postrouting priority {_AFTER_NAT + later}", lines)
    forward = f"type filter hook forward priority {_AFTER_NAT + later}"
    if capture.forwarded:
        lines = ["meta l4proto != tcp accept", f"iifname != {interfaces(capture.forwarded)} goto pass", "goto guard"]
        yield from base_chain("guard_forward", forward, lines)
    else:
        yield from base_chain("guard_routed", forward, ["meta l4proto tcp goto pass"])
    yield from chain("pass", [PASS])
    yield from chain("guard", _guard(capture, labels))
    yield from chain("answer", [f"ct label set {labels.answer}", *_remember(), "accept"])
    yield from (line for name in COUNTERS for line in counter(name))
    refusals = [f"{LINK_LOCAL} counter name refused_link_local", "counter name refused"]
    yield from chain("refuse", [*_served(labels), *(f"meta l4proto tcp {each} reject with tcp reset" for each in refusals)])


def _intercepted(divert: int | None) -> list[str]:
    """Accept packets that interception has redirected to this host."""
    if divert is None:
        return ["ip daddr 127.0.0.1 accept", "ip6 daddr ::1 accept"]
    return [f"meta mark {divert:#x} accept"]


def _guard(capture: CapturePlan, labels: Labels) -> list[str]:
    return [
        PASS,
        "tcp flags & (syn | rst) == rst accept",  # a reset carries no data; the kernel sends it for a closed port
        f"ct direction original ct label {labels.let_out} accept",
        f"ct direction reply ct label {labels.answer} accept",
        f"ct direction reply {FIRST_ANSWER} goto answer",
        f"ct state untracked {FIRST_ANSWER} goto answer",
        "jump spared",
        *wanted(capture, f"meta mark set meta mark & {0xFFFFFFFF ^ PASSED:#x} goto refuse"),
    ]


def _remember() -> list[str]:
    return [f"update @served{version} {{ {tuples} }}" for version, tuples in TUPLES.items()]


def _served(labels: Labels) -> list[str]:
    return [f"{tuples} @served{version} ct label set {labels.answer} {PASS} accept" for version, tuples in TUPLES.items()]
