"""Which accepted connections are this process's own dials, sent back by rules that were made for another user."""

from __future__ import annotations

import socket

from stcp_proxy.net.own_connections import OwnConnections


def test_a_connection_is_known_by_both_its_addresses() -> None:
    """The system gives one local port to sockets that are connected to different places: an application's may have ours."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        here, there, elsewhere = sock.getsockname(), ("10.0.0.7", 7443), ("10.0.0.7", 6379)
        own = OwnConnections()
        own.under_way(sock, there)
        assert own.knows(here, there)
        assert not own.knows(here, elsewhere)
        assert not own.knows(("127.0.0.1", here[1] ^ 1), there)
        assert len(own) == 1
        own.forget(here)
        assert not own.knows(here, there)
        assert len(own) == 0


def test_the_text_of_an_address_does_not_matter() -> None:
    with socket.socket(socket.AF_INET6) as sock:
        sock.bind(("::1", 0))
        own = OwnConnections()
        own.under_way(sock, ("2001:DB8:0::1", 7443, 0, 0))
        assert own.knows(sock.getsockname(), ("2001:db8::1", 7443))


def test_a_new_plan_knows_what_the_old_one_dials() -> None:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        before = OwnConnections()
        before.under_way(sock, ("10.0.0.7", 7443))
        assert OwnConnections(before=before).knows(sock.getsockname(), ("10.0.0.7", 7443))
