"""What is dialled on a peer's word: nothing that `allow_targets` leaves out."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Iterator

import pytest
from harness.sockets import free_port
from hypothesis import given
from hypothesis import strategies as st

from stcp_proxy.errors import Code, Denied, TargetRefused, code_for
from stcp_proxy.net import special_addresses
from stcp_proxy.net.pattern import Pattern, parse_pattern
from stcp_proxy.protocol.opening import Endpoint
from stcp_proxy.session.original_target import allowed_destination, dial_destination, port_of

OWN = ("198.51.100.1", "2001:db8:ffff::1")


def end(text: str, port: int = 5432) -> Endpoint:
    return Endpoint(ipaddress.ip_address(text), port)


def rules(*texts: str) -> tuple[Pattern, ...]:
    return tuple(map(parse_pattern, texts))


@pytest.fixture(autouse=True, scope="module")
def _own() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(special_addresses, "is_own_address", lambda ip: str(ip) in OWN)
        yield


@pytest.mark.parametrize(
    ("original", "rule", "dialled"),
    [
        (end("10.1.2.3"), "10.0.0.0/8", end("10.1.2.3")),
        (end("10.1.2.3"), "10.0.0.0/8:5432", end("10.1.2.3")),
        (end("10.1.2.3"), ":5000-6000", end("10.1.2.3")),
        (end("::ffff:10.1.2.3"), "10.0.0.0/8", end("10.1.2.3")),
        (end("2001:db8::9"), "[2001:db8::/32]:5432", end("2001:db8::9")),
        # The dangerous ones, by a rule about them alone.
        (end("127.0.0.1"), "127.0.0.1:5432", end("127.0.0.1")),
        (end("127.0.0.1"), "127.0.0.0/8", end("127.0.0.1")),
        (end("::1"), "[::1]:5432", end("::1")),
        (end("169.254.169.254"), "169.254.169.254", end("169.254.169.254")),
        (end(OWN[0]), OWN[0], end(OWN[0])),
        (end(OWN[1]), f"[{OWN[1]}]:5432", end(OWN[1])),
        # The port is the tunnel's, the host another.
        (end("10.1.2.3", 7443), "10.0.0.0/8", end("10.1.2.3", 7443)),
    ],
)
def test_allowed(original: Endpoint, rule: str, dialled: Endpoint) -> None:
    assert allowed_destination(original, rules(rule), listening=7443) == dialled


EVERYTHING = ("0.0.0.0/0", "[::/0]", ":1-65535")


@pytest.mark.parametrize(
    ("original", "allowed", "says"),
    [
        (None, EVERYTHING, "does not name its client's destination"),
        (end("10.1.2.3", 5433), ("10.0.0.0/8:5432",), "10.1.2.3:5433, which 'allow_targets' does not allow"),
        (end("11.1.2.3"), ("10.0.0.0/8",), "11.1.2.3:5432"),
        (end("2001:db8::9"), ("0.0.0.0/0",), "does not allow"),
        (end("10.1.2.3", 0), EVERYTHING, "does not allow"),
        (end("127.0.0.1"), EVERYTHING, "it is a loopback address"),
        (end("::ffff:127.0.0.1"), EVERYTHING, "it is a loopback address"),
        (end("::1"), EVERYTHING, "it is a loopback address"),
        (end("0.0.0.0"), EVERYTHING, "it is an unspecified address"),
        (end("::"), EVERYTHING, "it is an unspecified address"),
        (end("169.254.169.254"), EVERYTHING, "it is a link-local address"),
        (end("fe80::1"), EVERYTHING, "it is a link-local address"),
        (end("224.0.0.1"), EVERYTHING, "it is a multicast address"),
        (end("255.255.255.255"), EVERYTHING, "it is a reserved address"),
        (end("64:ff9b::7f00:1"), EVERYTHING, "it is a translated IPv4 address"),
        (end("2002:7f00:1::"), EVERYTHING, "it is a 6to4 address"),
        (end(OWN[0]), ("198.51.100.0/24", *EVERYTHING), "it is an address of this host"),
        (end(OWN[1]), EVERYTHING, "it is an address of this host"),
        # A rule about another port does not speak for this one.
        (end("127.0.0.1"), ("127.0.0.1:6379", ":5432"), "it is a loopback address"),
        (end(OWN[0], 7443), OWN[:1], "this tunnel's own port"),
        (end("127.0.0.1", 7443), ("127.0.0.1:7443",), "this tunnel's own port"),
    ],
)
def test_denied(original: Endpoint | None, allowed: tuple[str, ...], says: str) -> None:
    with pytest.raises(Denied, match=says) as caught:
        allowed_destination(original, rules(*allowed), listening=7443)
    assert code_for(caught.value) is Code.DENIED


_NEAR = [
    "10.0.0.0",
    "10.0.0.255",
    "127.0.0.1",
    "0.0.0.0",
    "169.254.169.254",
    "224.0.0.1",
    *OWN,
    "::",
    "::1",
    "fe80::1",
    "2002::1",
]
_ADDRESSES = st.one_of(
    st.ip_addresses(),
    st.sampled_from(_NEAR).map(ipaddress.ip_address),
    st.ip_addresses(v=4).map(lambda ip: ipaddress.ip_address(f"::ffff:{ip}")),
)
_PORTS = st.one_of(st.integers(0, 65535), st.sampled_from([0, 1, 5432, 7443, 65535]))


@st.composite
def _rules(draw: st.DrawFn) -> Pattern:
    first = draw(st.integers(1, 65535))
    last = draw(st.integers(first, 65535))
    if draw(st.booleans()):
        return Pattern(first=1, last=65535) if draw(st.booleans()) else Pattern(first=first, last=last)
    ip = draw(_ADDRESSES)
    bits = draw(st.integers(0, ip.max_prefixlen))
    return Pattern(network=ipaddress.ip_network((ip, bits), strict=False), first=first, last=last)


_SPECIAL = [
    ipaddress.ip_network(text) for text in ("127.0.0.0/8", "::1", "0.0.0.0/8", "169.254.0.0/16", "fe80::/10", "224.0.0.0/4")
]


@given(_ADDRESSES, _PORTS, st.lists(_rules(), max_size=4))
def test_nothing_is_dialled_that_no_rule_covers(ip: special_addresses.IPAddress, port: int, allowed: list[Pattern]) -> None:
    try:
        found = allowed_destination(Endpoint(ip, port), allowed, listening=7443)
    except Denied:
        return
    plain = getattr(ip, "ipv4_mapped", None) or ip
    assert (found.ip, found.port) == (plain, port)
    by = [one for one in allowed if one.first <= port <= one.last and (one.network is None or plain in one.network)]
    assert by
    if str(plain) in OWN:
        assert any(one.network is not None and one.network.num_addresses == 1 for one in by)
        assert port != 7443
    for network in _SPECIAL:
        if plain in network:
            assert any(one.network is not None and one.network.prefixlen >= network.prefixlen for one in by)


async def test_nobody_is_there() -> None:
    with pytest.raises(TargetRefused):
        await dial_destination(end("127.0.0.1", free_port()), 5)


def test_the_port_of_a_socket() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        assert port_of(listener) == listener.getsockname()[1]
    with socket.socket(socket.AF_UNIX) as sock:
        assert port_of(sock) is None
