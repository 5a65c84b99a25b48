"""The hosts themselves: what the other tests here take for granted."""

from __future__ import annotations

import errno

import pytest
from harness.hosts import Net, as_user
from harness.sockets import Target, read_exactly


@pytest.mark.parametrize("family", ["ip4", "ip6"])
def test_the_watcher_sees_what_is_said_in_the_clear(net: Net, family: str) -> None:
    address = getattr(net.server, family)
    with Target(listener=net.server.listener(address, 5000)), net.watch() as watch, net.client.connect(address, 5000) as sock:
        sock.sendall(b"a word that everybody may hear")
        assert read_exactly(sock, 30) == b"a word that everybody may hear"
    assert b"everybody may hear" in watch.payload()
    assert watch.dialled == {(address, 5000)}


def test_nothing_comes_through_while_the_wire_is_cut(net: Net) -> None:
    with Target(listener=net.server.listener(net.server.ip4, 5000)):
        net.cut()
        try:
            with pytest.raises(OSError) as caught:  # noqa: PT011  (which one is the kernel's business)
                net.client.connect(net.server.ip4, 5000, timeout=0.5)
            assert isinstance(caught.value, TimeoutError) or caught.value.errno == errno.EHOSTUNREACH
        finally:
            net.mend()
        with net.client.connect(net.server.ip4, 5000) as sock:
            sock.sendall(b"x")
            assert read_exactly(sock, 1) == b"x"


def test_the_user_of_these_tests_has_no_power_over_the_network(net: Net) -> None:
    done = net.client.run(*as_user(), "nft", "list", "ruleset", check=False)
    assert done.returncode != 0
    assert "Operation not permitted" in done.stderr
