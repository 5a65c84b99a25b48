"""A path that is lost for five seconds ends no connection. `tools/link_cuts.py` is the long form, up to 29 seconds."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from harness.hosts import Net
from harness.link_cuts import Connections


@pytest.fixture(scope="module")
def connections(net: Net, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Connections]:
    with Connections(net, tmp_path_factory.mktemp("proxies")) as found:
        yield found


@pytest.mark.parametrize("how", ["link", "client's firewall"])
def test_what_direct_connections_survive_ours_survive(connections: Connections, how: str) -> None:
    assert connections.outlive(how, 5) == {}
