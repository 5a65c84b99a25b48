"""The plain leg as a unix socket: a target like unix:/run/redis.sock. The kernel's engine falls back to the Python one."""

from __future__ import annotations

import socket

import pytest

from stcp_proxy.errors import Code
from stcp_proxy.protocol.wire import FrameType
from stcp_proxy.relay.engine import EndReason, Engine

from .harness import MakeRig, Rig, seal_all
from .legs import PATIENCE, Background, digest, noise, read_exactly, read_to_end, send_and_end


@pytest.fixture
def unix_rig(rig: MakeRig, engine: Engine) -> Rig:
    pair = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    pair[0].settimeout(PATIENCE)
    made = rig(plain=pair)
    assert made.relay.engine == "python"
    assert bool(made.relay.why_engine) == (engine.name == "kernel")
    return made


def test_data_and_clean_ends(unix_rig: Rig) -> None:
    r = unix_rig
    forth, back = noise(2_000_000, 1), noise(2_000_000, 2)
    sealed = seal_all(r.peer.sealer, back) + r.peer.sealer.seal(FrameType.FIN)
    tasks = [
        Background(lambda: send_and_end(r.app, forth)),
        Background(lambda: r.peer.sock.sendall(sealed)),
    ]
    got: list[bytes] = []
    tasks.append(Background(lambda: got.append(r.peer.read_to_fin())))
    read, ending = read_to_end(r.app)
    for task in tasks:
        task.join()
    assert (digest(read), ending) == (digest(back), "eof")
    assert digest(got[0]) == digest(forth)
    assert r.end.wait().reason is EndReason.FINISHED


def test_half_close(unix_rig: Rig) -> None:
    r = unix_rig
    r.app.sendall(b"question")
    r.app.shutdown(socket.SHUT_WR)
    assert r.peer.read_to_fin() == b"question"
    r.peer.send_data(b"answer")
    r.peer.send_fin()
    assert read_to_end(r.app) == (b"answer", "eof")
    assert r.end.wait().reason is EndReason.FINISHED


def test_the_application_closes_with_bytes_unread(unix_rig: Rig) -> None:
    r = unix_rig
    r.peer.send_data(b"unread")
    assert r.app.recv(1, socket.MSG_PEEK)
    r.app.close()
    r.peer.expect_reset(Code.PLAIN_RESET)
    r.peer.sock.close()
    assert r.end.wait().reason is EndReason.PLAIN_RESET


def test_reset_from_the_wire_ends_both_directions(unix_rig: Rig) -> None:
    """A unix socket has no RST: the application cannot be told more than that nobody is there any more."""
    r = unix_rig
    r.check_alive()
    r.peer.send(FrameType.RESET, b"\x00\x08")
    assert read_to_end(r.app)[0] == b""
    with pytest.raises(OSError, match=r"Broken pipe|reset"):
        r.app.sendall(b"x")
    assert r.end.wait().reason is EndReason.PEER_RESET


def test_bad_frame(unix_rig: Rig) -> None:
    r = unix_rig
    r.peer.send_data(b"good")
    assert read_exactly(r.app, 4) == b"good"
    r.peer.sock.sendall(bytes(100))
    assert read_to_end(r.app)[0] == b""
    r.peer.sock.close()
    assert r.end.wait().reason is EndReason.BAD_FRAME
