"""After both FINs an engine gives the wire leg back: open, at a frame boundary, with counters and the bytes read beyond."""

from __future__ import annotations

import contextlib
import queue
import socket
from collections.abc import Iterator

import pytest

from stcp_proxy.errors import Code
from stcp_proxy.protocol.frames import Opener, Sealer, key_at
from stcp_proxy.protocol.wire import REKEY_INTERVAL, FrameType
from stcp_proxy.relay.engine import DirectionKey, EndReason, Engine, Handover, RelayLimits, WireLeg

from .harness import KEY_IN, KEY_OUT, EndBox, MakeRig, Rig, seal_all
from .legs import PATIENCE, Background, digest, noise, quiet, read_exactly, read_to_end, reset, tcp_pair

NEXT = b"whatever belongs to the next connection"


class Legs:
    """Takes wire legs back."""

    def __init__(self) -> None:
        self.given: queue.Queue[WireLeg] = queue.Queue()

    def __call__(self, leg: WireLeg) -> None:
        self.given.put(leg)

    def take(self) -> WireLeg:
        leg = self.given.get(timeout=PATIENCE)
        assert self.given.empty()
        return leg


@pytest.fixture
def legs() -> Iterator[Legs]:
    found = Legs()
    yield found
    with contextlib.suppress(queue.Empty):
        while True:
            found.given.get_nowait().socket.close()


def check_open(rig: Rig, leg: WireLeg) -> None:
    """The leg takes bytes both ways, and no engine reads them."""
    leg.socket.settimeout(PATIENCE)
    leg.socket.sendall(b"there")
    assert read_exactly(rig.peer.sock, 5) == b"there"
    rig.peer.sock.sendall(b"back")
    assert read_exactly(leg.socket, 4) == b"back"
    leg.socket.close()


@pytest.mark.parametrize("first", ["application", "peer"])
def test_the_leg_comes_back_after_both_fins(rig: MakeRig, legs: Legs, first: str) -> None:
    r = rig(give_back=legs, counters=(5, 9))
    r.check_alive()
    if first == "application":
        r.app.shutdown(socket.SHUT_WR)
        r.peer.expect(FrameType.FIN)
        assert legs.given.empty()
        r.peer.send_fin()
    else:
        r.peer.send_fin()
        assert read_to_end(r.app) == (b"", "eof")
        assert legs.given.empty()
        r.app.shutdown(socket.SHUT_WR)
        r.peer.expect(FrameType.FIN)
    leg = legs.take()
    assert (leg.sent, leg.received, leg.rest) == (7, 11, b"")
    end = r.end.wait()
    assert (end.reason, end.bytes_to_wire, end.bytes_to_plain) == (EndReason.FINISHED, 4, 4)
    check_open(r, leg)


def test_bytes_behind_the_last_fin_are_given_back_unread(rig: MakeRig, legs: Legs) -> None:
    """They may be sealed with a key that the engine does not know."""
    r = rig(give_back=legs)
    r.app.shutdown(socket.SHUT_WR)
    r.peer.expect(FrameType.FIN)
    r.peer.sock.sendall(r.peer.sealer.seal(FrameType.DATA, b"last") + r.peer.sealer.seal(FrameType.FIN) + NEXT)
    assert read_to_end(r.app) == (b"last", "eof")
    leg = legs.take()
    assert r.end.wait().reason is EndReason.FINISHED
    leg.socket.settimeout(PATIENCE)
    assert leg.rest + read_exactly(leg.socket, len(NEXT) - len(leg.rest) or 0) == NEXT
    assert leg.received == 2
    check_open(r, leg)


def test_whole_frames_behind_the_last_fin_are_given_back_unread(rig: MakeRig, legs: Legs) -> None:
    r = rig(give_back=legs)
    r.app.shutdown(socket.SHUT_WR)
    r.peer.expect(FrameType.FIN)
    fin = r.peer.sealer.seal(FrameType.FIN)
    behind = Sealer(KEY_OUT, 77).seal(FrameType.OPEN, b"") + Sealer(KEY_OUT, 78).seal(FrameType.DATA, b"early")
    r.peer.sock.sendall(fin + behind)
    assert read_to_end(r.app) == (b"", "eof")
    leg = legs.take()
    assert r.end.wait().reason is EndReason.FINISHED
    leg.socket.settimeout(PATIENCE)
    assert leg.rest + read_exactly(leg.socket, len(behind) - len(leg.rest)) == behind
    check_open(r, leg)


def test_bytes_of_the_handover_may_hold_everything(rig: MakeRig, legs: Legs) -> None:
    """Both FINs and the next connection's bytes come at once."""
    r = rig(give_back=legs, queued=lambda sealer: sealer.seal(FrameType.DATA, b"all") + sealer.seal(FrameType.FIN))
    assert read_to_end(r.app) == (b"all", "eof")
    r.app.shutdown(socket.SHUT_WR)
    r.peer.expect(FrameType.FIN)
    leg = legs.take()
    assert (leg.sent, leg.received, leg.rest) == (1, 2, b"")
    check_open(r, leg)


def test_slow_application_does_not_hold_the_leg_back(rig: MakeRig, legs: Legs) -> None:
    """Bytes for the application wait in the engine, or in the plain leg's socket: the leg comes back, the bytes arrive later."""
    r = rig(give_back=legs, buffers=4096)
    r.app.shutdown(socket.SHUT_WR)
    r.peer.expect(FrameType.FIN)
    data = noise(60_000)
    sealed = seal_all(r.peer.sealer, data) + r.peer.sealer.seal(FrameType.FIN) + NEXT
    writer = Background(lambda: r.peer.sock.sendall(sealed))
    leg = legs.take()
    writer.join()
    assert r.relay.engine == "kernel" or not r.end.called
    assert leg.received == 2
    assert quiet(leg.socket) or leg.rest != NEXT
    got, ending = read_to_end(r.app)
    assert (digest(got), ending) == (digest(data), "eof")
    assert r.end.wait().reason is EndReason.FINISHED
    leg.socket.settimeout(PATIENCE)
    assert leg.rest + read_exactly(leg.socket, len(NEXT) - len(leg.rest)) == NEXT
    check_open(r, leg)


def _stalled(rig: MakeRig, legs: Legs, limits: RelayLimits | None = None) -> tuple[Rig, WireLeg]:
    """A connection whose wire leg was given back while bytes wait for the application."""
    r = rig(give_back=legs, buffers=4096, limits=limits)
    r.app.shutdown(socket.SHUT_WR)
    r.peer.expect(FrameType.FIN)
    Background(lambda: r.peer.sock.sendall(seal_all(r.peer.sealer, noise(60_000)) + r.peer.sealer.seal(FrameType.FIN))).join()
    return r, legs.take()


@pytest.mark.parametrize("how", ["abort", "application", "deadline"])
def test_failure_after_the_leg_was_given_back_leaves_the_leg_alone(rig: MakeRig, legs: Legs, how: str) -> None:
    r, leg = _stalled(rig, legs, RelayLimits(half_close=0.3) if how == "deadline" else None)
    if how == "abort":
        r.relay.abort(Code.SHUTTING_DOWN, "")
    elif how == "application":
        reset(r.app)
    expected = {"abort": EndReason.ABORTED, "application": EndReason.PLAIN_RESET, "deadline": EndReason.HALF_CLOSE_TIMEOUT}
    if r.relay.engine == "kernel":  # the plain leg's socket has all, so the connection was over before
        expected[how] = EndReason.FINISHED
    assert r.end.wait().reason is expected[how]
    check_open(r, leg)


@pytest.mark.parametrize("how", ["reset", "peer reset", "truncated"])
def test_leg_of_a_broken_connection_is_closed(rig: MakeRig, legs: Legs, how: str) -> None:
    r = rig(give_back=legs)
    r.check_alive()
    if how == "reset":
        reset(r.app)
        r.peer.expect_reset(Code.PLAIN_RESET)
        r.peer.sock.close()
    elif how == "peer reset":
        r.peer.send_fin()
        r.peer.send(FrameType.RESET, b"\x00\x08")
        assert r.peer.read_to_end()[0] == []
    else:
        r.peer.sock.shutdown(socket.SHUT_WR)
        r.peer.read_to_end()
    r.end.wait()
    assert legs.given.empty()


def test_hundred_connections_over_one_leg(engine: Engine, legs: Legs) -> None:
    """The same engine takes the leg again and again; keys follow from the counters, across a rekey."""
    far, wire = tcp_pair()
    sent, received = REKEY_INTERVAL - 100, 2 * REKEY_INTERVAL - 150
    send, receive = KEY_OUT, KEY_IN
    sealer, opener = Sealer(KEY_IN, received), Opener(KEY_OUT, sent)
    rest = b""
    for number in range(100):
        app, plain = tcp_pair()
        plain.setblocking(False)
        wire.setblocking(False)
        end, data = EndBox(), noise(3000, number)
        keys = DirectionKey(send, sent), DirectionKey(receive, received)
        engine.adopt(Handover(plain, wire, *keys, rest, RelayLimits(), legs), end)
        app.sendall(data)
        app.shutdown(socket.SHUT_WR)
        far.sendall(sealer.seal(FrameType.DATA, data[::-1]) + sealer.seal(FrameType.FIN))
        assert read_to_end(app) == (data[::-1], "eof")
        app.close()
        leg = legs.take()
        assert end.wait().reason is EndReason.FINISHED
        got, buffer = b"", b""
        while True:
            while (opened := opener.open(buffer)) is None:
                buffer += far.recv(65536)
            buffer = buffer[opened[0] :]
            if opened[1] == FrameType.FIN:
                break
            got += opened[2]
        assert (got, buffer) == (data, b"")
        send, receive = key_at(send, sent, leg.sent), key_at(receive, received, leg.received)
        sent, received, rest, wire = leg.sent, leg.received, leg.rest, leg.socket
        assert (sent, received) == (opener.counter, sealer.counter)
    far.close()
    wire.close()


class Side:
    """One engine's side of a wire leg that carries several connections."""

    def __init__(self, engine: Engine, wire: socket.socket, send: DirectionKey, receive: DirectionKey) -> None:
        self._engine = engine
        self._wire, self._rest = wire, b""
        self._send, self._receive = send, receive
        self.legs = Legs()
        self.end = EndBox()

    def connect(self) -> socket.socket:
        """Hand the next connection over; returns the application's socket."""
        app, plain = tcp_pair()
        for sock in (plain, self._wire):
            sock.setblocking(False)
        self.end = EndBox()
        self._engine.adopt(Handover(plain, self._wire, self._send, self._receive, self._rest, RelayLimits(), self.legs), self.end)
        return app

    def take(self) -> socket.socket:
        """Take the leg back, with its keys and all that was read beyond."""
        leg = self.legs.take()
        self._send = DirectionKey(key_at(self._send.key, self._send.counter, leg.sent), leg.sent)
        self._receive = DirectionKey(key_at(self._receive.key, self._receive.counter, leg.received), leg.received)
        self._wire, self._rest = leg.socket, leg.rest
        self._wire.settimeout(PATIENCE)
        return self._wire

    def read(self, size: int) -> bytes:
        """What user space reads between two connections."""
        found, self._rest = self._rest[:size], self._rest[size:]
        return found + read_exactly(self._wire, size - len(found))

    def close(self) -> None:
        self._wire.close()


@pytest.mark.parametrize("first", [0, 1], ids=["initiator ends first", "responder ends first"])
def test_pairs_carry_one_connection_after_the_other(engines: tuple[Engine, Engine], first: int) -> None:
    """Two engines, of the same or of different kinds. OPEN follows the initiator's leg at once, with early bytes behind it."""
    near, far = tcp_pair()
    forth, back = DirectionKey(KEY_OUT, REKEY_INTERVAL - 20), DirectionKey(KEY_IN, 0)
    sides = Side(engines[0], near, forth, back), Side(engines[1], far, back, forth)
    for number in range(20):
        apps = tuple(side.connect() for side in sides)
        up, down = noise(40_000, number), noise(3_000, number)
        for app, data in ((apps[first], up), (apps[1 - first], down)):
            app.sendall(data)
            app.shutdown(socket.SHUT_WR)
        for app, data in ((apps[1 - first], up), (apps[first], down)):
            assert read_to_end(app) == (data, "eof")
            app.close()
        sides[0].take().sendall(NEXT)
        sides[1].take()
        assert sides[1].read(len(NEXT)) == NEXT
        assert [side.end.wait().reason for side in sides] == [EndReason.FINISHED] * 2
    for side in sides:
        side.close()
