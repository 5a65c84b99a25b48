"""Install rules in the kernel, and remove them.

One transaction replaces the table, so there is no moment without rules. Policy routing, which tproxy needs, is added before the
table and deleted after it. So every marked packet has a route for its mark. The comment of the table contains the mark, so
removal needs no configuration file. The egress filter drops packets that the rules have not marked. So it is attached after the
table, and detached before it.

After removal, an intercepted connection must not continue unencrypted. So the guard stays while there may be intercepted
connections: it accepts new connections, and resets unknown ones.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

from stcp_proxy.errors import ConfigError, RulesRefused
from stcp_proxy.intercept.egress_filter import attach, attached, detach
from stcp_proxy.intercept.egress_program import mark_of
from stcp_proxy.intercept.guard import PASS, labels_of
from stcp_proxy.intercept.nft_text import FIRST_PACKET
from stcp_proxy.intercept.policy_routing import add_routing, delete
from stcp_proxy.intercept.programs import has_tc, nft
from stcp_proxy.intercept.rules import HOLD, MADE_BY, Rules, about, routing
from stcp_proxy.intercept.sockets import TcpSocket, perhaps_intercepted, served, tcp_sockets

_COMMENT: Final = re.compile(rf'comment "({MADE_BY} [^"]*)"')
_MARK: Final = re.compile(r", mark ([0-9]+)$")
_CHAIN: Final = re.compile(r"^\tchain ([a-z_]+) \{$", re.MULTILINE)
_COUNTER: Final = re.compile(r"counter ([a-z_]+) \{\s+packets ([0-9]+) ")
_SPARED: Final = re.compile(r"^\t\tmeta (skuid|mark) (?:\{ ([^}]*) \}|(\S+)) .*goto let_out$", re.MULTILINE)
OPEN: Final = "connections leave unencrypted when another program deletes the rules"
"""The consequence of a missing egress filter."""
_TAKING: Final = ("output", "arriving")
"""The base chains that intercept."""
_LEAVING: Final = "leaving"
"""The name of an empty chain that marks the rest of a removed table."""


def apply(rules: Rules) -> str:
    """Install rules in place of the rules with the same table name. A second call changes nothing.

    Returns:
        One sentence that describes the change.

    Raises:
        RulesRefused: the rules were refused, with the reason; nothing has changed.
    """
    before = installed(rules.table)
    stale = _mark_of(before)
    added = add_routing(rules)
    try:
        nft(["-f", "-"], stdin=rules.nft + served_elements(rules.table))
    except BaseException:
        delete(added)
        raise
    if stale is not None and stale != rules.divert:
        delete(routing(stale, "delete"))
    after = installed(rules.table)
    replaced = f", in place of {about(before)}" if before and before != after else ""
    return f"installed: table inet {rules.table}, {about(after)}{replaced}; {_wire(rules)}"


def _wire(rules: Rules) -> str:
    """Attach or detach the egress filter, and describe the result."""
    if rules.egress is None:
        detach(rules.table)
        return "no egress filter, as requested"
    try:
        found = attach(rules.egress)
    except RulesRefused as exc:
        return f"WARNING: no egress filter: {exc}; {OPEN}"
    words = [f"egress filter on {', '.join(found.whole) or 'no interface'}"]
    return "; ".join([*words, *(f"WARNING: {reason}; {OPEN}" for reason in found.warnings())])


def remove(table: str, users: Iterable[int] = ()) -> str:
    """Remove everything that `apply` has installed under this name, and nothing else.

    Args:
        table: the name of the table.
        users: the users of the proxy, if the caller knows them. The table has them, unless another program has deleted it.

    Returns:
        One sentence about the removed and the remaining parts.

    Raises:
        RulesRefused: the removal failed, with the reason.
    """
    if f"{table}{HOLD}" in _tables():
        remedy = "end that process first: it would install them again"
        raise RulesRefused(f"'stcp-proxy intercept --watch' holds the rules of table inet {table}", remedy=remedy)
    text = listing(table)
    if text is None:
        return _remove_filter(table, set(users))
    comment = _comment(table, text)
    mark = _mark_of(comment)
    waiting = _waiting(text)
    if waiting:
        _leave(table, _CHAIN.findall(text))
    else:
        detach(table)
        nft(["delete", "table", "inet", table])
    if mark is not None:
        delete(routing(mark, "delete"))
    return f"removed: table inet {table}, {about(comment)}" + (f"; {waiting}" if waiting else "")


def installed(table: str) -> str | None:
    """The comment of an installed table; None where there is no table, or only the guard of a removed one.

    Raises:
        RulesRefused: another program made the table.
    """
    text = listing(table)
    if text is None:
        return None
    comment = _comment(table, text)
    return None if _LEAVING in _CHAIN.findall(text) else comment


def listing(table: str) -> str | None:
    """The rules of an installed table, without the elements of its sets and what it counted; None where there is no table."""
    if table not in _tables():
        return None
    try:
        return nft(["--terse", "--stateless", "list", "table", "inet", table])
    except RulesRefused:
        if table in _tables():
            raise
        return None  # another program has deleted the table meanwhile


def counted(table: str) -> dict[str, int]:
    """Packets that an installed table has counted, by the name of the counter; empty where there is no table."""
    try:
        text = nft(["list", "counters", "table", "inet", table])
    except RulesRefused:
        return {}
    return {name: int(packets) for name, packets in _COUNTER.findall(text)}


def chains_of(text: str) -> list[str]:
    """Names of the chains in the text of a table, in alphabetical order."""
    return sorted(_CHAIN.findall(text))


def served_elements(table: str) -> str:
    """Lines for `nft -f` that add the accepted connections of this host's servers to the sets of a table."""
    try:
        found = served(tcp_sockets())
    except OSError:
        return ""
    return "".join(
        f"add element inet {table} served{version} {{ {', '.join(elements)} }}\n"
        for version, elements in (("4", _elements(found, 4)), ("6", _elements(found, 6)))
        if elements
    )


def check_table(name: str) -> str:
    """Returns `name` if it is a valid name for a table, else raises ConfigError."""
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_]{0,30}", name) or name.endswith(HOLD):
        what = f"a table's name has letters, digits and '_', at most 31, and does not end in {HOLD}"
        raise ConfigError(what, remedy="leave out --table for the usual one")
    return name


def _elements(sockets: Iterable[TcpSocket], version: int) -> list[str]:
    """The elements of a set, without duplicates: two closing sockets may have the same addresses and ports."""
    names = (
        f"{each.ip} . {each.port} . {each.peer_ip} . {each.peer_port}" for each in sockets if each.peer_ip.version == version
    )
    return list(dict.fromkeys(names))


# -- installed tables ------------------------------------------------------------------------------------------------------------


def _tables() -> set[str]:
    """Names of all tables of the family inet. The kernel adds a comment to a table that a process owns."""
    lines = nft(["list", "tables", "inet"]).splitlines()
    return {words[2] for words in (line.split() for line in lines) if words[:2] == ["table", "inet"]}


def _comment(table: str, text: str) -> str:
    found = _COMMENT.search(text)
    if found is None:
        remedy = "remove it yourself if it is not needed, or choose another name with --table"
        raise RulesRefused(f"there is a table inet {table}, and stcp-proxy has not made it", remedy=remedy)
    return found[1]


def _mark_of(comment: str | None) -> int | None:
    found = _MARK.search(comment or "")
    return int(found[1]) if found else None


def _remove_filter(table: str, users: set[int]) -> str:
    """Remove the egress filter where another program has deleted the table."""
    found = attached(table) if has_tc() else {}
    if not found:
        return f"there is nothing to remove: no table inet {table} is installed"
    marks = {mark for program in found.values() if (mark := mark_of(program)) is not None}
    if perhaps_intercepted(tcp_sockets(), users, marks):
        what = (
            f"another program has deleted table inet {table}; without the egress filter, open connections would go on unencrypted"
        )
        raise RulesRefused(what, remedy="run --apply, then --remove: it resets the intercepted connections")
    detach(table)
    return f"removed: the egress filter on {', '.join(found)}; the table inet {table} was gone"


# -- removal -------------------------------------------------------------------------------------------------------------------


def _waiting(text: str) -> str:
    """The reason why the guard must stay; empty when it can go."""
    again = "run --remove again when they have ended"
    if "guard_forward" in _CHAIN.findall(text) and _LEAVING not in _CHAIN.findall(text):
        return f"the guard stays, since connections of other hosts may still be open: {again}"
    numbers: dict[str, set[int]] = {"skuid": set(), "mark": set()}
    for key, many, one in _SPARED.findall(text):
        numbers[key] |= {int(each, 0) for each in (many or one).split(", ")}
    try:
        count = len(perhaps_intercepted(tcp_sockets(), numbers["skuid"], numbers["mark"]))
    except OSError as exc:
        return f"the guard stays, since the kernel does not list open connections ({exc.strerror}): {again}"
    if not count:
        return ""
    return f"the guard stays for {count} connection{'s' * (count > 1)} still open, and resets the intercepted ones: {again}"


def _leave(table: str, chains: list[str]) -> None:
    """Stop intercepting, and keep the guard for connections that are open now."""
    if _LEAVING in chains:
        return
    taking = [name for name in _TAKING if name in chains]
    let_out = f"ct label set {labels_of(table).let_out} {PASS} accept"
    lines = [
        *(f"{verb} chain inet {table} {name}" for name in taking for verb in ("flush", "delete")),
        f"flush chain inet {table} sign",
        f"add chain inet {table} {_LEAVING}",
        f"insert rule inet {table} guard {FIRST_PACKET} {let_out}",
    ]
    nft(["-f", "-"], stdin="\n".join(lines) + "\n")
