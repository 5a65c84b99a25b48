"""Whole relayed connections on both engines (C and Python), with an oracle.

The input is a script: the application and the peer send in pieces, end, break, pause; the peer is hostile where the input says;
the owner aborts; the wire leg is given back where both have ended. Both engines play the same script.

Promises:
- The application gets a prefix of what the peer sealed, and EOF only after an authentic FIN and all bytes before it.
- The peer can open all frames. They hold a prefix of what the application sent, and FIN comes only after its end.
- An authentic RESET of the peer, also behind its FIN, ends the connection with its code: the application gets a TCP RST.
- Both engines end for the same reason, with the same bytes. No descriptor is left.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import socket
import struct
import time
from dataclasses import dataclass, field
from typing import Final

from stcp_fuzz.choices import Choices
from stcp_proxy.errors import FrameError
from stcp_proxy.errors.codes import Code
from stcp_proxy.protocol.frames import Opener, Sealer
from stcp_proxy.protocol.leg import LegOpener
from stcp_proxy.protocol.opening import encode_reason
from stcp_proxy.protocol.secret import Secret
from stcp_proxy.protocol.wire import HEADER_LEN, REKEY_INTERVAL, TAG_LEN, FrameType
from stcp_proxy.relay import fast_path
from stcp_proxy.relay.engine import DirectionKey, EndReason, Handover, RelayEnd, RelayLimits, WireLeg
from stcp_proxy.relay.pump import PumpEngine

TO_WIRE, FROM_WIRE = Secret(bytes(range(32))), Secret(bytes(range(1, 33)))
SIZES: Final = (0, 1, 5, 100, 1000, 5000, 16384, 65516)
COUNTERS: Final = (0, 1, REKEY_INTERVAL - 2, REKEY_INTERVAL)
PATIENCE: Final = 3.0
"""Seconds to wait for bytes that have to come."""
_RST: Final = struct.pack("ii", 1, 0)


@dataclass
class _Script:
    """What happens, and what may come out of it."""

    counter: int
    keep: bool
    small_buffers: bool
    steps: list[tuple[str, bytes]] = field(default_factory=list)
    early: bytes = b""
    said: bytes = b""
    """Text of authentic DATA frames in their place."""
    fin: bool = False
    """Whether an authentic FIN follows them."""
    reset: int | None = None
    """Code of an authentic RESET in its place: before the peer's FIN or behind it."""
    written: bytes = b""
    """What the application may have sent."""
    app_ended: bool = False
    breaks: bool = False
    """Whether a leg is broken or the owner aborts."""
    spoiled: bool = False
    """The peer has sent something that ends the connection, or a leg was broken."""


def one(data: bytes) -> None:
    """Run one input."""
    script = _script(Choices(data))
    before = len(os.listdir("/proc/self/fd"))
    found = []
    for compiled in _engines():
        found.append(_Play(script, compiled=compiled).run())
    if not (script.small_buffers and (script.breaks or script.spoiled)):  # TCP's timers decide then how much passes before
        assert all(each == found[0] for each in found), (found[0], found[-1])
    assert len(os.listdir("/proc/self/fd")) <= before, "descriptors are left"


def _engines() -> tuple[bool, ...]:
    return (False, True) if fast_path.compiled() else (False,)


def _script(choices: Choices) -> _Script:
    script = _Script(choices.pick(COUNTERS), choices.flag(), choices.byte() % 16 == 15)
    peer = Sealer(FROM_WIRE, script.counter)
    held = b""
    while choices.left and len(script.steps) < 60:
        step = choices.byte() % 16
        if step < 5:
            held += _frame(script, peer, choices)
        elif step < 8:
            pieces = choices.pieces(held)
            script.steps += [("peer", piece) for piece in pieces if piece]
            held = b""
        elif step < 11:
            text = bytes([choices.byte()]) * choices.pick(SIZES)
            script.steps.append(("app", text))
        elif step == 11:
            script.steps.append(("turn", b""))
        elif step == 12:
            script.steps.append(("app end", b""))
        elif step == 13:
            script.steps.append(("read app", b""))
        elif step == 14:
            script.steps.append((choices.pick(["peer end", "abort", "app reset", "peer reset"]), b""))
            script.breaks = script.breaks or script.steps[-1][0] != "peer end"
        elif not script.steps:
            script.early, held = (held, b"") if len(held) <= 2 * 65536 else (b"", held)
    if held:
        script.steps.append(("peer", held))
    return script


def _frame(script: _Script, peer: Sealer, choices: Choices) -> bytes:
    """One frame of the peer. It counts as said only if all before it was in order."""
    kind = choices.pick([0, 0, 0, 0, 1, 2, 3, 4, 5, 6])
    content, code = b"", 0
    if kind == FrameType.DATA:
        content = bytes([choices.byte()]) * choices.pick(SIZES)
    elif kind == FrameType.RESET:
        code = choices.byte()
        content = encode_reason(code, "why")
    if choices.byte() % 32 == 0:
        content = choices.take(8)
    frame = peer.seal(kind, content)
    changed = choices.changed(frame) if choices.byte() % 16 == 0 else frame
    in_order = changed == frame and not script.spoiled and not script.fin
    if in_order and kind == FrameType.DATA:
        script.said += content
    elif in_order and kind == FrameType.FIN and not content:
        script.fin = True
    else:
        if changed == frame and not script.spoiled and kind == FrameType.RESET and content == encode_reason(code, "why"):
            script.reset = code
        script.spoiled = True
    return changed


def _pair() -> tuple[socket.socket, socket.socket]:
    """Two ends of a TCP connection, so that an RST differs from an end."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        ours = socket.create_connection(server.getsockname())
        theirs, _ = server.accept()
    for sock in (ours, theirs):
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return ours, theirs


class _Play:
    """One script on one engine."""

    def __init__(self, script: _Script, *, compiled: bool) -> None:
        self.script = script
        self.engine = PumpEngine(compiled=compiled)
        self.guest = os.eventfd(0)
        self.engine.start_driven(self.guest)
        self.app, plain = _pair()
        wire, self.peer = _pair()
        if script.small_buffers:
            for sock in (self.app, plain, wire, self.peer):
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        self.ends: list[RelayEnd] = []
        self.returned: list[WireLeg] = []
        keys = DirectionKey(TO_WIRE, script.counter), DirectionKey(FROM_WIRE, script.counter)
        limits = RelayLimits(half_close=None)
        give_back = self.returned.append if script.keep else None
        self.relay = self.engine.adopt(Handover(plain, wire, *keys, script.early, limits, give_back), self.ends.append)
        self.delivered, self.carried, self.app_sees, self.written = b"", b"", "", b""
        self.app_open = self.peer_open = True
        self.app_ended = self.cut = False
        """`cut`: not all that the peer had to say has left it."""

    def run(self) -> tuple[object, ...]:
        """Play, check, and return what both engines must agree about."""
        try:
            for what, data in self.script.steps:
                self._step(what, data)
            self._drain()
            return self._judge()
        finally:
            self.engine.close()
            for sock in (self.app, self.peer, *(leg.socket for leg in self.returned)):
                sock.close()
            os.close(self.guest)

    def _step(self, what: str, data: bytes) -> None:
        if what == "peer" and self.peer_open:
            self._send(self.peer, data)
        elif what == "app" and self.app_open and not self.app_ended:
            self.written += self._send(self.app, data)
        elif what == "app end" and self.app_open:
            self.app_ended = True
            with contextlib.suppress(OSError):
                self.app.shutdown(socket.SHUT_WR)
        elif what == "peer end" and self.peer_open:
            with contextlib.suppress(OSError):
                self.peer.shutdown(socket.SHUT_WR)
        elif what in ("app reset", "peer reset"):
            self._break(self.app if what == "app reset" else self.peer)
        elif what == "abort":
            self.relay.abort(Code.SHUTTING_DOWN, "stop")
        elif what == "read app":
            self._read_app()
        self._turn()

    def _break(self, sock: socket.socket) -> None:
        if sock is self.app and self.app_open:
            self._read_app()
            self.app_open = False
        elif sock is self.peer and self.peer_open:
            self._read_peer()
            self.peer_open = False
        else:
            return
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RST)
        sock.close()

    def _send(self, sock: socket.socket, data: bytes) -> bytes:
        sent = 0
        for attempt in range(400):
            if sent == len(data):
                return data
            if attempt > 20:  # TCP waits for a timer
                self.engine.turn(0.002)
            try:
                sent += sock.send(data[sent:])
            except BlockingIOError:
                self._turn()
                self._read_app()
                self._read_peer()
            except OSError:  # it is reported once: a later read would see an end
                if sock is self.app:
                    self.app_sees = self.app_sees or "RST"
                break
        self.cut = self.cut or sock is self.peer
        return data[:sent]

    def _turn(self) -> None:
        for _ in range(4):
            self.engine.turn(0)

    def _read_app(self) -> bool:
        got, self.app_sees = _read(self.app, self.app_sees) if self.app_open else (b"", self.app_sees)
        self.delivered += got
        return bool(got)

    def _read_peer(self) -> bool:
        got = _read(self.peer, "")[0] if self.peer_open else b""
        self.carried += got
        return bool(got)

    def _drain(self) -> None:
        """Let everything pass. With small buffers TCP waits for its timers now and then."""
        quiet, until = 0, time.monotonic() + PATIENCE
        while quiet < 3 or (self._waits and time.monotonic() < until):
            if quiet > 3:
                self.engine.turn(0.01)
            self._turn()
            moved = [self._read_app(), self._read_peer()]
            quiet = 0 if any(moved) else quiet + 1

    @property
    def _waits(self) -> bool:
        """Whether bytes of a living connection are still on their way."""
        script = self.script
        if self.ends or self.returned or script.breaks or script.spoiled or self.cut or not script.small_buffers:
            return False
        return len(self.delivered) < len(script.said) or self._carried_text() < len(self.written)

    def _carried_text(self) -> int:
        """Bytes of text in the whole frames that the peer has."""
        at = text = 0
        while len(self.carried) - at >= HEADER_LEN:
            length = int.from_bytes(self.carried[at + 2 : at + HEADER_LEN], "big")
            at += HEADER_LEN + length
            text += length - TAG_LEN if at <= len(self.carried) else 0
        return text

    def _judge(self) -> tuple[object, ...]:
        said, script = self.script.said, self.script
        assert said.startswith(self.delivered), "the application got bytes that the peer did not seal"
        if self.app_sees == "EOF":
            assert script.fin, "EOF without FIN"
            assert self.delivered == said, "EOF before all bytes"
        text, controls = self._opened()
        assert self.written.startswith(text), "the peer got bytes that the application did not send"
        if FrameType.FIN in controls:
            assert self.app_ended or not self.app_open, "FIN without the application's end"
            assert controls.count(FrameType.FIN) == 1
        assert len(self.ends) <= 1
        assert len(self.returned) <= 1
        if self.returned:
            assert script.fin, "a leg was given back without the peer's FIN"
            assert FrameType.FIN in controls or not self.peer_open
        end = [(each.reason, each.code) for each in self.ends]
        if script.reset is not None and not (script.breaks or script.small_buffers or self.app_ended or self.cut):
            assert end == [(EndReason.PEER_RESET, script.reset)], f"the peer's RESET of code {script.reset} ended nothing: {end}"
            assert not self.returned, "a leg was given back behind RESET"
            assert self.app_sees == "RST" or self.app.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR), "RESET, but no RST"
        if not (self.ends or script.spoiled or script.breaks or self.cut):
            assert self.delivered == said, "bytes are left behind"
            assert text == self.written, "bytes of the application are left behind"
        return _short(self.delivered), self.app_sees, _short(text), controls, end, bool(self.returned)

    def _opened(self) -> tuple[bytes, list[int]]:
        opener: Opener = LegOpener(TO_WIRE, self.script.counter)
        text, controls, data = b"", [], self.carried
        while True:
            try:
                opened = opener.open(data)
            except FrameError as exc:
                raise AssertionError(f"the peer cannot open a frame: {exc.what}") from None
            if opened is None:
                return text, controls
            used, kind, content = opened
            data = data[used:]
            if kind == FrameType.DATA:
                assert not controls, "DATA behind FIN or RESET"
                text += content
            else:
                controls.append(kind)


def _short(data: bytes) -> str:
    """Length and digest, so that a difference is readable."""
    return f"{len(data)} bytes {hashlib.sha256(data).hexdigest()[:8]}"


def _read(sock: socket.socket, seen: str) -> tuple[bytes, str]:
    """What has arrived, and how the stream has ended; an error is reported once, and looks like an end afterwards."""
    got = b""
    if seen:
        return got, seen
    try:
        while part := sock.recv(1 << 20):
            got += part
    except BlockingIOError:
        return got, seen
    except OSError:
        return got, "RST"
    return got, "EOF"
