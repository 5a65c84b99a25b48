"""The syntax of nftables: patterns, names, chains and sets as `nft -f` reads them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from stcp_proxy.net.pattern import Pattern

FIRST_PACKET: Final = "tcp flags & (fin | syn | rst | ack) == syn"
FIRST_ANSWER: Final = "tcp flags & (fin | syn | rst | ack) == syn | ack"
TUPLES: Final = {
    "4": "ip saddr . tcp sport . ip daddr . tcp dport",
    "6": "ip6 saddr . tcp sport . ip6 daddr . tcp dport",
}
"""The four values that name a connection, by IP version."""


def match(pattern: Pattern) -> str:
    """A pattern as the left part of a rule; empty for a pattern that covers everything."""
    parts = []
    if pattern.network is not None:
        family = "ip" if pattern.network.version == 4 else "ip6"
        if pattern.network.prefixlen == 0:
            parts.append(f"meta nfproto ipv{pattern.network.version}")
        else:
            whole = pattern.network.prefixlen == pattern.network.max_prefixlen
            parts.append(f"{family} daddr {pattern.network.network_address if whole else pattern.network}")
    if not pattern.every_port:
        ports = str(pattern.first) if pattern.first == pattern.last else f"{pattern.first}-{pattern.last}"
        parts.append(f"tcp dport {ports}")
    return " ".join(parts)


def interfaces(names: Sequence[str]) -> str:
    """A set of interface names."""
    return "{ " + ", ".join(f'"{name}"' for name in names) + " }"


def base_chain(name: str, hook: str, lines: Iterable[str]) -> Iterator[str]:
    """A chain that the kernel calls at a hook."""
    yield from chain(name, [f"{hook}; policy accept;", *lines])


def chain(name: str, lines: Iterable[str]) -> Iterator[str]:
    """A chain that other chains call, or the body of a base chain."""
    yield from _block("chain", name, lines)


def connection_set(name: str, version: str, *, timeout: str, size: int) -> Iterator[str]:
    """A set of connections. Rules add its elements.

    Args:
        name: the name of the set.
        version: "4" or "6".
        timeout: the lifetime of an element, in the time format of nftables.
        size: the largest number of elements.
    """
    lines = [f"typeof {TUPLES[version]}", f"size {size}", "flags dynamic,timeout", f"timeout {timeout}"]
    yield from _block("set", name, lines)


def counter(name: str) -> Iterator[str]:
    """A counter of packets. Rules name it."""
    yield from _block("counter", name, [])


def _block(kind: str, name: str, lines: Iterable[str]) -> Iterator[str]:
    yield ""
    yield f"\t{kind} {name} {{"
    yield from (f"\t\t{line}" for line in lines)
    yield "\t}"
