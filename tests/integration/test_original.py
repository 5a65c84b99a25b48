"""`to: original`: a listen tunnel dials where its peer's client was going, and nothing that its file does not allow."""

from __future__ import annotations

import contextlib
import ipaddress
from collections.abc import Iterator
from pathlib import Path

import pytest
from harness.peer import Peer
from harness.proxies import Keys, Proxy, from_file
from harness.sockets import Target, connect

from stcp_proxy.errors import Code
from stcp_proxy.protocol.opening import Endpoint, Opening, decode_reason
from stcp_proxy.protocol.wire import FrameType


def answering(word: bytes) -> Target:
    return Target(lambda sock: sock.sendall(word))


@contextlib.contextmanager
def tunnel(folder: Path, to: str, *rules: str) -> Iterator[tuple[Proxy, Keys]]:
    keys = Keys(folder)
    listed = ", ".join(f'"{rule}"' for rule in rules)
    text = f"  in: {{mode: listen, bind: '127.0.0.1:0', to: {to}, allow: app-host, allow_targets: [{listed}]}}\n"
    with from_file(folder, "listen", keys, text) as proxy:
        yield proxy, keys  # type: ignore[misc]


def asked(listen: Proxy, keys: Keys, original: str | None) -> tuple[FrameType, bytes]:
    """The answers to an OPEN for `original`: ACCEPT and the target's first word, or REJECT and its contents."""
    with connect(listen.address) as sock:
        peer = Peer(sock, keys)
        host, _, port = (original or "").rpartition(":")
        end = None if original is None else Endpoint(ipaddress.ip_address(host.strip("[]")), int(port))
        peer.send(FrameType.OPEN, Opening(original=end).encode())
        answer = peer.receive()
        assert answer is not None
        if answer[0] is not FrameType.ACCEPT:
            return answer
        word = peer.receive()
        assert word is not None
        return FrameType.ACCEPT, word[1]


def test_the_allowed_one_of_two_is_dialled(tmp_path: Path) -> None:
    with answering(b"one") as one, answering(b"two") as two, tunnel(tmp_path, "original", one.to) as (listen, keys):
        assert asked(listen, keys, one.to) == (FrameType.ACCEPT, b"one")
        assert asked(listen, keys, f"[::ffff:127.0.0.1]:{one.to.rpartition(':')[2]}") == (FrameType.ACCEPT, b"one")
        (line, *_) = listen.ended(2)
        assert (line["original"], line["target"]) == (one.to, one.to)
        for original in (two.to, "127.0.0.1:1", "0.0.0.0:1", "[::1]:1", f"127.0.0.1:{listen.port}", None):
            kind, reason = asked(listen, keys, original)
            assert (kind, decode_reason(reason)) == (FrameType.REJECT, (Code.DENIED, ""))
        assert two.dials == 0
        (line,) = listen.refused(reason="denied", original=two.to)
        assert f"was going to {two.to}, which 'allow_targets' does not allow" in line["why"]
        assert "target" not in line


def test_the_fixed_target_is_for_the_rest(tmp_path: Path) -> None:
    with (
        answering(b"one") as one,
        answering(b"rest") as rest,
        tunnel(tmp_path, f"[original, '{rest.to}']", one.to) as (listen, keys),
    ):
        original = one.to
        assert asked(listen, keys, original) == (FrameType.ACCEPT, b"one")
        assert asked(listen, keys, "192.0.2.1:80") == (FrameType.ACCEPT, b"rest")
        assert asked(listen, keys, None) == (FrameType.ACCEPT, b"rest")
        assert listen.ended(original="192.0.2.1:80")[0]["target"] == rest.to
        one.close()
        kind, reason = asked(listen, keys, original)  # allowed, and nobody is there: nobody else is asked
        assert (kind, decode_reason(reason)) == (FrameType.REJECT, (Code.TARGET_REFUSED, ""))


def test_the_tunnel_does_not_dial_itself(tmp_path: Path) -> None:
    """Not even where the file lists its whole host."""
    with tunnel(tmp_path, "original", "127.0.0.0/8") as (listen, keys):
        kind, reason = asked(listen, keys, f"127.0.0.1:{listen.port}")
        assert (kind, decode_reason(reason)) == (FrameType.REJECT, (Code.DENIED, ""))
        assert "this tunnel's own port" in listen.refused(reason="denied")[0]["why"]


@pytest.mark.parametrize("rule", [":1-65535", "0.0.0.0/0"])
def test_a_rule_about_the_world_is_not_about_this_host(tmp_path: Path, rule: str) -> None:
    with answering(b"one") as one, tunnel(tmp_path, "original", rule) as (listen, keys):
        assert asked(listen, keys, one.to)[0] is FrameType.REJECT
        assert "a loopback address" in listen.refused(reason="denied")[0]["why"]
        assert one.dials == 0
