"""Who loses a place at the admin address."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest

from stcp_proxy.admin.client_stream import is_local
from stcp_proxy.admin.server import AdminServer
from stcp_proxy.config import AdminPlan
from stcp_proxy.net.address import TcpAddress


@pytest.mark.parametrize(
    ("address", "local"),
    [
        ("", True),
        (b"", True),
        (("127.0.0.1", 1), True),
        (("127.3.2.1", 1), True),
        (("::1", 1, 0, 0), True),
        (("::ffff:127.0.0.1", 1, 0, 0), True),
        (("10.0.0.1", 1), False),
        (("::ffff:10.0.0.1", 1, 0, 0), False),
        (("fe80::1%eth0", 1, 0, 2), False),
    ],
)
def test_local(address: Any, local: bool) -> None:
    assert is_local(address) is local


@dataclass(eq=False)
class Client:
    source: str
    local: bool = False
    trusted: bool = False
    aborted: bool = False

    def abort(self) -> None:
        self.aborted = True


@pytest.mark.parametrize(
    ("clients", "loser"),
    [
        ([Client("a"), Client("b"), Client("b")], 1),
        ([Client("lo", local=True), Client("lo", local=True), Client("a")], 2),
        ([Client("a", trusted=True), Client("lo", local=True), Client("a", trusted=True)], 1),
        ([Client("lo", local=True), Client("x", local=True), Client("x", local=True)], 1),
        ([Client("lo", local=True, trusted=True), Client("a", trusted=True), Client("a", trusted=True)], 1),
    ],
    ids=["most connections", "the network before this host", "the token last", "this host alone", "all with the token"],
)
def test_who_loses_a_place(clients: list[Client], loser: int) -> None:
    server = AdminServer(AdminPlan(TcpAddress("127.0.0.1", 1), None), [])
    server._places.update(dict.fromkeys(clients))  # type: ignore[arg-type]
    server._give_up_place()
    assert [number for number, client in enumerate(clients) if client.aborted] == [loser]
    assert list(server._places) == [client for client in clients if not client.aborted]
