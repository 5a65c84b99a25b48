"""Who the client is said to be: what a peer may claim, what is passed on instead, and in which words."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Iterator

import pytest

from stcp_proxy.config import HandOn
from stcp_proxy.errors import Code, Denied, TargetUnreachable, code_for
from stcp_proxy.net.leg_stream import LegStream
from stcp_proxy.net.pattern import parse_pattern
from stcp_proxy.net.proxy_header import TLV_PEER, TLV_SERVICE, TLV_UNIQUE_ID, ProxyHeader, parse_header
from stcp_proxy.protocol.opening import Endpoint
from stcp_proxy.session.client_address import client_of, endpoint_of, proxy_header, send_header, source_for
from stcp_proxy.session.record import Connection

V1, V2 = HandOn(proxy_protocol="v1"), HandOn(proxy_protocol="v2")


def end(text: str, port: int = 4711) -> Endpoint:
    return Endpoint(ipaddress.ip_address(text), port)


SEEN = end("192.0.2.77", 50000)


def only(*rules: str) -> HandOn:
    return HandOn(proxy_protocol="v2", allow_clients=tuple(parse_pattern(rule) for rule in rules))


@pytest.mark.parametrize(
    ("claimed", "hand_on", "client"),
    [
        (None, V2, SEEN),
        (end("203.0.113.9"), V2, end("203.0.113.9")),
        (end("2001:db8::9"), V2, end("2001:db8::9")),
        (end("::ffff:203.0.113.9"), V2, end("203.0.113.9")),
        # On the peer's own host: its address is what this side knows of that host.
        (end("127.0.0.1"), V2, SEEN),
        (end("::1"), V2, SEEN),
        (end("::ffff:127.0.0.1"), V2, SEEN),
        (end("0.0.0.0"), V2, SEEN),
        (end("fe80::1"), V2, SEEN),
        (end("169.254.1.1"), only("203.0.113.0/24"), SEEN),
        (end("127.0.0.1"), only("0.0.0.0/0", "[::/0]"), SEEN),
        # Where the file lists them, they are believed.
        (end("127.0.0.1"), only("127.0.0.1"), end("127.0.0.1")),
        (end("127.0.0.1"), only("127.0.0.0/8"), end("127.0.0.1")),
        (end("224.0.0.5"), only("224.0.0.0/8"), end("224.0.0.5")),
        (end("203.0.113.9"), only("203.0.113.0/24"), end("203.0.113.9")),
        # Nobody is told: nothing to judge.
        (end("224.0.0.1"), HandOn(), SEEN),
    ],
)
def test_passed_on(claimed: Endpoint | None, hand_on: HandOn, client: Endpoint) -> None:
    assert client_of(claimed, SEEN, hand_on) == client


@pytest.mark.parametrize(
    ("claimed", "hand_on", "says"),
    [
        ("224.0.0.1", V2, "a multicast address"),
        ("255.255.255.255", V2, "a reserved address"),
        ("::127.0.0.1", V2, "an IPv4-compatible address"),
        ("64:ff9b::7f00:1", V2, "a translated IPv4 address"),
        ("255.255.255.255", only("0.0.0.0/0"), "a reserved address"),
        ("203.0.113.9", only("198.51.100.0/24"), "203.0.113.9, which it may not claim"),
        ("2001:db8::9", only("0.0.0.0/0"), "which it may not claim"),
    ],
)
def test_denied(claimed: str, hand_on: HandOn, says: str) -> None:
    with pytest.raises(Denied, match=says) as caught:
        client_of(end(claimed), SEEN, hand_on)
    assert code_for(caught.value) is Code.DENIED


def test_this_hosts_own_address_is_not_believed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stcp_proxy.net.special_addresses.is_own_address", lambda ip: str(ip) == "198.51.100.1")
    for rules in (V2, only("198.51.100.0/24"), only("0.0.0.0/0")):
        with pytest.raises(Denied, match="an address of this host"):
            client_of(end("198.51.100.1"), SEEN, rules)
        assert client_of(end("198.51.100.2"), SEEN, rules) == end("198.51.100.2")
    assert client_of(end("198.51.100.1"), SEEN, only("198.51.100.1")) == end("198.51.100.1")


# -- the header ------------------------------------------------------------------------------------------------------------


class NoOwner:
    def settle(self, connection: Connection, end: object) -> None: ...

    def forget(self, connection: Connection) -> None: ...


@pytest.fixture
def legs() -> Iterator[tuple[socket.socket, socket.socket]]:
    """A connected pair over TCP: the target's end, and ours."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        near = socket.create_connection(listener.getsockname(), timeout=10)
        far, _ = listener.accept()
    near.setblocking(False)
    far.settimeout(10)
    with near, far:
        yield far, near


@pytest.fixture
def record() -> Connection:
    record = Connection("tunnel", "client", NoOwner())
    record.channel = "0123456789abcdef"
    record.service = "redis"
    return record


def header_of(data: bytes) -> ProxyHeader:
    found = parse_header(data)
    assert found is not None
    assert found[0] == len(data)
    return found[1]


def test_version_2_has_addresses_and_names(legs: tuple[socket.socket, socket.socket], record: Connection) -> None:
    _, plain = legs
    header = header_of(proxy_header(V2, SEEN, None, plain, record, peer="app-host"))
    assert (header.source, header.destination) == (SEEN, endpoint_of(plain))
    assert header.tlvs == ((TLV_UNIQUE_ID, b"0123456789abcdef"), (TLV_PEER, b"app-host"), (TLV_SERVICE, b"redis"))


def test_a_shared_secret_has_no_name(legs: tuple[socket.socket, socket.socket], record: Connection) -> None:
    record.service = ""
    header = header_of(proxy_header(V2, SEEN, None, legs[1], record, peer=""))
    assert dict(header.tlvs).keys() == {TLV_UNIQUE_ID}


def test_version_1(legs: tuple[socket.socket, socket.socket], record: Connection) -> None:
    target = endpoint_of(legs[1])
    assert target is not None
    line = proxy_header(V1, SEEN, None, legs[1], record, peer="app-host")
    assert line == f"PROXY TCP4 192.0.2.77 127.0.0.1 50000 {target.port}\r\n".encode()


def test_where_the_client_wanted_to_go(legs: tuple[socket.socket, socket.socket], record: Connection) -> None:
    original = end("198.51.100.1", 5432)
    assert header_of(proxy_header(V2, SEEN, original, legs[1], record, peer="")).destination == original


@pytest.mark.parametrize("hand_on", [V1, V2])
def test_a_family_of_its_own(hand_on: HandOn, legs: tuple[socket.socket, socket.socket], record: Connection) -> None:
    """An IPv6 client of an IPv4 target keeps its address."""
    target = endpoint_of(legs[1])
    assert target is not None
    header = header_of(proxy_header(hand_on, end("2001:db8::9"), end("198.51.100.1"), legs[1], record, peer=""))
    assert (header.source, header.destination) == (end("2001:db8::9"), end("::", target.port))


@pytest.mark.parametrize(
    ("hand_on", "data"), [(V1, b"PROXY UNKNOWN\r\n"), (V2, b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0"), (HandOn(), b"")]
)
def test_nobody_knows_the_client(hand_on: HandOn, data: bytes, record: Connection) -> None:
    with socket.socket(socket.AF_UNIX) as plain:
        assert proxy_header(hand_on, None, None, plain, record, peer="app-host") == data


def test_a_unix_target(record: Connection) -> None:
    with socket.socket(socket.AF_UNIX) as plain:
        assert header_of(proxy_header(V2, SEEN, None, plain, record, peer="")).destination == end("0.0.0.0", 0)


async def test_a_target_that_closes_at_once(legs: tuple[socket.socket, socket.socket]) -> None:
    far, near = legs
    near.close()
    with pytest.raises(TargetUnreachable):
        await send_header(LegStream(near), b"PROXY UNKNOWN\r\n")
    assert far.recv(100) == b""


# -- the address to dial from ----------------------------------------------------------------------------------------------

CLIENTS_OWN = HandOn(transparent=True)


def test_the_source_is_the_client() -> None:
    assert source_for(client_of(end("203.0.113.9"), SEEN, CLIENTS_OWN), CLIENTS_OWN) == end("203.0.113.9")
    assert source_for(client_of(None, SEEN, CLIENTS_OWN), CLIENTS_OWN) == SEEN
    assert source_for(client_of(end("127.0.0.1"), SEEN, CLIENTS_OWN), CLIENTS_OWN) == SEEN
    assert source_for(end("203.0.113.9"), V2) is None


def test_a_source_that_may_not_be_claimed() -> None:
    with pytest.raises(Denied, match="a multicast address"):
        client_of(end("224.0.0.1"), SEEN, CLIENTS_OWN)


def test_an_unknown_client_has_no_stand_in() -> None:
    """The target may trust this host."""
    with pytest.raises(Denied, match="does not name this address"):
        source_for(client_of(None, None, CLIENTS_OWN), CLIENTS_OWN)


@pytest.mark.parametrize(("hand_on", "tells"), [(HandOn(), False), (V1, True), (V2, True), (HandOn(transparent=True), True)])
def test_who_connected_is_found_out_only_where_somebody_is_told(hand_on: HandOn, tells: bool) -> None:
    assert hand_on.tells_client == tells
