"""A path that drops large packets without a word: the side that sends them names the MTU, and so does doctor."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from harness.hosts import Net
from harness.proxies import Keys, from_file
from harness.sockets import Target, end_of

LARGE = {"client": 1240, "server": 1000}
"""Bytes of a packet that still gets through: message 1 of a hybrid suite is larger, and so is its answer."""
TABLE = "path_mtu"


@pytest.fixture(params=["client", "server"])
def lossy(net: Net, request: pytest.FixtureRequest) -> Iterator[str]:
    """Drop large packets that one host sends; which."""
    receiver = net.server if request.param == "client" else net.client
    chain = f"type filter hook input priority 0; iif eth0 meta length > {LARGE[request.param]} drop;"
    rules = f"table inet {TABLE} {{ chain in {{ {chain} }}; }}"
    receiver.run("nft", "-f", "-", stdin=rules)
    yield request.param
    receiver.run("nft", "delete", "table", "inet", TABLE)


def test_large_packets_are_lost(net: Net, tmp_path: Path, lossy: str) -> None:
    keys = Keys(tmp_path)
    with Target(listener=net.server.listener("127.0.0.1")) as target:
        to = f"{net.server.ip4}:7443"
        far = f'  far: {{mode: listen, bind: "{to}", to: "{target.to}", allow: app-host, handshake_timeout: 1.5s}}\n'
        near = f'  near: {{mode: connect, bind: "127.0.0.1:6001", to: "{to}", peer: db-host, handshake_timeout: 2s}}\n'
        with (
            from_file(tmp_path, "listen", keys, far, place=net.server.place()) as listen,
            from_file(tmp_path, "connect", keys, near, place=net.client.place()) as connect,
        ):
            with net.client.connect("127.0.0.1", 6001) as sock:
                end_of(sock)
            (line,) = connect.refused(reason="handshake_timeout")
            assert "MTU" in line["remedy"]
            assert ("never acknowledged" in line["why"]) == (lossy == "client")
            assert ("same version" in line["remedy"]) == (lossy == "server")
            if lossy == "server":
                (told,) = listen.refused(reason="handshake_timeout")
                assert "this side's answer was never acknowledged" in told["why"]
                assert "MTU" in told["remedy"]
            done = net.client.product("doctor", "--json", str(tmp_path / "connect.yaml"), check=False)
            (finding,) = [found for found in json.loads(done.stdout) if found["subject"].startswith("near: to")]
            assert ("never acknowledged" in finding["what"]) == (lossy == "client")
            assert "MTU" in finding["remedy"]
