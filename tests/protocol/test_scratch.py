"""The short way of sealing and opening, between an engine's own buffers: it agrees with the long way, or stands aside."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stcp_proxy.errors import CounterExhausted, FrameError, FrameNotAuthentic
from stcp_proxy.protocol.frames import Opener, Scratch, Sealer
from stcp_proxy.protocol.secret import Secret
from stcp_proxy.protocol.wire import FRAME_OVERHEAD, HEADER_LEN, MAX_FRAME, MAX_PLAINTEXT, REKEY_INTERVAL, REKEY_NONCE, FrameType

KEY = Secret(bytes(range(32)))
DATA = FrameType.DATA
CHUNK = 2 * MAX_PLAINTEXT + 100


def filled(raw: bytes | bytearray) -> Scratch:
    """A scratch with `raw` in its source, and rubbish of earlier use everywhere else."""
    scratch = Scratch(CHUNK)
    scratch.source[:] = b"\xaa" * len(scratch.source)
    scratch.result[:] = b"\xbb" * len(scratch.result)
    scratch.source[: len(raw)] = raw
    return scratch


def pattern(size: int) -> bytes:
    return bytes(i % 251 for i in range(size))


@pytest.mark.parametrize("size", [1, 2, 15, 16, 17, 1000, MAX_PLAINTEXT - 1, MAX_PLAINTEXT, MAX_PLAINTEXT + 1, CHUNK])
def test_sealing_agrees(size: int) -> None:
    content = pattern(size)
    sealer = Sealer(KEY, 5)
    assert bytes(sealer.seal_scratch(filled(content), size)) == seal_long_way(content, 5)
    assert sealer.counter == 5 + -(-size // MAX_PLAINTEXT)


def seal_long_way(content: bytes, counter: int) -> bytes:
    sealer = Sealer(KEY, counter)
    return b"".join(sealer.seal(DATA, content[at : at + MAX_PLAINTEXT]) for at in range(0, len(content), MAX_PLAINTEXT))


@pytest.mark.parametrize("size", [1, 2, 15, 16, 17, 1000, MAX_PLAINTEXT - 1, MAX_PLAINTEXT])
def test_opening_agrees(size: int) -> None:
    content = pattern(size)
    raw = Sealer(KEY, 5).seal(DATA, content)
    opener = Opener(KEY, 5)
    opened = opener.open_scratch(filled(raw), len(raw))
    assert opened is not None
    assert bytes(opened) == content
    assert opener.counter == 6


def test_every_size_once_and_again_in_the_same_scratch() -> None:
    """More sizes than the scratch keeps views of, up and down."""
    scratch, there, back = Scratch(CHUNK), Sealer(KEY), Opener(KEY)
    sizes = [*range(1, 1500), *range(1500, 0, -7)]
    for size in sizes:
        scratch.source[:size] = pattern(size)
        raw = bytes(there.seal_scratch(scratch, size))
        assert len(raw) == size + FRAME_OVERHEAD
        scratch.source[: len(raw)] = raw
        opened = back.open_scratch(scratch, len(raw))
        assert opened is not None
        assert bytes(opened) == pattern(size)
    assert there.counter == back.counter == len(sizes)


@pytest.mark.parametrize("before", [2, 1, 0])
def test_across_the_rekey(before: int) -> None:
    counter = REKEY_INTERVAL - before
    short, long, opener = Sealer(KEY, counter), Sealer(KEY, counter), Opener(KEY, counter)
    for n in range(4):
        content = b"frame %d" % n
        raw = bytes(short.seal_scratch(filled(content), len(content)))
        assert raw == long.seal(DATA, content)
        opened = opener.open_scratch(filled(raw), len(raw))
        assert opened is not None
        assert bytes(opened) == content
        assert short.key == long.key == opener.key


def test_the_last_number() -> None:
    sealer, opener = Sealer(KEY, REKEY_NONCE - 1), Opener(KEY, REKEY_NONCE - 1)
    raw = bytes(sealer.seal_scratch(filled(b"last"), 4))
    assert opener.open_scratch(filled(raw), len(raw)) is not None
    for _ in range(2):
        with pytest.raises(CounterExhausted):
            sealer.seal_scratch(filled(b"more"), 4)
        with pytest.raises(CounterExhausted):
            opener.open_scratch(filled(raw), len(raw))


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"\0",
        b"\0\0\0",
        b"\0\0\0\x10",
        Sealer(KEY).seal(DATA),
        Sealer(KEY).seal(DATA, b"cut")[:-1],
        Sealer(KEY).seal(DATA, b"and one byte more") + b"\0",
        Sealer(KEY).seal(DATA, b"two") + Sealer(KEY, 1).seal(DATA, b"of them"),
        *(Sealer(KEY).seal(kind, b"content") for kind in FrameType if kind is not DATA),
        b"\x06" + Sealer(KEY).seal(DATA, b"content")[1:],
        b"\x00\x01" + Sealer(KEY).seal(DATA, b"content")[2:],
        b"\0\0\xff\xff" + bytes(65535),
        b"\0\0\xff\xfd" + bytes(65533),
    ],
    ids=lambda raw: f"{raw[:6].hex()}, {len(raw)} bytes",
)
def test_it_stands_aside(raw: bytes) -> None:
    """For all that is not exactly one DATA frame with content: the long way judges it, and nothing was touched before."""
    opener = Opener(KEY)
    assert opener.open_scratch(filled(raw), len(raw)) is None
    assert opener.counter == 0


def test_every_flipped_bit_is_refused_or_left_to_the_long_way() -> None:
    good = Sealer(KEY).seal(DATA, b"untouched")
    opener = Opener(KEY)
    for at in range(len(good)):
        for bit in range(8):
            raw = bytearray(good)
            raw[at] ^= 1 << bit
            if at < HEADER_LEN:
                assert opener.open_scratch(filled(raw), len(raw)) is None
            else:
                with pytest.raises(FrameNotAuthentic):
                    opener.open_scratch(filled(raw), len(raw))
            assert opener.counter == 0
    assert opener.open_scratch(filled(good), len(good)) is not None


@given(st.binary(max_size=60), st.booleans())
def test_junk_is_judged_alike(junk: bytes, framed: bool) -> None:
    """Whatever the short way opens or refuses, the long way does too."""
    raw = (bytes([0, 0]) + len(junk).to_bytes(2, "big") if framed else b"") + junk
    try:
        opened = Opener(KEY).open_scratch(filled(raw), len(raw))
    except FrameError:
        with pytest.raises(FrameError):
            Opener(KEY).open(raw)
    else:
        assert opened is None


def test_a_chunk_holds_a_frame() -> None:
    with pytest.raises(ValueError, match="at least one frame"):
        Scratch(MAX_FRAME - 1)
    scratch = Scratch(MAX_FRAME)
    raw = Sealer(KEY).seal(DATA, pattern(MAX_PLAINTEXT))
    scratch.source[:] = raw
    opened = Opener(KEY).open_scratch(scratch, len(raw))
    assert opened is not None
    assert bytes(opened) == pattern(MAX_PLAINTEXT)
    scratch.source[:] = pattern(MAX_FRAME)
    assert bytes(Sealer(KEY).seal_scratch(scratch, MAX_FRAME)) == seal_long_way(pattern(MAX_FRAME), 0)
