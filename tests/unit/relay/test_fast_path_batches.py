"""Batches of the fast path in C: nothing is lost, mixed up or taken from a neighbour, whatever ends one connection."""

from __future__ import annotations

import socket
from collections.abc import Callable

import pytest

from stcp_proxy.errors import Code
from stcp_proxy.protocol.frames import Opener
from stcp_proxy.protocol.wire import MAX_PLAINTEXT, FrameType
from stcp_proxy.relay.duplex import Duplex
from stcp_proxy.relay.engine import DirectionKey, EndReason, Handover, RelayEnd

from .driven import FROM_WIRE, TO_WIRE, Bench, needs_lane, read


@needs_lane
def test_a_bug_in_a_step_ends_that_connection_and_no_other(bench: Callable[..., Bench], monkeypatch: pytest.MonkeyPatch) -> None:
    one = bench(compiled=True)
    other_app, plain = socket.socketpair()
    wire_leg, other_peer = socket.socketpair()
    for sock in (other_app, plain, wire_leg, other_peer):
        sock.setblocking(False)
    ends: list[RelayEnd] = []
    one.engine.adopt(Handover(plain, wire_leg, DirectionKey(TO_WIRE, 0), DirectionKey(FROM_WIRE, 0)), ends.append)
    one.turn()

    def broken(_: Duplex) -> None:
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr(Duplex, "_end_up", broken)
    one.app.shutdown(socket.SHUT_WR)
    other_app.send(b"words")
    one.turn()
    assert [(end.reason, end.text) for end in one.ends] == [(EndReason.INTERNAL_ERROR, "ZeroDivisionError: a bug")]
    opened = Opener(TO_WIRE).open(read(other_peer))
    assert opened is not None
    assert opened[2] == b"words"
    assert not ends
    other_app.close()
    other_peer.close()


@needs_lane
def test_an_interrupt_in_a_step_is_nobodys_bug(bench: Callable[..., Bench], monkeypatch: pytest.MonkeyPatch) -> None:
    one = bench(compiled=True)
    one.turn()

    def interrupted(_: Duplex) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(Duplex, "_end_up", interrupted)
        one.app.shutdown(socket.SHUT_WR)
        with pytest.raises(KeyboardInterrupt):
            one.turn()
    assert not one.ends


@needs_lane
@pytest.mark.parametrize("size", [1, 1004, 1005, 1024, 1025, 70_000])
@pytest.mark.parametrize("count", [1, 2, 8, 9, 20])
def test_a_batch_loses_nothing_and_mixes_nothing_up(several: Callable[[int], list[Bench]], count: int, size: int) -> None:
    """Small sends are kept for a moment (batch.c): as many as there is room for, and more."""
    benches = several(count)
    for number, one in enumerate(benches):
        one.app.send(bytes([number]) * size)
        one.peer.send(one.sealer.seal(FrameType.DATA, bytes([number]) * min(size, MAX_PLAINTEXT)))
    benches[0].turn()
    for number, one in enumerate(benches):
        sealed, words = read(one.peer), b""
        while sealed:
            opened = one.opener.open(sealed)
            assert opened is not None
            sealed, words = sealed[opened[0] :], words + opened[2]
        assert words == bytes([number]) * size
        assert one.delivered() == bytes([number]) * min(size, MAX_PLAINTEXT)
        assert one.relay.counts() == (size, min(size, MAX_PLAINTEXT))


@needs_lane
def test_what_is_kept_goes_out_before_what_follows_it(several: Callable[[int], list[Bench]]) -> None:
    """One batch: words of the application, and a frame of the peer's upon which the connection is reset."""
    benches = several(6)
    for one in benches:
        one.app.send(b"words")
        one.peer.send(one.sealer.seal(FrameType.DATA, b"said"))
    guilty = benches[3]
    guilty.peer.send(guilty.sealer.seal(FrameType.RESET, b"\x00\x01why"))
    gone = benches[1]
    gone.app.shutdown(socket.SHUT_WR)
    lost = benches[4]
    lost.peer.close()
    benches[0].turn()
    for one in benches:
        if one is not lost:
            assert one.carried() == (FrameType.DATA, b"words")
    assert [one.delivered() for one in benches] == [b"said"] * 6
    assert [[end.reason for end in one.ends] for one in (guilty, lost)] == [[EndReason.PEER_RESET], [EndReason.TRUNCATED]]
    assert not any(one.ends for one in benches if one not in (guilty, lost))


@needs_lane
def test_an_end_in_a_batch_takes_nothing_from_the_others(several: Callable[[int], list[Bench]]) -> None:
    """Frames that are no frames, in every other connection of one batch."""
    benches = several(12)
    for number, one in enumerate(benches):
        one.app.send(b"words")
        one.peer.send(b"\xff" * 40 if number % 2 else one.sealer.seal(FrameType.DATA, b"said"))
    benches[0].turn()
    for number, one in enumerate(benches):
        if number % 2:
            assert [end.reason for end in one.ends] == [EndReason.BAD_FRAME]
            assert one.delivered() == b""
        else:
            assert (one.carried(), one.delivered(), one.ends) == ((FrameType.DATA, b"words"), b"said", [])


@needs_lane
def test_what_an_interrupt_leaves_behind_goes_out_later(
    several: Callable[[int], list[Bench]], monkeypatch: pytest.MonkeyPatch
) -> None:
    benches = several(3)

    def interrupted(_: Duplex) -> None:
        raise KeyboardInterrupt

    for one in benches[:2]:
        one.app.send(b"words")
    benches[2].app.shutdown(socket.SHUT_WR)
    with monkeypatch.context() as patched:
        patched.setattr(Duplex, "_end_up", interrupted)
        with pytest.raises(KeyboardInterrupt):
            benches[0].turn()
    benches[0].turn()
    for one in benches[:2]:
        assert one.carried() == (FrameType.DATA, b"words")


@pytest.mark.parametrize("size", [5, 5000])
@pytest.mark.parametrize("compiled", [False, pytest.param(True, marks=needs_lane)])
def test_a_connection_that_ends_in_a_batch_says_nothing_more_behind_its_reset(
    bench: Callable[..., Bench], compiled: bool, size: int
) -> None:
    """The application reads no more and still talks: what was kept for it fails, and RESET goes out once, and rightly."""
    one = bench(compiled=compiled)
    one.turn()
    one.peer.send(one.sealer.seal(FrameType.DATA, b"said"))
    one.app.shutdown(socket.SHUT_RD)
    one.app.send(bytes(size))
    one.turn()
    kind, text = one.carried()
    assert kind == FrameType.RESET
    assert int.from_bytes(text[:2], "big") == Code.PLAIN_RESET
    assert read(one.peer) == b""
    one.peer.shutdown(socket.SHUT_WR)
    one.turn()
    assert [end.reason for end in one.ends] == [EndReason.PLAIN_RESET]
