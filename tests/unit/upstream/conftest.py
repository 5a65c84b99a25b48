"""The network of tests of targets."""

from __future__ import annotations

import pytest
import trio

from stcp_proxy.upstream import attempt as turn_module

from .network import Network


@pytest.fixture
async def network(monkeypatch: pytest.MonkeyPatch) -> Network:
    made = Network()
    monkeypatch.setattr(turn_module, "connect", made.connect)
    monkeypatch.setattr(trio.socket, "getaddrinfo", made.getaddrinfo)
    return made
