"""Patterns: what they cover, one canonical text for each, and a sentence for each mistake."""

from __future__ import annotations

import ipaddress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stcp_proxy.errors import ConfigError
from stcp_proxy.net.pattern import IPAddress, IPNetwork, Pattern, parse_pattern

label = st.from_regex(r"[a-z0-9]([a-z0-9-]{0,20}[a-z0-9])?", fullmatch=True)
names = st.lists(label, min_size=1, max_size=4).filter(lambda labels: not labels[-1].isdigit()).map(".".join)
ports = st.integers(1, 65535)
spans = st.tuples(ports, ports).map(sorted)
mapped = ipaddress.IPv6Network("::ffff:0:0/96")


@st.composite
def networks(draw: Any) -> IPNetwork:
    base: IPAddress = draw(st.ip_addresses())
    network = ipaddress.ip_network((base, draw(st.integers(0, base.max_prefixlen))), strict=False)
    if isinstance(network, ipaddress.IPv6Network) and network.subnet_of(mapped):
        return ipaddress.ip_network("2001:db8::/32")
    return network


@st.composite
def patterns(draw: Any) -> Pattern:
    first, last = draw(spans)
    kind = draw(st.sampled_from(["network", "name", "any"]))
    return Pattern(
        network=draw(networks()) if kind == "network" else None,
        name=draw(names) if kind == "name" else None,
        first=first,
        last=last,
    )


@given(patterns())
def test_text_round_trip(pattern: Pattern) -> None:
    assert parse_pattern(str(pattern)) == pattern


@given(networks(), spans, st.ip_addresses().filter(lambda ip: ip not in mapped), st.integers(0, 70000))
def test_a_pattern_covers_its_network_and_ports_and_nothing_else(
    network: IPNetwork, span: list[int], ip: IPAddress, port: int
) -> None:
    pattern = Pattern(network=network, first=span[0], last=span[1])
    assert pattern.match(ip, port) == (ip in network and span[0] <= port <= span[1])
    assert pattern.match(network.network_address, span[0])
    assert pattern.match(network.broadcast_address, span[1])
    assert not pattern.match(network.network_address, span[0] - 1)
    assert not pattern.match(network.network_address, span[1] + 1)


@given(st.text(alphabet="0123456789abcdefx.:-/[]%* \n", max_size=30) | st.text(max_size=12))
def test_any_text_is_a_pattern_or_a_sentence(text: str) -> None:
    try:
        pattern = parse_pattern(text)
    except ConfigError:
        return
    assert parse_pattern(str(pattern)) == pattern


@pytest.mark.parametrize(
    ("text", "network", "name", "first", "last", "canonical"),
    [
        ("10.1.2.3", "10.1.2.3/32", None, 1, 65535, "10.1.2.3"),
        ("10.1.2.3/32:80", "10.1.2.3/32", None, 80, 80, "10.1.2.3:80"),
        ("10.0.0.0/8:6379", "10.0.0.0/8", None, 6379, 6379, "10.0.0.0/8:6379"),
        ("0.0.0.0/0:080", "0.0.0.0/0", None, 80, 80, "0.0.0.0/0:80"),
        ("[2001:DB8::/32]:1-1024", "2001:db8::/32", None, 1, 1024, "[2001:db8::/32]:1-1024"),
        ("[2001:db8::1]", "2001:db8::1/128", None, 1, 65535, "[2001:db8::1]"),
        ("[::/0]:53", "::/0", None, 53, 53, "[::/0]:53"),
        (":443", None, None, 443, 443, ":443"),
        (":1-65535", None, None, 1, 65535, ":1-65535"),
        ("DB.internal:5432", None, "db.internal", 5432, 5432, "db.internal:5432"),
        ("db.internal", None, "db.internal", 1, 65535, "db.internal"),
        ("localhost:80-80", None, "localhost", 80, 80, "localhost:80"),
    ],
)
def test_forms(text: str, network: str | None, name: str | None, first: int, last: int, canonical: str) -> None:
    pattern = parse_pattern(text)
    assert pattern == Pattern(network and ipaddress.ip_network(network), name, first, last)
    assert str(pattern) == canonical


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "empty"),
        (":", "neither a number nor a range"),
        ("10.0.0.0/8:", "neither a number nor a range"),
        ("10.0.0.0/8:http", "neither a number nor a range"),
        ("10.0.0.0/8:1-", "neither a number nor a range"),
        ("10.0.0.0/8:1-2-3", "neither a number nor a range"),
        ("10.0.0.0/8:+1", "neither a number nor a range"),
        ("10.0.0.0/8:٣", "neither a number nor a range"),
        (":0", "out of range"),
        (":65536", "out of range"),
        (":1-65536", "out of range"),
        (":90-80", "run backwards; write 80-90"),
        ("10.0.0.1/8", "bits behind its prefix length; write 10.0.0.0/8"),
        ("[2001:db8::1/32]", "bits behind its prefix length; write [2001:db8::/32]"),
        ("10.0.0.0/33", "from 0 to 32"),
        ("10.0.0.0/", "from 0 to 32"),
        ("10.0.0.0/255.0.0.0", "from 0 to 32"),
        ("[2001:db8::/129]", "from 0 to 128"),
        ("[2001:db8::]/32", "inside the brackets"),
        ("[2001:db8::/32", "no closing bracket"),
        ("[2001:db8::/32]80", "only a colon"),
        ("[10.0.0.0/8]", "no IPv6 address"),
        ("[]", "no IPv6 address"),
        ("[fe80::1%eth0]", "no interface"),
        ("2001:db8::1", "more than one colon"),
        ("2001:db8::/32", "more than one colon"),
        ("10.0.0/8", "no IPv4 address"),
        ("db.internal/24:80", "no IPv4 address"),
        ("10.0.0.256", "no valid IPv4 address"),
        ("[::ffff:10.0.0.1]:80", "IPv4 written as IPv6; write 10.0.0.1/32"),
        ("[::ffff:10.0.0.0/104]:80", "IPv4 written as IPv6; write 10.0.0.0/8"),
        ("*:80", "without a star"),
        ("*.internal:80", "no valid host name"),
        ("unix:/run/x", "neither a number nor a range"),
    ],
)
def test_mistakes(text: str, says: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_pattern(text)
    assert says in str(caught.value)
    assert caught.value.remedy


def test_an_ipv4_address_stays_one_in_ipv6_dress() -> None:
    dressed = ipaddress.IPv6Address("::ffff:127.0.0.1")
    assert parse_pattern("127.0.0.0/8:80").match(dressed, 80)
    assert not parse_pattern("[::/0]:80").match(dressed, 80)
    assert not parse_pattern("10.0.0.0/8:80").match(dressed, 80)


def test_an_interface_changes_nothing() -> None:
    assert parse_pattern("[fe80::/10]:80").match(ipaddress.IPv6Address("fe80::1%eth0"), 80)
    assert parse_pattern("[fe80::1]:80").match(ipaddress.IPv6Address("fe80::1%eth0"), 80)


def test_a_name_covers_nothing_by_itself_but_has_its_ports() -> None:
    pattern = parse_pattern("db.internal:5432-5433")
    assert not pattern.match(ipaddress.ip_address("10.0.0.5"), 5432)
    assert not pattern.covers(ipaddress.ip_address("10.0.0.5"))
    assert [pattern.has_port(port) for port in (5431, 5432, 5433, 5434)] == [False, True, True, False]


@pytest.mark.parametrize(
    ("text", "inside"),
    [
        ("127.0.0.1:80", True),
        ("127.0.0.0/8", True),
        ("126.0.0.0/7", False),
        ("0.0.0.0/0", False),
        (":80", False),
        ("localhost", False),
        ("[::1]", False),
    ],
)
def test_what_is_about_a_network_alone(text: str, inside: bool) -> None:
    assert parse_pattern(text).within(ipaddress.ip_network("127.0.0.0/8")) == inside


def test_port_0_is_never_covered() -> None:
    assert not parse_pattern("10.0.0.0/8").match(ipaddress.ip_address("10.0.0.1"), 0)
