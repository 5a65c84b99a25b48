"""The fast path in C: numbers that it shares with Python, arguments that it refuses, and equality with the engine without it."""

from __future__ import annotations

import itertools
import select
import socket
import sys
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stcp_proxy.errors import ConfigError
from stcp_proxy.protocol import wire
from stcp_proxy.protocol.frames import CipherDirection, Scratch
from stcp_proxy.protocol.lifecycle import Phase
from stcp_proxy.protocol.wire import MAX_FRAME, MAX_PLAINTEXT, REKEY_INTERVAL, FrameType
from stcp_proxy.relay import fast_path, turns, wire_to_plain
from stcp_proxy.relay.duplex import Duplex
from stcp_proxy.relay.engine_choice import choose
from stcp_proxy.relay.pump import PumpEngine
from stcp_proxy.relay.states import State

from .driven import Bench, needs_lane, read


@needs_lane
def test_the_numbers_of_the_wire_are_the_same_in_c() -> None:
    module = sys.modules["stcp_proxy.relay._lane"]
    for name in ("HEADER_LEN", "TAG_LEN", "NONCE_LEN", "MAX_FRAME", "MAX_LENGTH", "MAX_PLAINTEXT"):
        assert getattr(module, name) == getattr(wire, name), name
    assert module.FRAMES_PER_TURN == wire_to_plain.FRAMES_PER_TURN
    assert (module.SMALL, module.SHARED_READ, module.WEIGHT) == (turns.SMALL, turns.SHARED_READ, turns.WEIGHT)
    assert (module.GUEST, module.SEEN) == (fast_path.GUEST, fast_path.SEEN)
    assert int(FrameType.DATA) == 0, "lane/transfer.c writes DATA as a zero"


class NoSlots:
    pass


@needs_lane
@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"duplex": NoSlots}, "_state"),
        ({"direction": NoSlots}, "_n"),
        ({"source": bytearray(MAX_FRAME - 1)}, "too small"),
        ({"result": bytearray(MAX_FRAME)}, "too small"),
        ({"result": bytes(1 << 20)}, "not writable"),
        ({"duplex": "Duplex"}, "type"),
    ],
)
def test_what_it_is_not_made_for_is_refused(changed: dict[str, Any], why: str) -> None:
    scratch = Scratch(MAX_FRAME)
    arguments = {
        "engine": PumpEngine(),
        "epoll": 0,
        "guest": -1,
        "duplex": Duplex,
        "direction": CipherDirection,
        "stream": Phase.STREAM,
        "states": State,
        "source": scratch.source,
        "result": scratch.result,
    }
    lane = sys.modules["stcp_proxy.relay._lane"].Lane
    lane(*arguments.values())
    with pytest.raises((TypeError, ValueError, AttributeError, BufferError), match=why):
        lane(*(arguments | changed).values())


@needs_lane
@pytest.mark.parametrize(
    "call", ["set(-1, 1, relay, print, True)", "set(0, 1, object(), print, True)", "up(object(), 0, 1)", "down()"]
)
def test_what_is_no_leg_of_a_connection_is_refused(bench: Callable[..., Bench], call: str) -> None:
    one = bench(compiled=True)
    with pytest.raises((TypeError, ValueError)):
        eval(f"lane.{call}", {"lane": one.engine.lane, "relay": one.relay})


@pytest.mark.parametrize(
    ("environment", "built", "expected"),
    [("0", True, False), ("0", False, False), ("", False, False), ("1", False, ImportError), ("", True, True), ("1", True, True)],
)
def test_the_environment_says_whether_it_is_used(
    monkeypatch: pytest.MonkeyPatch, environment: str, built: bool, expected: bool | type[Exception]
) -> None:
    monkeypatch.setenv("STCP_COMPILED", environment)
    monkeypatch.setitem(
        sys.modules, "stcp_proxy.relay._lane", fast_path if built else None
    )  # any module, or one that is not there
    if isinstance(expected, bool):
        assert fast_path.compiled() is expected
        assert not fast_path.is_missing()
        return
    assert not fast_path.compiled()
    with pytest.raises(ConfigError, match="STCP_COMPILED is 1, and the byte path was not compiled; install gcc"):
        choose("python")
    with pytest.raises(expected):
        PumpEngine().start()


@needs_lane
def test_the_fast_path_handles_common_frames_alone(bench: Callable[..., Bench], monkeypatch: pytest.MonkeyPatch) -> None:
    """No Python method runs for common frames. No other test would notice."""
    one = bench(compiled=True, counter=REKEY_INTERVAL - 3)
    one.turn()
    with monkeypatch.context() as patched:
        for name in ("on_plain", "on_wire", "_up", "_up_read", "_down", "_open_frames", "_deliver"):
            patched.delattr(next(part for part in Duplex.__mro__ if name in vars(part)), name)
        for _ in range(3):
            one.app.send(b"up")
            one.peer.send(one.sealer.seal(FrameType.DATA, b"down"))
            one.turn()
            assert (one.carried(), one.delivered()) == ((FrameType.DATA, b"up"), b"down")
    assert one.relay.counts() == (6, 12)
    one.app.send(b"over the rekey")
    one.peer.send(one.sealer.seal(FrameType.DATA, b"likewise"))
    one.turn()
    assert (one.carried(), one.delivered()) == ((FrameType.DATA, b"over the rekey"), b"likewise")


FRAME = st.one_of(
    st.tuples(st.just(FrameType.DATA), st.integers(0, 300).map(bytes)),
    st.tuples(st.just(FrameType.DATA), st.sampled_from([MAX_PLAINTEXT, MAX_PLAINTEXT - 1]).map(bytes)),
    st.tuples(st.sampled_from(list(FrameType)), st.sampled_from([b"", b"\x00\x01", b"\x00\x05why"])),
)
FAULT = st.tuples(st.integers(0, 6), st.integers(0, 90), st.integers(1, 255))


@needs_lane
@settings(max_examples=150, deadline=None)
@given(
    frames=st.lists(FRAME, max_size=7),
    fault=st.none() | FAULT,
    cuts=st.lists(st.integers(0, 2 * MAX_FRAME), max_size=6),
    said=st.lists(st.integers(1, 3 * MAX_PLAINTEXT), max_size=3),
    counter=st.sampled_from([0, 1, REKEY_INTERVAL - 2, REKEY_INTERVAL]),
    ending=st.sampled_from(["", "eof", "shutdown"]),
)
def test_with_it_and_without_it_the_engine_does_the_same(
    frames: list[tuple[FrameType, bytes]],
    fault: tuple[int, int, int] | None,
    cuts: list[int],
    said: list[int],
    counter: int,
    ending: str,
) -> None:
    """Any frames, with one byte changed or none, cut anywhere; any bytes of the application."""
    outcomes = []
    for compiled in (False, True):
        one = Bench(compiled=compiled, counter=counter)
        try:
            outcomes.append(play(one, frames, fault, cuts, said, ending))
        finally:
            one.close()
    assert outcomes[0] == outcomes[1]


def play(
    one: Bench,
    frames: list[tuple[FrameType, bytes]],
    fault: tuple[int, int, int] | None,
    cuts: list[int],
    said: list[int],
    ending: str,
) -> tuple[object, ...]:
    sealed = [bytearray(one.sealer.seal(kind, plaintext)) for kind, plaintext in frames]
    if fault is not None and sealed:
        frame, at, change = fault
        hit = sealed[frame % len(sealed)]
        hit[at % len(hit)] ^= change
    stream = b"".join(sealed)
    bounds = sorted({0, len(stream), *(cut % (len(stream) + 1) for cut in cuts)})
    delivered = answered = b""
    for start, end in itertools.pairwise(bounds):
        piece = stream[start:end]
        while piece:
            try:
                piece = piece[one.peer.send(piece) :]
            except (BlockingIOError, BrokenPipeError):
                if one.ends:
                    break
            one.turn()
            delivered += one.delivered()
    for size in said:
        words = bytes(size)
        while words:
            try:
                words = words[one.app.send(words) :]
            except (BlockingIOError, BrokenPipeError, ConnectionResetError):
                if one.ends:
                    break
            one.turn()
            answered += read(one.peer)
    if ending == "eof":
        one.peer.shutdown(socket.SHUT_WR)
    elif ending == "shutdown":
        one.app.shutdown(socket.SHUT_WR)
    one.turn()
    return delivered + one.delivered(), answered + read(one.peer), one.relay.counts(), one.ends


def test_an_engine_without_it_waits_for_the_same_events(bench: Callable[..., Bench]) -> None:
    one = bench(compiled=False)
    assert one.engine.lane is None
    assert not one.engine.turn(0)
    poller = select.poll()
    poller.register(one.app, select.POLLIN)
    one.peer.send(one.sealer.seal(FrameType.DATA, b"down"))
    one.turn()
    assert poller.poll(0)
    assert one.delivered() == b"down"
