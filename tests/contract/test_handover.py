"""What is handed over besides the sockets: counters, keys, and bytes that were already read."""

from __future__ import annotations

import socket

import pytest

from stcp_proxy.errors import Code
from stcp_proxy.protocol.frames import Sealer
from stcp_proxy.protocol.wire import MAX_PLAINTEXT, REKEY_INTERVAL, REKEY_NONCE, FrameType
from stcp_proxy.relay.engine import EndReason

from .harness import MakePair, MakeRig, seal_all
from .legs import digest, noise, quiet, read_exactly, read_to_end, reset, tcp_pair

DATA = FrameType.DATA


@pytest.mark.parametrize(
    "counters",
    [
        (1, 1),
        (7, 12_345_678_901),
        (REKEY_INTERVAL - 1, REKEY_INTERVAL - 2),
        (REKEY_INTERVAL, REKEY_INTERVAL),
        (REKEY_INTERVAL + 1, 5 * REKEY_INTERVAL - 1),
        (3 * REKEY_INTERVAL, 0),
        (0, 3 * REKEY_INTERVAL),
        ((1 << 63) - 2, (1 << 63) - 2),
    ],
)
def test_counters_above_zero_and_across_the_rekey(rig: MakeRig, counters: tuple[int, int]) -> None:
    """The peer's frames are made by an independent count, so one frame too early or too late for the rekey fails here."""
    r = rig(counters=counters)
    for _ in range(6):
        r.check_alive()
    r.finish()


def test_counters_across_the_rekey_through_two_engines(pair: MakePair) -> None:
    p = pair(counters=(REKEY_INTERVAL - 3, 2 * REKEY_INTERVAL - 2))
    for i in range(8):
        for near, far in (p.apps, p.apps[::-1]):
            near.sendall(bytes([i]) * 9)
            assert read_exactly(far, 9) == bytes([i]) * 9


def test_the_rekey_inside_one_segment(rig: MakeRig) -> None:
    r = rig(counters=(0, REKEY_INTERVAL - 5))
    r.peer.sock.sendall(seal_all(r.peer.sealer, noise(100), 10) + r.peer.sealer.seal(FrameType.FIN))
    assert read_to_end(r.app) == (noise(100), "eof")


@pytest.mark.parametrize("kind", [FrameType.FIN, FrameType.RESET])
def test_the_rekey_before_a_frame_that_is_not_data(rig: MakeRig, kind: FrameType) -> None:
    r = rig(counters=(REKEY_INTERVAL - 1, REKEY_INTERVAL - 1))
    r.check_alive()
    if kind is FrameType.FIN:
        r.finish()
    else:
        r.relay.abort(Code.SHUTTING_DOWN, "x")
        assert r.peer.expect_reset(Code.SHUTTING_DOWN) == "x"


def test_the_last_number_is_never_used_by_the_sender(rig: MakeRig) -> None:
    """2^64-1 is REKEY's: the direction ends before it, loudly."""
    r = rig(counters=(REKEY_NONCE - 1, 0))
    r.app.sendall(b"last")
    assert r.peer.read_data(4) == b"last"
    r.app.sendall(b"one more")
    frames, _ = r.peer.read_to_end()
    assert frames == []
    assert read_to_end(r.app) == (b"", "reset")
    assert r.end.wait().reason not in (EndReason.FINISHED, EndReason.PEER_RESET, EndReason.PLAIN_RESET, EndReason.TRUNCATED)


def test_queued_whole_frames(rig: MakeRig) -> None:
    r = rig(queued=lambda s: s.seal(DATA, b"first ") + s.seal(DATA) + s.seal(DATA, b"second"))
    assert read_exactly(r.app, 12) == b"first second"
    r.check_alive()
    r.finish()


@pytest.mark.parametrize("behind", [b"", b"rest of the world"])
def test_queued_part_of_a_frame_at_each_byte(rig: MakeRig, behind: bytes) -> None:
    for cut in range(1, 27):
        parts: list[bytes] = []

        def queue(s: Sealer, cut: int = cut, parts: list[bytes] = parts) -> bytes:
            raw = s.seal(DATA, b"queued!") + (s.seal(DATA, behind) if behind else b"")
            parts.append(raw[cut:])
            return raw[:cut]

        r = rig(queued=queue)
        r.app.sendall(b"?")
        assert r.peer.read_data(1) == b"?"
        assert quiet(r.app, 0)
        r.peer.sock.sendall(parts[0])
        assert read_exactly(r.app, 7 + len(behind)) == b"queued!" + behind


def test_queued_bytes_of_more_than_a_frame(rig: MakeRig) -> None:
    data = noise(2 * MAX_PLAINTEXT)
    r = rig(queued=lambda s: seal_all(s, data))
    assert digest(read_exactly(r.app, len(data))) == digest(data)
    r.check_alive()


def test_queued_bytes_of_many_small_frames_that_end_inside_one(rig: MakeRig) -> None:
    data = noise(5_000)
    rest: list[bytes] = []

    def queue(s: Sealer) -> bytes:
        raw = seal_all(s, data, 3)
        rest.append(raw[-10:])
        return raw[:-10]

    r = rig(queued=queue)
    r.peer.sock.sendall(rest[0])
    assert digest(read_exactly(r.app, len(data))) == digest(data)


def test_queued_fin(rig: MakeRig) -> None:
    r = rig(queued=lambda s: s.seal(DATA, b"bye") + s.seal(FrameType.FIN))
    assert read_to_end(r.app) == (b"bye", "eof")
    r.app.sendall(b"answer")
    assert r.peer.read_data(6) == b"answer"
    r.app.shutdown(socket.SHUT_WR)
    r.peer.expect(FrameType.FIN)
    assert r.peer.read_to_end() == ([], "eof")
    assert r.end.wait().reason is EndReason.FINISHED


def test_queued_fin_and_nothing_else(rig: MakeRig) -> None:
    r = rig(queued=lambda s: s.seal(FrameType.FIN))
    assert read_to_end(r.app) == (b"", "eof")
    r.app.shutdown(socket.SHUT_WR)
    r.peer.expect(FrameType.FIN)
    assert r.end.wait().reason is EndReason.FINISHED


def test_queued_reset(rig: MakeRig) -> None:
    r = rig(queued=lambda s: s.seal(FrameType.RESET, b"\x00\x08gone"))
    assert read_to_end(r.app) == (b"", "reset")
    end = r.end.wait()
    assert (end.reason, end.code, end.text) == (EndReason.PEER_RESET, 8, "gone")


def test_queued_bytes_that_are_no_frame(rig: MakeRig) -> None:
    r = rig(queued=b"GET / HTTP/1.1\r\n\r\n")
    assert read_to_end(r.app) == (b"", "reset")
    assert r.end.wait().reason is EndReason.BAD_FRAME


def test_queued_bytes_across_the_rekey(rig: MakeRig) -> None:
    r = rig(counters=(0, REKEY_INTERVAL - 1), queued=lambda s: s.seal(DATA, b"a") + s.seal(DATA, b"b") + s.seal(DATA, b"c"))
    assert read_exactly(r.app, 3) == b"abc"
    r.check_alive()


def test_bytes_wait_in_both_sockets_before_the_handover(rig: MakeRig) -> None:
    """Nothing that arrived before the engine looked may be lost: the readiness is level, not edge."""
    plain = tcp_pair()
    plain[0].sendall(b"early")
    plain[0].shutdown(socket.SHUT_WR)
    r = rig(plain=plain)
    assert r.peer.read_to_fin() == b"early"
    r.peer.send_fin()
    assert r.end.wait().reason is EndReason.FINISHED


def test_the_application_is_gone_before_the_handover(rig: MakeRig) -> None:
    plain = tcp_pair()
    reset(plain[0])
    r = rig(plain=plain)
    r.peer.expect_reset(Code.PLAIN_RESET)
    r.peer.sock.close()
    assert r.end.wait().reason is EndReason.PLAIN_RESET
