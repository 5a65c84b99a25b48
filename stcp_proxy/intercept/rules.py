"""The text of the rules.

redirect: a NAT chain changes the destination of a connection's first packet, and connection tracking changes it in all later
packets. The chain comes before the NAT of other tables, so that the original destination is the address that the application
dialled.

tproxy: no packet is changed. A packet of a local program is routed before rules see it. So a `route` chain marks the packet, and
the kernel routes it again by its mark: to loopback, and from there through prerouting. There `tproxy` gives it to the listener.
Forwarded traffic goes through prerouting anyway. The first packet decides whether a connection is captured, and the connection
mark stores that decision.

Both methods decide at the first packet, because the user of a packet is known only while a program has its socket. The kernel
sends the last packets of a connection after the proxy has closed the socket. A connection that the rules leave alone gets a label
(see `guard`).

Only a first packet (SYN alone) is ever captured. A connection that is open when the rules are installed is not intercepted. The
guard resets it where its destination is captured.

A captured connection without a listener is refused: with redirect by the kernel, because the port is closed, and with tproxy by a
rule. Link-local IPv6 destinations cannot be captured, because their addresses are valid only on one interface. The guard refuses
them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from stcp_proxy.config.plan import CapturePlan
from stcp_proxy.intercept.bpf import text_of
from stcp_proxy.intercept.egress_program import Egress
from stcp_proxy.intercept.guard import LINK_LOCAL, guard, labels_of, pref_of, sets, spared, wanted
from stcp_proxy.intercept.nft_text import FIRST_PACKET, base_chain, chain, interfaces
from stcp_proxy.net.original import Interception
from stcp_proxy.net.rules_sign import EGRESS_SIGN, PORT, SIGN, sign_of

TABLE: Final = "stcp_proxy"
MADE_BY: Final = "stcp-proxy"
"""The first word in the comment of every table of this program."""
HOLD: Final = "_hold"
"""The suffix of the second guard's table name."""
_BEFORE_NAT: Final = -101
_MANGLE: Final = -150
_ROUTING_PRIORITY: Final = 535
_LINK_LOCAL: Final = f"{LINK_LOCAL} return"


@dataclass(frozen=True, slots=True)
class Rules:
    """The rules and the settings for their installation.

    Attributes:
        table: the name of the table.
        nft: text for `nft -f` that replaces the table in one transaction.
        hold: text for `nft -f` with the second guard, without the line that opens its table.
        comment: the comment of the table: the effect of the rules, and a digest of the file's settings. The digest excludes
            users, because they are not in the file.
        egress: what the egress filter admits and drops; None without an egress filter.
        divert: the mark of packets that policy routing sends to loopback; None without policy routing.
        ip4, ip6: whether policy routing is for this family.
    """

    table: str
    nft: str
    hold: str
    comment: str
    egress: Egress | None
    divert: int | None
    ip4: bool
    ip6: bool

    def __str__(self) -> str:
        """The text to print: the rules, with the shell commands as comments."""
        text = self.nft
        if self.egress is not None:
            where = f"dev INTERFACE egress pref {self.egress.pref} protocol all handle 1"
            program = f"bpf bytecode '{text_of(self.egress.program())}' direct-action"
            lines = ["tc qdisc add dev INTERFACE clsact", f"tc filter replace {where} {program}"]
            text = _comment("The egress filter, for each interface to other hosts, after the rules", lines) + text
        if self.divert is not None:
            routes = [" ".join(command) for command in routing(self.divert, "add", self.ip4, self.ip6)]
            text = _comment("Policy routing, which nftables cannot do", routes) + text
        return text


def rules_for(
    capture: CapturePlan, users: Sequence[int], *, table: str = TABLE, cgroup: str | None = None, egress: bool = True
) -> Rules:
    """The rules for a tunnel.

    Args:
        capture: what the file captures.
        users: ids of the users that the proxy may run as, whose traffic is not captured. Without users, the rules go by the
            proxy's mark.
        table: name of the table.
        cgroup: path of the proxy's control group below the root of cgroup v2. With it, the rules leave a user alone only in this
            group.
        egress: whether the egress filter is wanted.
    """
    divert = None if capture.how is Interception.REDIRECT else (capture.mark or 0) + 1
    comment = f"{MADE_BY} {capture.how} to port {capture.port}, rules {capture.digest}"
    if divert is not None:
        comment += f", mark {divert}"
    labels = labels_of(table)
    alone = list(spared(capture, _own(capture, users, cgroup), labels))
    takes = _redirect(capture, labels.let_out) if divert is None else _tproxy(capture, labels.let_out, divert)
    local = [f'oif "lo" ip daddr 127.0.0.0/8 tcp dport {PORT} jump sign']
    body = [*sets(), *alone, *takes, *guard(capture, labels, divert=divert, local=local), *_signs(capture.digest, egress=egress)]
    hold = [*sets(), *alone, *guard(capture, labels, divert=divert, later=1)]
    nft = [f"table inet {table}", f"delete table inet {table}", f"table inet {table} {{", f'\tcomment "{comment}"', *body, "}"]
    wire = Egress.of(capture, pref_of(table)) if egress else None
    return Rules(table, _text(nft), _text([*hold, "}"]), comment, wire, divert, capture.ip4, capture.ip6)


def _comment(title: str, commands: Sequence[str]) -> str:
    """Shell commands as a comment of the rules."""
    return f"# {title}:\n" + "".join(f"#   {command}\n" for command in commands) + "\n"


def _text(lines: Sequence[str]) -> str:
    return "\n".join(lines) + "\n"


def about(comment: str | None) -> str:
    """The description of the rules in a table's comment."""
    return (comment or "").removeprefix(f"{MADE_BY} ")


def routing(mark: int, verb: str, ip4: bool = True, ip6: bool = True) -> list[tuple[str, ...]]:
    """Commands that send packets with `mark` to loopback.

    Args:
        mark: the mark of the packets, and the number of the routing table.
        verb: add or delete.
        ip4, ip6: the families.
    """
    return [
        command
        for family, meant in (("-4", ip4), ("-6", ip6))
        if meant
        for command in (
            ("ip", family, "route", verb, "local", "default", "dev", "lo", "table", str(mark)),
            ("ip", family, "rule", verb, "priority", str(_ROUTING_PRIORITY), "fwmark", hex(mark), "lookup", str(mark)),
        )
    ]


# -- the two methods -----------------------------------------------------------------------------------------------------------


def _redirect(capture: CapturePlan, let_out: int) -> Iterator[str]:
    judge = ["jump spared", *wanted(capture, "goto taken"), *_not_wanted(capture, let_out)]
    output = ["meta l4proto != tcp accept", 'oif "lo" accept', *judge]
    yield from base_chain("output", f"type nat hook output priority {_BEFORE_NAT}", output)
    if capture.forwarded:
        lines = [*_only_forwarded(capture), *judge]
        yield from base_chain("arriving", f"type nat hook prerouting priority {_BEFORE_NAT}", lines)
    yield from chain("taken", [_LINK_LOCAL, f"{FIRST_PACKET} redirect to :{capture.port}"])


def _tproxy(capture: CapturePlan, let_out: int, divert: int) -> Iterator[str]:
    known = f"ct direction original ct mark {divert:#x}"
    output = ["meta l4proto != tcp accept", 'oif "lo" accept', "ct state new jump judge", f"{known} meta mark set {divert:#x}"]
    yield from base_chain("output", f"type route hook output priority {_MANGLE}", output)
    arriving = ["meta l4proto != tcp accept", f'iif "lo" meta mark {divert:#x} goto taken']
    if capture.forwarded:
        arriving += [*_only_forwarded(capture), "ct state new jump judge", f"{known} goto taken"]
    yield from base_chain("arriving", f"type filter hook prerouting priority {_MANGLE}", arriving)
    yield from chain("judge", ["jump spared", *wanted(capture, "goto chosen"), *_not_wanted(capture, let_out)])
    yield from chain("chosen", [_LINK_LOCAL, f"{FIRST_PACKET} ct mark set {divert:#x}"])
    taken = [f"meta mark set {divert:#x}"]
    if capture.ip4:
        taken.append(f"meta nfproto ipv4 meta l4proto tcp tproxy ip to 127.0.0.1:{capture.port} accept")
    if capture.ip6:
        taken.append(f"meta nfproto ipv6 meta l4proto tcp tproxy ip6 to [::1]:{capture.port} accept")
    yield from chain("taken", [*taken, "meta l4proto tcp reject with tcp reset"])


def _only_forwarded(capture: CapturePlan) -> list[str]:
    """Return from the chain unless the packet comes from an interface of `forwarded` and goes through this host."""
    return [f"iifname != {interfaces(capture.forwarded)} accept", "meta l4proto != tcp accept", "fib daddr type local accept"]


def _not_wanted(capture: CapturePlan, let_out: int) -> list[str]:
    """Label a connection that the file does not capture. Another table may later change its destination to a captured one."""
    return [] if capture.only is None else [f"ct label set {let_out}"]


def _own(capture: CapturePlan, users: Sequence[int], cgroup: str | None) -> list[str]:
    """Matches for the proxy's own packets."""
    place = "" if cgroup is None else f' socket cgroupv2 level {cgroup.count("/") + 1} "{cgroup}"'
    found = [f"meta skuid {{ {', '.join(map(str, sorted(set(users))))} }}{place}"] if users else []
    return found if capture.mark is None else [*found, f"meta mark {capture.mark:#x}"]


def _signs(digest: str, *, egress: bool) -> Iterator[str]:
    """Rules by which the proxy can detect installed rules: it may not list them (see `stcp_proxy.net.rules_sign`)."""
    addresses = [SIGN, sign_of(digest), *([EGRESS_SIGN] if egress else [])]
    answers = [f"ip daddr {address} reject with icmp type host-prohibited" for address in addresses]
    yield from chain("sign", answers)
