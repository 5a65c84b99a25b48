"""`Relay.abort`: RESET to the peer, a TCP RST to the application, in any state, from any thread, once."""

from __future__ import annotations

import contextlib
import socket
import threading
from functools import partial

import pytest

from stcp_proxy.errors import Code
from stcp_proxy.protocol.wire import MAX_TEXT, FrameType
from stcp_proxy.relay.engine import EndReason, Engine, RelayEnd, RelayLimits

from .harness import MakePair, MakeRig, Rig, make_rig
from .legs import PATIENCE, Background, noise, read_exactly, read_to_end, send_until_stalled, wait_reset


def assert_aborted(r: Rig, code: Code = Code.SHUTTING_DOWN, text: str = "bye") -> None:
    assert r.peer.expect_reset(code) == text
    assert r.peer.read_to_end() == ([], "eof"), "RESET is the last frame, and TCP does not destroy it"
    r.peer.sock.close()
    end = r.end.wait()
    assert (end.reason, end.code, end.text) == (EndReason.ABORTED, code, text)


def test_at_rest(rig: MakeRig) -> None:
    r = rig()
    r.check_alive()
    r.relay.abort(Code.SHUTTING_DOWN, "bye")
    assert read_to_end(r.app) == (b"", "reset")
    assert_aborted(r)


def test_right_after_adopt(rig: MakeRig) -> None:
    for _ in range(20):
        r = rig()
        r.relay.abort(Code.KEY_REVOKED, "")
        assert read_to_end(r.app) == (b"", "reset")
        assert_aborted(r, Code.KEY_REVOKED, "")


def test_after_the_application_had_ended(rig: MakeRig) -> None:
    r = rig()
    r.app.shutdown(socket.SHUT_WR)
    r.peer.expect(FrameType.FIN)
    r.relay.abort(Code.SHUTTING_DOWN, "bye")
    assert read_to_end(r.app) == (b"", "reset")
    assert_aborted(r)


def test_after_the_peer_had_ended(rig: MakeRig) -> None:
    r = rig()
    r.peer.send_fin()
    assert read_to_end(r.app) == (b"", "eof")
    r.relay.abort(Code.SHUTTING_DOWN, "bye")
    wait_reset(r.app)
    assert_aborted(r)


def test_while_the_application_does_not_read(rig: MakeRig) -> None:
    """The peer's sending side is blocked; it must still find RESET when it turns to reading."""
    r = rig(buffers=1 << 16)
    send_until_stalled(r.peer.sock, lambda: r.peer.sealer.seal(FrameType.DATA, noise(20_000)), limit=1 << 24)
    r.relay.abort(Code.SHUTTING_DOWN, "bye")
    assert r.peer.expect_reset(Code.SHUTTING_DOWN) == "bye"
    r.peer.sock.close()
    _got, ending = read_to_end(r.app)
    assert ending == "reset"
    assert r.end.wait().reason is EndReason.ABORTED


def test_while_the_peer_goes_on_sending(rig: MakeRig) -> None:
    """Closing a socket with bytes unread makes TCP throw away the RESET that is on its way; the linger is there against that."""
    r = rig()
    sender = Background(lambda: flood(r))
    r.app.recv(1)
    r.relay.abort(Code.SHUTTING_DOWN, "bye")
    assert r.peer.expect_reset(Code.SHUTTING_DOWN) == "bye"
    r.peer.sock.shutdown(socket.SHUT_RDWR)
    sender.join()
    assert r.end.wait().reason is EndReason.ABORTED


@pytest.mark.parametrize("late", ["data", "fin", "reset", "garbage"])
def test_what_comes_behind_our_reset_is_thrown_away(rig: MakeRig, late: str) -> None:
    """Nothing of it is judged, counted or passed on; least of all may it cost the peer our RESET."""
    r = rig()
    r.check_alive()
    r.relay.abort(Code.SHUTTING_DOWN, "bye")
    assert read_to_end(r.app) == (b"", "reset")  # so the abort has been made
    kinds = {"data": (FrameType.DATA, b"late"), "fin": (FrameType.FIN, b""), "reset": (FrameType.RESET, b"\x00\x08")}
    for _ in range(3):
        r.peer.sock.sendall(r.peer.sealer.seal(*kinds[late]) if late in kinds else bytes(100))
    assert_aborted(r)
    assert (r.end.wait().bytes_to_wire, r.end.wait().bytes_to_plain) == (4, 4)


def flood(r: Rig) -> None:
    try:
        while True:
            r.peer.send_data(bytes(10_000))
    except OSError:
        pass


def test_while_the_peer_does_not_read(rig: MakeRig) -> None:
    """Part of a frame may be out already: it is completed, for RESET can only stand at a frame's boundary."""
    r = rig(buffers=1 << 16)
    send_until_stalled(r.app, lambda: noise(20_000), limit=1 << 24)
    r.relay.abort(Code.SHUTTING_DOWN, "bye")
    wait_reset(r.app)
    assert_aborted(r)


def test_while_the_peer_never_reads(rig: MakeRig) -> None:
    """RESET cannot be delivered: the linger bounds the attempt."""
    r = rig(buffers=1 << 16, limits=RelayLimits(linger=0.3))
    send_until_stalled(r.app, lambda: noise(20_000), limit=1 << 24)
    r.relay.abort(Code.SHUTTING_DOWN, "bye")
    wait_reset(r.app)
    assert r.end.wait(3).reason is EndReason.ABORTED


def test_from_many_threads_at_once(rig: MakeRig) -> None:
    r = rig()
    start = threading.Barrier(8)

    def abort(i: int) -> None:
        start.wait()
        r.relay.abort(Code.SHUTTING_DOWN, f"thread {i}")
        r.relay.abort(Code.KEY_REVOKED, "too late")

    tasks = [Background(partial(abort, i)) for i in range(8)]
    for task in tasks:
        task.join()
    assert read_to_end(r.app) == (b"", "reset")
    text = r.peer.expect_reset(Code.SHUTTING_DOWN)
    assert r.peer.read_to_end() == ([], "eof")
    r.peer.sock.close()
    end = r.end.wait()
    assert (end.reason, end.code, end.text) == (EndReason.ABORTED, Code.SHUTTING_DOWN, text)


def test_after_the_end_it_does_nothing(rig: MakeRig) -> None:
    r = rig()
    r.check_alive()
    end = r.finish()
    r.relay.abort(Code.SHUTTING_DOWN, "too late")
    assert r.relay.counts() == (4, 4)
    assert r.end.wait() is end


def test_after_a_reset_it_does_nothing(rig: MakeRig) -> None:
    r = rig()
    r.peer.send(FrameType.RESET, b"\x00\x08")
    assert read_to_end(r.app) == (b"", "reset")
    r.end.wait()
    r.relay.abort(Code.SHUTTING_DOWN, "too late")
    assert r.end.wait().reason is EndReason.PEER_RESET


def test_text_longer_than_the_format_allows_is_cut_at_a_character(rig: MakeRig) -> None:
    r = rig()
    r.relay.abort(Code.INTERNAL_ERROR, "ü" * 200)
    assert r.peer.expect_reset(Code.INTERNAL_ERROR) == "ü" * (MAX_TEXT // 2)


def test_text_that_is_no_unicode(rig: MakeRig) -> None:
    """Undecodable bytes in an operating system's message become lone surrogates; the reason goes out all the same."""
    bystander, r = rig(), rig()
    r.relay.abort(Code.INTERNAL_ERROR, "no such file: \udcff")
    assert r.peer.expect_reset(Code.INTERNAL_ERROR).startswith("no such file: ")
    bystander.check_alive()


@pytest.mark.parametrize("side", [0, 1])
def test_through_two_engines(pair: MakePair, side: int) -> None:
    p = pair()
    p.apps[0].sendall(b"x")
    assert read_exactly(p.apps[1], 1) == b"x"
    p.relays[side].abort(Code.SHUTTING_DOWN, "bye")
    for app in p.apps:
        assert read_to_end(app) == (b"", "reset")
    assert p.ends[side].wait().reason is EndReason.ABORTED
    end = p.ends[1 - side].wait()
    assert (end.reason, end.code, end.text) == (EndReason.PEER_RESET, Code.SHUTTING_DOWN, "bye")


def test_both_sides_abort_at_once(pair: MakePair) -> None:
    for _ in range(20):
        p = pair()
        tasks = [Background(partial(p.relays[i].abort, Code.SHUTTING_DOWN, "bye")) for i in (0, 1)]
        for task in tasks:
            task.join()
        for app in p.apps:
            assert read_to_end(app) == (b"", "reset")
        for end in p.ends:
            assert end.wait().reason in (EndReason.ABORTED, EndReason.PEER_RESET)


def test_abort_races_with_the_end(rig: MakeRig) -> None:
    for _ in range(50):
        r = rig()
        r.peer.send_fin()
        task = Background(partial(r.relay.abort, Code.SHUTTING_DOWN, "bye"))
        with contextlib.suppress(OSError):  # the abort was faster
            r.app.shutdown(socket.SHUT_WR)
        task.join()
        _, ending = read_to_end(r.app)
        frames, _ = r.peer.read_to_end()
        r.peer.sock.close()
        end = r.end.wait()
        assert end.reason in (EndReason.ABORTED, EndReason.FINISHED)
        if end.reason is EndReason.FINISHED:
            assert ending == "eof"
            assert frames == [(FrameType.FIN, b"")]


def test_close_ends_every_connection(engine: Engine) -> None:
    rigs = [make_rig(engine) for _ in range(10)]
    for r in rigs:
        r.check_alive()
    engine.close()
    for r in rigs:
        assert read_to_end(r.app) == (b"", "reset")
        assert r.end.wait().reason is EndReason.ABORTED
        r.close()


def test_adopt_races_with_close(engine: Engine) -> None:
    """Whichever comes first, every connection that was handed over ends, once, with both legs closed."""
    rigs: list[Rig] = []
    enough = threading.Event()

    def adopt() -> None:
        for _ in range(100):
            rigs.append(make_rig(engine))
            if len(rigs) == 30:
                enough.set()

    task = Background(adopt)
    assert enough.wait(PATIENCE)
    engine.close()
    task.join()
    for r in rigs:
        assert read_to_end(r.app) == (b"", "reset")
        assert r.end.wait().reason is EndReason.ABORTED
        r.close()


def test_adopt_while_a_busy_engine_is_closed(engine: Engine) -> None:
    """The engine's thread is held up in an owner's on_end; what was handed over meanwhile must end all the same."""
    busy, go_on = threading.Event(), threading.Event()

    def hold(_: RelayEnd) -> None:
        busy.set()
        go_on.wait(PATIENCE)

    holder = make_rig(engine, on_end=hold, limits=RelayLimits(linger=0.05))
    holder.relay.abort(Code.SHUTTING_DOWN, "bye")
    assert busy.wait(PATIENCE)
    late = [make_rig(engine) for _ in range(3)]
    closing = Background(engine.close)
    go_on.wait(0.05)  # close() has begun, or will find the late ones adopted: both are good
    go_on.set()
    closing.join()
    for r in late:
        assert read_to_end(r.app) == (b"", "reset")
        assert r.end.wait().reason is EndReason.ABORTED
    for r in (holder, *late):
        r.close()


def test_an_owner_that_raises_hurts_nobody_else(engine: Engine, rig: MakeRig) -> None:
    """on_end of a tunnel that is already gone may raise; the other connections, and close(), do not suffer from it."""
    bystander = rig()
    calls: list[RelayEnd] = []

    def raises(end: RelayEnd) -> None:
        calls.append(end)
        raise RuntimeError("the owner is gone")

    others = [make_rig(engine, on_end=raises) for _ in range(3)]
    for r in others:
        r.check_alive()
    others[0].relay.abort(Code.SHUTTING_DOWN, "bye")
    assert read_to_end(others[0].app) == (b"", "reset")
    others[0].peer.sock.close()
    others[1].peer.sock.close()
    assert read_to_end(others[1].app) == (b"", "reset")
    bystander.check_alive()
    engine.close()
    assert read_to_end(bystander.app) == (b"", "reset")
    assert bystander.end.wait().reason is EndReason.ABORTED
    assert len(calls) == 3
    for r in others:
        r.close()
