"""Health checks of targets: what a target gets to read."""

from __future__ import annotations

import socket

import pytest

from stcp_proxy.net.proxy_header import Version, parse_header
from stcp_proxy.upstream.health_check import greet

HEADERS: dict[Version | None, bytes] = {
    None: b"",
    "v1": b"PROXY UNKNOWN\r\n",
    "v2": b"\r\n\r\n\0\r\nQUIT\n\x20\x00\x00\x00",
}


@pytest.mark.parametrize("version", HEADERS)
async def test_a_target_gets_the_header_that_it_expects_and_an_end_in_order(version: Version | None) -> None:
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    with theirs:
        await greet(ours, version)
        data = theirs.recv(100)
        assert data == HEADERS[version]
        assert theirs.recv(100) == b""
    if version is not None:
        found = parse_header(data)
        assert found is not None
        assert (found[0], found[1].source) == (len(data), None)


async def test_a_target_that_is_gone_was_there() -> None:
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    theirs.close()
    await greet(ours, "v2")
    assert ours.fileno() < 0
