"""The text of the rules.

redirect: a NAT chain changes the destination of the first packet, and connection tracking that of all others. It stands in
front of other tables' NAT, so that "original destination" is what the application dialled.

tproxy: no packet is changed. What local programs send has been routed already when rules see it, so a `route` chain marks it
and it is routed again: by the mark, to loopback, and from there through prerouting, where `tproxy` hands it to the listener.
Forwarded traffic comes to prerouting by itself. Whether a connection is taken is decided once, at its first packet, and kept
in its connection mark: the user of a packet is known only while a program holds its socket, and the last packets of the
proxy's own connections are sent after it has closed them. By user alone these would be caught, and the connections of the
proxy would never end.

Only a first packet (SYN alone) is ever taken. So connections that are there when the rules come go on as they are; and the
answers of this host's own servers are not taken for connections of their own.

What is taken and finds no listener is refused: by the kernel with redirect, where the port is closed, and by a rule with tproxy.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from stcp_proxy.config.plan import CapturePlan
from stcp_proxy.net.original import Interception
from stcp_proxy.net.pattern import Pattern

TABLE: Final = "stcp_proxy"
MADE_BY: Final = "stcp-proxy"
"""With what the comment of a table begins that this program has made."""
_DIGEST_LEN: Final = 12
_BEFORE_NAT: Final = -101
_MANGLE: Final = -150
_ROUTING_PRIORITY: Final = 535
_FIRST_PACKET: Final = "tcp flags & (fin | syn | rst | ack) == syn"


@dataclass(frozen=True, slots=True)
class Rules:
    """Everything that is to be installed.

    Attributes:
        table: name of the table.
        nft: for `nft -f`: replaces the table in one transaction.
        comment: of the table: what the rules do, and by a digest what the file asked for. Who is left alone is not in the file,
            and not in the digest.
        divert: the mark of packets that policy routing sends to loopback; None where none is needed.
    """

    table: str
    nft: str
    comment: str
    divert: int | None

    def __str__(self) -> str:
        """The file to print: what the shell has to do stands in it as comments."""
        if self.divert is None:
            return self.nft
        commands = "".join(f"#   {' '.join(command)}\n" for command in routing(self.divert, "add"))
        return f"# Policy routing, which is not nftables' business:\n{commands}\n{self.nft}"


def rules_for(capture: CapturePlan, users: Sequence[int], *, table: str = TABLE) -> Rules:
    """The rules for a tunnel.

    Args:
        capture: what is to be sent to it.
        users: ids of the users as whom the proxy may run; what they send is left alone. Without any, its mark has to do.
        table: name of the table.
    """
    divert = None if capture.how is Interception.REDIRECT else (capture.mark or 0) + 1
    comment = f"{MADE_BY} {capture.how} to port {capture.port}, rules {_digest(capture, divert)}"
    if divert is not None:
        comment += f", mark {divert}"
    lines = [
        f"table inet {table}",
        f"delete table inet {table}",
        f"table inet {table} {{",
        f'\tcomment "{comment}"',
        *_chains(capture, users, divert),
        "}",
    ]
    return Rules(table, "\n".join(lines) + "\n", comment, divert)


def about(comment: str | None) -> str:
    """What the comment of a table says of its rules."""
    return (comment or "").removeprefix(f"{MADE_BY} ")


def _chains(capture: CapturePlan, users: Sequence[int], divert: int | None) -> Iterator[str]:
    return _redirect(capture, users) if divert is None else _tproxy(capture, users, divert)


def _digest(capture: CapturePlan, divert: int | None) -> str:
    return hashlib.sha256("\n".join(_chains(capture, [], divert)).encode()).hexdigest()[:_DIGEST_LEN]


def routing(mark: int, verb: str) -> list[tuple[str, ...]]:
    """Commands that make what carries `mark` go to loopback, for both families.

    Args:
        mark: of the packets, and number of the routing table.
        verb: add or delete.
    """
    return [
        command
        for family in ("-4", "-6")
        for command in (
            ("ip", family, "route", verb, "local", "default", "dev", "lo", "table", str(mark)),
            ("ip", family, "rule", verb, "priority", str(_ROUTING_PRIORITY), "fwmark", hex(mark), "lookup", str(mark)),
        )
    ]


# -- the two ways ------------------------------------------------------------------------------------------------------------


def _redirect(capture: CapturePlan, users: Sequence[int]) -> Iterator[str]:
    judge = ["jump spared", *_wanted(capture, "goto taken")]
    output = ["meta l4proto != tcp accept", 'oif "lo" accept', *judge]
    yield from _base("output", f"type nat hook output priority {_BEFORE_NAT}", output)
    if capture.forwarded:
        forwarded = [
            f"iifname != {_names(capture.forwarded)} accept",
            "meta l4proto != tcp accept",
            "fib daddr type local accept",
        ]
        yield from _base("forwarded", f"type nat hook prerouting priority {_BEFORE_NAT}", [*forwarded, *judge])
    yield from _chain("spared", _spared(capture, users, "accept"))
    yield from _chain("taken", [f"{_FIRST_PACKET} redirect to :{capture.port}"])


def _tproxy(capture: CapturePlan, users: Sequence[int], divert: int) -> Iterator[str]:
    known = f"ct direction original ct mark {divert:#x}"
    output = ["meta l4proto != tcp accept", 'oif "lo" accept', f"ct state new {_FIRST_PACKET} jump judge"]
    yield from _base("output", f"type route hook output priority {_MANGLE}", [*output, f"{known} meta mark set {divert:#x}"])
    arriving = ["meta l4proto != tcp accept", f'iif "lo" meta mark {divert:#x} goto taken']
    if capture.forwarded:
        arriving += [f"iifname != {_names(capture.forwarded)} accept", "fib daddr type local accept"]
        arriving += [f"ct state new {_FIRST_PACKET} jump judge", f"{known} goto taken"]
    yield from _base("arriving", f"type filter hook prerouting priority {_MANGLE}", arriving)
    yield from _chain("judge", [*_spared(capture, users, "return"), *_wanted(capture, f"ct mark set {divert:#x}")])
    taken = [f"meta mark set {divert:#x}"]
    if capture.ip4:
        taken.append(f"meta nfproto ipv4 meta l4proto tcp tproxy ip to 127.0.0.1:{capture.port} accept")
    if capture.ip6:
        taken.append(f"meta nfproto ipv6 meta l4proto tcp tproxy ip6 to [::1]:{capture.port} accept")
    yield from _chain("taken", [*taken, "meta l4proto tcp reject with tcp reset"])


def _spared(capture: CapturePlan, users: Sequence[int], verdict: str) -> Iterator[str]:
    """What is never taken: the proxy itself, its peers, and what the file excludes."""
    if users:
        yield f"meta skuid {{ {', '.join(map(str, sorted(set(users))))} }} {verdict}"
    if capture.mark is not None:
        yield f"meta mark {capture.mark:#x} {verdict}"
    for pattern in dict.fromkeys((*capture.peers, *capture.exclude)):
        yield f"{_match(pattern)} {verdict}".lstrip()


def _wanted(capture: CapturePlan, verdict: str) -> list[str]:
    """What is taken."""
    return [verdict] if capture.only is None else [f"{_match(pattern)} {verdict}".lstrip() for pattern in capture.only]


# -- words -------------------------------------------------------------------------------------------------------------------


def _match(pattern: Pattern) -> str:
    """A pattern as nftables writes it; empty for everything."""
    parts = []
    if pattern.network is not None:
        family = "ip" if pattern.network.version == 4 else "ip6"
        if pattern.network.prefixlen == 0:
            parts.append(f"meta nfproto ipv{pattern.network.version}")
        else:
            whole = pattern.network.prefixlen == pattern.network.max_prefixlen
            parts.append(f"{family} daddr {pattern.network.network_address if whole else pattern.network}")
    if (pattern.first, pattern.last) != (Pattern().first, Pattern().last):
        ports = str(pattern.first) if pattern.first == pattern.last else f"{pattern.first}-{pattern.last}"
        parts.append(f"tcp dport {ports}")
    return " ".join(parts)


def _names(interfaces: Sequence[str]) -> str:
    return "{ " + ", ".join(f'"{name}"' for name in interfaces) + " }"


def _base(name: str, hook: str, lines: Sequence[str]) -> Iterator[str]:
    yield from _chain(name, [f"{hook}; policy accept;", *lines])


def _chain(name: str, lines: Sequence[str] | Iterator[str]) -> Iterator[str]:
    yield ""
    yield f"\tchain {name} {{"
    yield from (f"\t\t{line}" for line in lines)
    yield "\t}"
