"""Addresses: one canonical text for each, and a sentence for each mistake."""

from __future__ import annotations

import ipaddress
import socket
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stcp_proxy.errors import ConfigError
from stcp_proxy.net.address import (
    Address,
    Role,
    SrvAddress,
    TcpAddress,
    UnixAddress,
    clash,
    describe_sockaddr,
    loops,
    parse_address,
    parse_destination,
    parse_server,
)
from stcp_proxy.net.zone import needs_zone

label = st.from_regex(r"[a-z0-9]([a-z0-9-]{0,20}[a-z0-9])?", fullmatch=True)
name = st.lists(label, min_size=1, max_size=4).filter(lambda labels: not labels[-1].isdigit()).map(".".join)
plain = st.ip_addresses().filter(lambda address: address.version == 4 or not needs_zone(address))
zoned = st.builds(
    "fe80::{:x}%{}".format, st.integers(1, 0xFFFF), st.from_regex(r"[1-9][0-9]{0,4}|[a-z_][a-z0-9_.-]{0,14}", fullmatch=True)
)
ip = st.one_of(plain.filter(lambda address: int(address) != 0).map(str), zoned)
tcp = st.builds(TcpAddress, st.one_of(name, ip), st.integers(1, 65535))
unix = st.from_regex(r"/[a-z0-9._/-]{0,60}[a-z0-9]", fullmatch=True).map(UnixAddress)


@given(st.one_of(tcp, unix), st.sampled_from(["bind", "to"]))
def test_text_round_trip(address: Address, role: Role) -> None:
    assert parse_address(str(address), role=role) == address


@pytest.mark.parametrize(
    ("text", "role", "host", "port", "canonical"),
    [
        (":8080", "bind", "", 8080, ":8080"),
        (":8080", "to", "localhost", 8080, "localhost:8080"),
        (":0", "bind", "", 0, ":0"),
        ("127.0.0.1:80", "to", "127.0.0.1", 80, "127.0.0.1:80"),
        ("0.0.0.0:80", "bind", "0.0.0.0", 80, "0.0.0.0:80"),
        ("[::]:80", "bind", "::", 80, "[::]:80"),
        ("[0:0:0:0:0:0:0:1]:080", "to", "::1", 80, "[::1]:80"),
        ("[FE80::1%eth0]:80", "to", "fe80::1%eth0", 80, "[fe80::1%eth0]:80"),
        ("DB1.Internal:7443", "to", "db1.internal", 7443, "db1.internal:7443"),
        ("db.example.:65535", "to", "db.example.", 65535, "db.example.:65535"),
        ("my_service:1", "to", "my_service", 1, "my_service:1"),
    ],
)
def test_tcp(text: str, role: Role, host: str, port: int, canonical: str) -> None:
    address = parse_address(text, role=role)
    assert address == TcpAddress(host, port)
    assert str(address) == canonical


@pytest.mark.parametrize("text", ["srv:_stcp._tcp.Example.com", "srv:_stcp._tcp.example.com", "srv:_a-b._tcp.x."])
def test_srv(text: str) -> None:
    address = parse_destination(text)
    assert isinstance(address, SrvAddress)
    assert str(address) == text.lower()
    assert not loops(TcpAddress("", 7443), address)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("srv:", "does not name SRV records; write srv:_service._tcp.domain"),
        ("srv:_stcp._tcp", "does not name SRV records"),
        ("srv:_stcp._udp.example.com", "does not name SRV records"),
        ("srv:example.com", "does not name SRV records"),
        ("srv:_stcp._tcp.example.com:7443", "has a port; leave it out"),
        ("srv:_stcp._tcp.exa mple.com", "has no valid name"),
        ("srv:_stcp._tcp." + "a." * 126, "has no valid name"),
        ("srv:_stcp._tcp..com", "has no valid name"),
        ("srv:_stcp._tcp.\x1b[2J.com", "has no valid name"),
    ],
)
def test_no_srv(text: str, says: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_destination(text)
    assert says in str(caught.value)
    assert "\x1b" not in str(caught.value)


def test_srv_records_are_no_place_to_listen() -> None:
    with pytest.raises(ConfigError):
        parse_address("srv:_stcp._tcp.example.com", role="bind")


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("127.0.0.1", "127.0.0.1", 53),
        ("127.0.0.1:5353", "127.0.0.1", 5353),
        ("2001:db8::1", "2001:db8::1", 53),
        ("[2001:DB8::1]", "2001:db8::1", 53),
        ("[::1]:5353", "::1", 5353),
        ("fe80::1%eth0", "fe80::1%eth0", 53),
        ("[fe80::1%2]:5353", "fe80::1%2", 5353),
    ],
)
def test_name_server(text: str, host: str, port: int) -> None:
    assert parse_server(text) == TcpAddress(host, port)


@pytest.mark.parametrize(
    "text",
    ["", "dns.example.com", "127.0.0.1:0", "127.0.0.1:x", "[::1", "[::1]5", "::1]:5", "1.2.3.4.5", ":53", "fe80::1", "::1%lo"],
)
def test_no_name_server(text: str) -> None:
    with pytest.raises(ConfigError):
        parse_server(text)


def test_unix() -> None:
    assert parse_address("unix:/run/redis.sock", role="to") == UnixAddress("/run/redis.sock")
    assert str(UnixAddress("/run/redis.sock")) == "unix:/run/redis.sock"
    assert parse_address("unix:/" + "x" * 106, role="bind") == UnixAddress("/" + "x" * 106)


@pytest.mark.parametrize(
    ("text", "role", "says"),
    [
        ("", "to", "no port"),
        ("db1", "to", "no port"),
        ("db1:", "to", "not a number"),
        ("db1:http", "to", "not a number"),
        ("db1:-1", "to", "not a number"),
        ("db1:٣", "to", "not a number"),
        ("db1:0", "to", "out of range"),
        ("db1:65536", "bind", "out of range"),
        ("db1:" + "9" * 5000, "bind", "out of range"),
        ("::1:80", "to", "in brackets"),
        ("[::1]", "to", "in brackets"),
        ("[db1]:80", "to", "no IPv6 address"),
        ("[]:80", "to", "no IPv6 address"),
        ("[127.0.0.1]:80", "to", "no IPv6 address"),
        ("[fe80::1]:80", "to", "without its interface; write the interface behind it, fe80::1%eth0"),
        ("[fe80::1]:80", "bind", "without its interface"),
        ("[ff02::1]:80", "bind", "without its interface"),
        ("[::1%lo]:80", "to", "only a link-local address can have"),
        ("[2001:db8::1%eth0]:80", "bind", "only a link-local address can have"),
        ("[fe80::1%]:80", "to", "no valid interface"),
        ("[fe80::1%0]:80", "to", "no valid interface"),
        ("[fe80::1%eth0%1]:80", "to", "no valid interface"),
        ("[fe80::1%0123456789abcdef]:80", "to", "no valid interface"),
        ("[fe80::1%-f]:80", "to", "no valid interface"),
        ("[fe80::1%..]:80", "to", "no valid interface"),
        ("[fe80::1%a }; flush ruleset]:80", "to", "no valid interface"),
        ("[fe80::1%a\x1b[2J]:80", "to", "no valid interface"),
        ("[fe80::1%a\n]:80", "to", "no valid interface"),
        ("[fe80::1%é]:80", "to", "no valid interface"),
        ("1.2.3.400:80", "to", "IPv4"),
        ("127.1:80", "to", "IPv4"),
        ("010.0.0.1:80", "to", "IPv4"),
        ("*:80", "bind", "without a star"),
        ("a b:80", "to", "host name"),
        ("-a:80", "to", "host name"),
        ("a..b:80", "to", "host name"),
        ("bücher.example:80", "to", "host name"),
        ("a" * 64 + ":80", "to", "host name"),
        (".".join(["abc"] * 64) + ":80", "to", "host name"),
        ("db1:80,db2:80", "to", "has several addresses; write each by itself: a list in a file, --to for each"),
        ("http://db1:80", "to", "this is a URL, and an address belongs here; write db1:80"),
        ("0.0.0.0:80", "to", "not one to dial"),
        ("[::]:80", "to", "not one to dial"),
        ("/run/x.sock", "bind", "write unix:/path"),
        ("unix:x.sock", "bind", "absolute"),
        ("unix:", "bind", "absolute"),
        ("unix:@x", "bind", "access control"),
        ("unix:/run/", "bind", "does not name a socket"),
        ("unix:/a\0b", "bind", "does not name a socket"),
        ("unix:/" + "x" * 107, "bind", "108 bytes"),
        ("unix:/" + "é" * 54, "bind", "109 bytes"),
    ],
)
def test_refused(text: str, role: Role, says: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_address(text, role=role)
    message = str(caught.value)
    assert says in message
    assert message.isprintable()


def test_a_secret_in_the_wrong_place_is_not_repeated() -> None:
    with pytest.raises(ConfigError) as caught:
        parse_address("stcp-key:AAECAwQFBgcICQoLDA0ODw==", role="to")
    assert "AAECAw" not in str(caught.value)


@given(st.text(max_size=60), st.sampled_from(["bind", "to"]))
def test_any_text_is_an_address_or_a_refusal(text: str, role: Role) -> None:
    try:
        address = parse_address(text, role=role)
    except ConfigError:
        return
    assert parse_address(str(address), role=role) == address


@pytest.mark.parametrize(
    ("family", "sockaddr", "text"),
    [
        (socket.AF_INET, ("10.0.0.1", 80), "10.0.0.1:80"),
        (socket.AF_INET6, ("::1", 80, 0, 0), "[::1]:80"),
        (socket.AF_INET6, ("::ffff:10.0.0.1", 80, 0, 0), "10.0.0.1:80"),
        (socket.AF_INET6, ("fe80::1%lo", 80, 0, 1), "[fe80::1%lo]:80"),
        (socket.AF_INET6, ("fe80::1", 80, 0, 99999), "[fe80::1%99999]:80"),
        (socket.AF_UNIX, "/run/x.sock", "unix:/run/x.sock"),
        (socket.AF_UNIX, "", "unix:"),
        (socket.AF_UNIX, b"\0name", "unix:@name"),
        (socket.AF_UNIX, "/run/a\nb", "unix:/run/a\\nb"),
    ],
)
def test_describe_sockaddr(family: int, sockaddr: Any, text: str) -> None:
    assert describe_sockaddr(family, sockaddr) == text


@given(plain, st.integers(1, 65535))
def test_described_address_is_one_that_parses(address: ipaddress.IPv4Address | ipaddress.IPv6Address, port: int) -> None:
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    text = describe_sockaddr(family, (str(address), port, 0, 0))
    assert str(parse_address(text, role="bind")) == text


def pair(first: str, second: str) -> tuple[Address, Address]:
    return parse_address(first, role="bind"), parse_address(second, role="bind")


@pytest.mark.parametrize(
    ("first", "second", "clashes", "loops_back"),
    [
        (":80", ":80", True, True),
        (":80", "127.0.0.1:80", True, True),
        (":80", "[::1]:80", True, True),
        (":80", "10.0.0.1:80", True, False),
        (":80", "db:80", False, False),
        (":80", ":81", False, False),
        (":0", ":0", False, True),
        ("0.0.0.0:80", "[::]:80", False, False),
        ("0.0.0.0:80", "[::1]:80", False, False),
        ("0.0.0.0:80", "localhost:80", True, True),
        ("[::]:80", "[::1]:80", True, True),
        ("localhost:80", "[::1]:80", True, True),
        ("127.0.0.1:80", "127.0.0.2:80", False, False),
        ("db:80", "db:80", True, True),
        ("unix:/tmp/a", "unix:/tmp/../tmp/a", True, True),
        ("unix:/tmp/a", "unix:/tmp/b", False, False),
        ("unix:/tmp/a", ":80", False, False),
    ],
)
def test_two_addresses(first: str, second: str, clashes: bool, loops_back: bool) -> None:
    a, b = pair(first, second)
    assert (clash(a, b), clash(b, a)) == (clashes, clashes)
    assert loops(a, b) is loops_back
