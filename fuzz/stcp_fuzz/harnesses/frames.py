"""Frames of a kept wire leg, from a peer with the keys: any type, order, length and content, and any bytes, in any pieces.

Promises: only a FrameError refuses; what comes out is what was sealed, in its order; a changed frame never opens; a refused frame
changes neither counter nor state.
"""

from __future__ import annotations

import functools
from typing import Final

from stcp_fuzz.choices import Choices
from stcp_proxy.errors import FrameError
from stcp_proxy.protocol.established import Established
from stcp_proxy.protocol.frames import Sealer
from stcp_proxy.protocol.leg import Leg, State
from stcp_proxy.protocol.opening import Opening, encode_keep, encode_reason
from stcp_proxy.protocol.secret import Secret
from stcp_proxy.protocol.wire import FrameType, Role, Suite

TO_US, FROM_US = Secret(bytes(range(32))), Secret(bytes(range(1, 33)))
_OPENINGS: Final = (FrameType.OPEN, FrameType.ACCEPT, FrameType.REJECT)


@functools.cache
def _established() -> Established:
    return Established(Suite.CLASSIC_KEYS, FROM_US, TO_US, bytes(32), None, b"")


def one(data: bytes) -> None:
    """Run one input."""
    choices = Choices(data)
    role = choices.pick(list(Role))
    leg, peer = Leg(role, _established()), Sealer(TO_US)
    stream, expected, genuine = b"", [], True
    while choices.left and len(stream) < 1 << 18:
        step = choices.byte()
        if step < 64:
            _send(leg, choices)
            continue
        kind = step % 9
        content = _content(kind, choices)
        if step >= 128 and kind in (FrameType.OPEN, FrameType.ACCEPT, FrameType.REJECT) and leg.connection + len(expected):
            peer.next_connection()
        frame = bytes(peer.seal(kind, content))
        if step % 16 == 0:
            frame, changed = choices.changed(frame), frame
            genuine = genuine and frame == changed
        stream += frame
        if genuine:
            expected.append((kind, content))
        for piece in choices.pieces(stream):
            del piece
        stream, ok = _receive(leg, stream, expected, genuine)
        if not ok:
            return


def _content(kind: int, choices: Choices) -> bytes:
    if choices.flag():
        return choices.take(choices.byte())
    if kind == FrameType.DATA:
        return bytes(choices.number() % 65517)
    if kind == FrameType.OPEN:
        return Opening(service="db" if choices.flag() else None, keep=choices.byte() or None).encode()
    if kind == FrameType.ACCEPT:
        return encode_keep(choices.byte() or None)
    if kind in (FrameType.RESET, FrameType.REJECT):
        return encode_reason(choices.byte(), "why")
    return b""


def _send(leg: Leg, choices: Choices) -> None:
    """Something of ours that is in place, to come into more states."""
    kind = choices.pick(list(FrameType))
    if not leg.may_send(kind):
        return
    content = {FrameType.OPEN: Opening(keep=30).encode(), FrameType.ACCEPT: encode_keep(30)}.get(kind, b"")
    if kind in (FrameType.RESET, FrameType.REJECT):
        content = encode_reason(1, "x")
    try:
        leg.seal(kind, content)
    except ValueError:
        return


def _receive(leg: Leg, stream: bytes, expected: list[tuple[int, bytes]], genuine: bool) -> tuple[bytes, bool]:
    while True:
        before = leg.state, leg.opener.counter, leg.opener.key
        try:
            received = leg.open(stream)
        except FrameError:
            assert (leg.state, leg.opener.counter, leg.opener.key) == before or leg.state is before[0]
            return b"", False
        if received is None:
            return stream, True
        if received.kind is None:
            assert leg.state is State.LEFT
            return b"", True
        assert expected, "a frame opened that the peer did not seal"
        assert expected.pop(0) == (received.kind, received.plaintext)
        assert leg.opener.counter == before[1] + 1
        stream = stream[received.used :]
