"""The fast path in C: numbers that it shares with Python, arguments that it refuses, and equality with the engine without it."""

from __future__ import annotations

import itertools
import os
import select
import socket
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stcp_proxy.errors import Code, ConfigError
from stcp_proxy.protocol import wire
from stcp_proxy.protocol.frames import CipherDirection, Opener, Scratch, Sealer
from stcp_proxy.protocol.lifecycle import Phase
from stcp_proxy.protocol.secret import Secret
from stcp_proxy.protocol.wire import MAX_FRAME, MAX_PLAINTEXT, REKEY_INTERVAL, FrameType
from stcp_proxy.relay import fast_path, wire_to_plain
from stcp_proxy.relay.duplex import Duplex
from stcp_proxy.relay.engine import DirectionKey, EndReason, Handover, RelayEnd
from stcp_proxy.relay.engine_choice import choose
from stcp_proxy.relay.pump import PumpEngine
from stcp_proxy.relay.states import State

TO_WIRE, FROM_WIRE = Secret(bytes(range(32))), Secret(bytes(range(1, 33)))
needs_lane = pytest.mark.skipif(
    not fast_path.compiled(), reason="the fast path in C was not built: gcc or Python's headers are missing"
)


class Bench:
    """One connection of an engine that is driven by hand: nothing happens but in `turn`."""

    def __init__(self, *, compiled: bool, counter: int = 0) -> None:
        self.engine = PumpEngine(compiled=compiled)
        self._guest = os.eventfd(0)
        self.engine.start_driven(self._guest)
        self.connect(counter)

    def connect(self, counter: int) -> None:
        """Have the engine adopt a connection."""
        self.app, plain = socket.socketpair()
        wire_leg, self.peer = socket.socketpair()
        for sock in (self.app, plain, wire_leg, self.peer):
            sock.setblocking(False)
        self.ends: list[RelayEnd] = []
        keys = DirectionKey(TO_WIRE, counter), DirectionKey(FROM_WIRE, counter)
        self.relay = self.engine.adopt(Handover(plain, wire_leg, *keys), self.ends.append)
        self.sealer, self.opener = Sealer(FROM_WIRE, counter), Opener(TO_WIRE, counter)

    def turn(self) -> None:
        """Let the engine do everything that it can do now."""
        for _ in range(8):
            self.engine.turn(0)

    def carried(self) -> tuple[int, bytes]:
        """Type and plaintext of the first frame that has come out at the peer."""
        opened = self.opener.open(read(self.peer))
        assert opened is not None
        return opened[1:]

    def delivered(self) -> bytes:
        """What has come out at the application."""
        return read(self.app)

    def close(self) -> None:
        self.engine.close()
        os.close(self._guest)
        self.app.close()
        self.peer.close()


def read(sock: socket.socket) -> bytes:
    got = b""
    try:
        while part := sock.recv(1 << 20):
            got += part
    except (BlockingIOError, ConnectionResetError):
        pass
    return got


@pytest.fixture
def bench() -> Iterator[Callable[..., Bench]]:
    made: list[Bench] = []

    def make(**options: Any) -> Bench:
        made.append(Bench(**options))
        return made[-1]

    yield make
    for one in made:
        one.close()


@needs_lane
def test_the_numbers_of_the_wire_are_the_same_in_c() -> None:
    module = sys.modules["stcp_proxy.relay._lane"]
    for name in ("HEADER_LEN", "TAG_LEN", "NONCE_LEN", "MAX_FRAME", "MAX_LENGTH", "MAX_PLAINTEXT"):
        assert getattr(module, name) == getattr(wire, name), name
    assert module.FRAMES_PER_TURN == wire_to_plain.FRAMES_PER_TURN
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


class Several:
    """Connections of one engine whose events come in one batch."""

    def __init__(self, first: Bench, count: int) -> None:
        self.benches = [first]
        for _ in range(count - 1):
            one = Bench.__new__(Bench)
            one.engine = first.engine
            one.connect(0)
            self.benches.append(one)
        first.turn()

    def close(self) -> None:
        for one in self.benches[1:]:
            one.app.close()
            one.peer.close()


@pytest.fixture
def several(bench: Callable[..., Bench]) -> Iterator[Callable[[int], list[Bench]]]:
    made: list[Several] = []

    def make(count: int) -> list[Bench]:
        made.append(Several(bench(compiled=True), count))
        return made[-1].benches

    yield make
    for one in made:
        one.close()


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
