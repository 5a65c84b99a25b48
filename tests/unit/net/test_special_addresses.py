"""Which addresses are more than they look."""

from __future__ import annotations

import ipaddress
import socket

import pytest

from stcp_proxy.net.special_addresses import is_local_to_a_host, is_own_address, special_network


@pytest.mark.parametrize(
    ("text", "word", "local"),
    [
        ("127.0.0.1", "a loopback address", True),
        ("127.255.255.254", "a loopback address", True),
        ("::1", "a loopback address", True),
        ("::ffff:127.0.0.1", "a loopback address", True),
        ("0.0.0.0", "an unspecified address", True),
        ("::", "an unspecified address", True),
        ("169.254.169.254", "a link-local address", True),
        ("fe80::1%lo", "a link-local address", True),
        ("224.0.0.1", "a multicast address", False),
        ("ff02::1", "a multicast address", False),
        ("255.255.255.255", "a reserved address", False),
        ("::127.0.0.1", "an IPv4-compatible address", False),
        ("64:ff9b::7f00:1", "a translated IPv4 address", False),
        ("64:ff9b:1::7f00:1", "a translated IPv4 address", False),
        ("::ffff:0:127.0.0.1", "a translated IPv4 address", False),
        ("2001:0:7f00:1::1", "a Teredo address", False),
        ("2001:1::1", None, False),
        ("2002:7f00:1::1", "a 6to4 address", False),
        ("10.0.0.1", None, False),
        ("126.255.255.255", None, False),
        ("128.0.0.0", None, False),
        ("2001:db8::1", None, False),
        ("fd00::1", None, False),
    ],
)
def test_special_addresses(text: str, word: str | None, local: bool) -> None:
    ip = ipaddress.ip_address(text)
    found = special_network(ip)
    assert (found and found[1]) == word
    assert is_local_to_a_host(ip) == local


def test_what_this_host_delivers_to_itself() -> None:
    assert is_own_address(ipaddress.ip_address("127.1.2.3"))
    assert is_own_address(ipaddress.ip_address("::ffff:127.0.0.1"))
    assert is_own_address(ipaddress.ip_address("255.255.255.255"))
    assert not is_own_address(ipaddress.ip_address("192.0.2.250"))
    assert not is_own_address(ipaddress.ip_address("2001:db8::1"))


def test_a_host_that_cannot_ask_trusts_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_args: object) -> None:
        raise PermissionError

    monkeypatch.setattr(socket, "socket", refuse)
    assert is_own_address(ipaddress.ip_address("192.0.2.250"))
