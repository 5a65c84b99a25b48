"""Frames that the format, the tag or the order does not allow: fatal, and not one byte of them reaches the application."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

import pytest

from stcp_proxy.errors import Code
from stcp_proxy.protocol.frames import Sealer
from stcp_proxy.protocol.secret import Secret
from stcp_proxy.protocol.wire import HEADER_LEN, MAX_PLAINTEXT, TAG_LEN, FrameType
from stcp_proxy.relay.engine import EndReason

from .harness import KEY_IN, KEY_OUT, MakePair, MakeRig, Rig
from .legs import noise, read_to_end

DATA = FrameType.DATA
Bad = Callable[[Sealer], bytes]

CONTENT = noise(64, 99)
"""Of the frame that is changed: nothing of it may be seen."""
BEHIND = 70_000
"""Good bytes that follow, so that a frame made longer by a flipped bit is completed."""


def flipped(at: int, mask: int, kind: FrameType = DATA, content: bytes = CONTENT) -> Bad:
    """A frame with bits flipped at byte `at`."""

    def make(sealer: Sealer) -> bytes:
        raw = bytearray(sealer.seal(kind, content))
        raw[at] ^= mask
        return bytes(raw)

    return make


def with_header(kind: int, reserved: int, length: int) -> Bad:
    """A frame whose header is replaced."""
    return lambda sealer: bytes([kind, reserved]) + length.to_bytes(2, "big") + sealer.seal(DATA, CONTENT)[HEADER_LEN:]


def sealed(kind: int, content: bytes = b"") -> Bad:
    """A frame that is authentic, but says what it may not."""
    return lambda sealer: sealer.seal(kind, content)


def sealed_with_header(kind: int, reserved: int, size: int) -> Bad:
    """A frame whose tag is right for a header that the format does not allow."""

    def make(sealer: Sealer) -> bytes:
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        header = bytes([kind, reserved]) + (size + TAG_LEN).to_bytes(2, "big")
        nonce = bytes(4) + sealer.counter.to_bytes(8, "big")
        return header + AESGCM(KEY_IN.reveal()).encrypt(nonce, bytes(size), header)

    return make


def twice(first: Bad, second: Bad) -> Bad:
    return lambda sealer: first(sealer) + second(sealer)


def skipped(sealer: Sealer) -> bytes:
    """The frame after the next: the one in between was dropped."""
    sealer.seal(DATA, b"dropped")
    return sealer.seal(DATA, CONTENT)


def swapped(sealer: Sealer) -> bytes:
    a, b = sealer.seal(DATA, b"a"), sealer.seal(DATA, b"b")
    return b + a


def reflected(sealer: Sealer) -> bytes:
    """A frame of the other direction, sent back."""
    return Sealer(KEY_OUT, sealer.counter).seal(DATA, CONTENT)


def other_key(sealer: Sealer) -> bytes:
    return Sealer(Secret(bytes(32)), sealer.counter).seal(DATA, CONTENT)


TAG_AT = HEADER_LEN + len(CONTENT)
CASES: dict[str, Bad] = {
    **{f"type {DATA}->{DATA ^ mask}": flipped(0, mask) for mask in (1, 2, 3, 4, 5)},
    **{f"unknown type {kind}": with_header(kind, 0, len(CONTENT) + TAG_LEN) for kind in (6, 7, 8, 16, 128, 255)},
    **{f"authentic unknown type {kind}": sealed_with_header(kind, 0, 5) for kind in (6, 255)},
    **{f"reserved bit {bit}": flipped(1, 1 << bit) for bit in range(8)},
    "authentic reserved byte": sealed_with_header(0, 1, 5),
    **{f"length bit {bit}": flipped(2 + (bit < 8), 1 << bit % 8) for bit in range(16)},
    **{f"length {length}": with_header(0, 0, length) for length in (0, 1, 15, 16, 17, 65532, 65533, 65534, 65535)},
    **{f"body byte {at}": flipped(HEADER_LEN + at, 1) for at in (0, 1, 15, 16, 31, 32, 62, 63)},
    **{f"tag byte {at}": flipped(TAG_AT + at, 0x80) for at in range(TAG_LEN)},
    "FIN flipped": flipped(HEADER_LEN, 1, FrameType.FIN, b""),
    "FIN made DATA": flipped(0, 1, FrameType.FIN, b""),
    "RESET flipped": flipped(HEADER_LEN, 1, FrameType.RESET, b"\x00\x08"),
    "DATA flipped, empty": flipped(HEADER_LEN, 1, DATA, b""),
    "last byte of the largest frame": flipped(HEADER_LEN + MAX_PLAINTEXT - 1, 1, DATA, bytes(MAX_PLAINTEXT)),
    "dropped frame": skipped,
    "swapped frames": swapped,
    "reflected frame": reflected,
    "other key": other_key,
    "OPEN": sealed(FrameType.OPEN),
    "ACCEPT": sealed(FrameType.ACCEPT),
    "REJECT": sealed(FrameType.REJECT, b"\x00\x01"),
    "FIN with content": sealed(FrameType.FIN, b"\0"),
    "FIN with much content": sealed(FrameType.FIN, bytes(MAX_PLAINTEXT)),
    "RESET of 0 bytes": sealed(FrameType.RESET),
    "RESET of 1 byte": sealed(FrameType.RESET, b"\x00"),
    "RESET of 259 bytes": sealed(FrameType.RESET, b"\x00\x08" + b"x" * 257),
    "RESET of the largest size": sealed(FrameType.RESET, bytes(MAX_PLAINTEXT)),
    "plain text": lambda _: b"HTTP/1.1 400 Bad Request\r\n\r\n",
    "zeroes": lambda _: bytes(100),
}
AFTER_FIN: dict[str, Bad] = {
    "DATA": sealed(DATA, CONTENT),
    "empty DATA": sealed(DATA),
    "FIN": sealed(FrameType.FIN),
    "OPEN": sealed(FrameType.OPEN),
    "ACCEPT": sealed(FrameType.ACCEPT),
    "REJECT": sealed(FrameType.REJECT, b"\x00\x01"),
    "RESET of 1 byte": sealed(FrameType.RESET, b"\x00"),
    "garbage": lambda _: bytes(100),
}


def assert_fatal(r: Rig) -> None:
    """The wire ends, at most with RESET(protocol error) before; the engine says BAD_FRAME."""
    frames, _ = r.peer.read_to_end()
    assert [kind for kind, _ in frames] in ([], [FrameType.RESET])
    for _, content in frames:
        assert content[:2] == Code.PROTOCOL_ERROR.to_bytes(2, "big")
    r.peer.sock.close()
    end = r.end.wait()
    assert end.reason is EndReason.BAD_FRAME
    assert end.code == (Code.PROTOCOL_ERROR if frames else None), "the code is RESET's, where there was one"
    assert end.text, "a bad frame comes with words about it"


@pytest.mark.parametrize("bad", CASES.values(), ids=CASES)
def test_a_bad_frame_is_fatal(rig: MakeRig, bad: Bad) -> None:
    bystander = rig()
    r = rig()
    r.check_alive()
    # Good frames stand behind the bad one: after it nothing counts, for there is no resynchronisation.
    r.peer.sock.sendall(bad(r.peer.sealer))
    with contextlib.suppress(ConnectionResetError, BrokenPipeError):
        r.peer.sock.sendall(r.peer.sealer.seal(DATA, bytes(BEHIND // 2)) + r.peer.sealer.seal(DATA, bytes(BEHIND // 2)))
    assert read_to_end(r.app) == (b"", "reset")
    assert_fatal(r)
    bystander.check_alive()


@pytest.mark.parametrize("bad", CASES.values(), ids=CASES)
def test_a_bad_frame_behind_a_good_one_in_one_segment(rig: MakeRig, bad: Bad) -> None:
    r = rig()
    raw = r.peer.sealer.seal(DATA, b"good") + bad(r.peer.sealer)
    raw += r.peer.sealer.seal(DATA, bytes(BEHIND // 2)) + r.peer.sealer.seal(DATA, bytes(BEHIND // 2))
    with contextlib.suppress(ConnectionResetError, BrokenPipeError):
        r.peer.sock.sendall(raw)
    got, ending = read_to_end(r.app)
    assert got in (b"", b"good")
    assert ending == "reset"
    assert_fatal(r)


@pytest.mark.parametrize("bad", AFTER_FIN.values(), ids=AFTER_FIN)
@pytest.mark.parametrize("together", [False, True], ids=["apart", "together"])
def test_what_may_not_follow_fin(rig: MakeRig, bad: Bad, together: bool) -> None:
    r = rig()
    fin = r.peer.sealer.seal(FrameType.FIN)
    if together:
        r.peer.sock.sendall(fin + bad(r.peer.sealer))
        assert read_to_end(r.app)[0] == b""
    else:
        r.peer.sock.sendall(fin)
        assert read_to_end(r.app) == (b"", "eof")
        r.peer.sock.sendall(bad(r.peer.sealer))
    assert_fatal(r)


def test_a_header_is_judged_before_the_frame_is_complete(rig: MakeRig) -> None:
    """Four bytes are enough to know; a peer cannot make an engine wait for a frame that can never be good."""
    for header in (b"\x06\x00\x00\x10", b"\x00\x01\x00\x10", b"\x00\x00\x00\x0f", b"\x00\x00\xff\xfd"):
        r = rig()
        r.peer.sock.sendall(header)
        assert read_to_end(r.app) == (b"", "reset")
        assert_fatal(r)


def test_engines_that_disagree_about_a_key(pair: MakePair) -> None:
    """What one sends, the other must refuse, and neither application takes it for an end."""
    p = pair(disagree=True)
    p.apps[0].sendall(b"secret")
    assert read_to_end(p.apps[1]) == (b"", "reset")
    assert read_to_end(p.apps[0]) == (b"", "reset")
    assert p.ends[1].wait().reason is EndReason.BAD_FRAME
    assert p.ends[0].wait().reason in (EndReason.PEER_RESET, EndReason.TRUNCATED)
