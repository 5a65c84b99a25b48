"""Limits of each peer, between real processes: a peer beyond its limit is told so, and others get in all the same."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

import pytest
from harness.peer import Peer
from harness.proxies import Keys, Pair, Proxy
from harness.sockets import Target, connect, end_of_new, read_exactly

from stcp_proxy.errors import Code
from stcp_proxy.keys import PrivateKey
from stcp_proxy.protocol.opening import decode_reason
from stcp_proxy.protocol.wire import FrameType


class AsPeer(Keys):
    """The same listening side, seen by another peer."""

    def __init__(self, keys: Keys, key: PrivateKey) -> None:
        self.psk, self.server, self.client = False, keys.server, key


@pytest.mark.parametrize("limit", ["--max-connections-per-peer", "--rate-per-peer"])
def test_one_peer_does_not_take_the_place_of_another(tmp_path: Path, limit: str) -> None:
    keys = Keys(tmp_path)
    other = AsPeer(keys, keys.add("other"))
    with Target() as target, ExitStack() as stack:
        arguments = ["listen", "--bind", "127.0.0.1:0", "--to", target.to, *keys.listen()]
        arguments += ["--allow", f"other={other.client.public}", limit, "2"]
        proxy = stack.enter_context(Proxy(arguments, log=tmp_path / "log").ready())
        greedy = [stack.enter_context(connect(proxy.address)) for _ in range(12)]
        for sock in greedy[:2]:
            Peer(sock, keys).open()
        codes = []
        for sock in greedy[2:]:
            peer = Peer(sock, keys)
            peer.send(FrameType.OPEN)
            kind, content = peer.receive() or (None, b"")
            codes += [decode_reason(content)[0]] if kind == FrameType.REJECT else []
        assert set(codes) == {Code.OVER_LIMIT}
        # A slow machine may take longer than a second for ten handshakes, and the rate then admits some of them.
        assert len(codes) == 10 or limit == "--rate-per-peer"
        Peer(stack.enter_context(connect(proxy.address)), other).open()
        line = proxy.refused(reason="peer_over_limit")[0]
        assert (line["peer"], line["cause"]) == ("app-host", "limit")
        assert limit.removeprefix("--").replace("-", "_") in line["remedy"]


def test_the_connecting_side_is_told(tmp_path: Path) -> None:
    with Target() as target, Pair(tmp_path, target.to, listen=["--max-connections-per-peer", "1"]) as pair:
        with connect(pair.address) as first:
            first.sendall(b"word")
            assert read_exactly(first, 4) == b"word"
            assert end_of_new(pair.address) == ("reset", b"")
        line = pair.connect.refused(reason="rejected")[0]
        assert "over its limit" in line["why"]
        with connect(pair.address) as third:
            pair.listen.ended(1)
            third.sendall(b"word")
            assert read_exactly(third, 4) == b"word"
