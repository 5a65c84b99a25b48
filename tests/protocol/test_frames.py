"""Frames of one direction: cuts, rekeys, the last counter, and refused frames."""

from __future__ import annotations

import itertools

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import given
from hypothesis import strategies as st

from stcp_proxy.errors import CounterExhausted, FrameError, FrameNotAuthentic
from stcp_proxy.protocol.frames import Opener, Sealer, sealed_size
from stcp_proxy.protocol.secret import Secret
from stcp_proxy.protocol.wire import (
    FRAME_OVERHEAD,
    HEADER_LEN,
    MAX_FRAME,
    MAX_LENGTH,
    MAX_PLAINTEXT,
    MIN_LENGTH,
    REKEY_INTERVAL,
    REKEY_NONCE,
    TAG_LEN,
    FrameType,
)

KEY = Secret(bytes(range(32)))
DATA = FrameType.DATA

OF_A_CONNECTION = [kind for kind in FrameType if kind is not FrameType.BYE]
FRAMES = st.lists(st.tuples(st.sampled_from(OF_A_CONNECTION), st.binary(max_size=60)), max_size=8)


def reference_rekey(key: bytes) -> bytes:
    """REKEY, straight from the specification."""
    return AESGCM(key).encrypt(bytes(4) + b"\xff" * 8, bytes(32), b"")[:32]


def reference_seal(key: bytes, counter: int, kind: int, content: bytes) -> bytes:
    header = bytes([kind, 0]) + (len(content) + 16).to_bytes(2, "big")
    return header + AESGCM(key).encrypt(bytes(4) + counter.to_bytes(8, "big"), content, header)


def open_all(opener: Opener, raw: bytes) -> tuple[list[tuple[int, bytes]], bytes]:
    """Every whole frame at the beginning of `raw`, and the bytes after them."""
    frames = []
    while (opened := opener.open(raw)) is not None:
        used, kind, content = opened
        frames.append((kind, content))
        raw = raw[used:]
    return frames, raw


# -- whole, byte by byte, cut anywhere -------------------------------------------------------------------------------------


@given(FRAMES, st.lists(st.integers(0, 700), max_size=10), st.integers(0, 3))
def test_cut_anywhere(frames: list[tuple[FrameType, bytes]], cuts: list[int], before_rekey: int) -> None:
    counter = REKEY_INTERVAL - before_rekey
    sealer, opener = Sealer(KEY, counter), Opener(KEY, counter)
    raw = b"".join(sealer.seal(kind, content) for kind, content in frames)
    edges = sorted({0, len(raw), *(min(cut, len(raw)) for cut in cuts)})
    got: list[tuple[int, bytes]] = []
    rest = b""
    for start, end in itertools.pairwise(edges):
        more, rest = open_all(opener, rest + raw[start:end])
        got += more
    assert got == frames
    assert rest == b""
    assert opener.counter == sealer.counter == counter + len(frames)
    assert opener.key == sealer.key


def test_byte_by_byte() -> None:
    sealer, opener = Sealer(KEY), Opener(KEY)
    for content in (b"", b"x", b"some more"):
        raw = sealer.seal(DATA, content)
        for end in range(len(raw)):
            assert opener.open(raw[:end]) is None
            assert opener.counter == sealer.counter - 1
        assert opener.open(raw) == (len(raw), DATA, content)


@given(FRAMES, st.binary(max_size=40))
def test_a_valid_prefix_followed_by_junk(frames: list[tuple[FrameType, bytes]], junk: bytes) -> None:
    """All good frames are opened. The junk is refused or needs more bytes, and nothing else is raised."""
    sealer, opener = Sealer(KEY), Opener(KEY)
    raw = b"".join(sealer.seal(kind, content) for kind, content in frames) + junk
    got: list[tuple[int, bytes]] = []
    try:
        while (opened := opener.open(raw)) is not None:
            used, kind, content = opened
            got.append((kind, content))
            raw = raw[used:]
    except FrameError:
        pass
    assert got == frames
    assert raw == junk


@pytest.mark.parametrize("size", [0, 1, 15, 16, 17, MAX_PLAINTEXT - 1, MAX_PLAINTEXT])
def test_sizes(size: int) -> None:
    raw = Sealer(KEY).seal(DATA, bytes(size))
    assert len(raw) == size + FRAME_OVERHEAD
    assert len(raw) <= MAX_FRAME
    assert Opener(KEY).open(raw) == (len(raw), DATA, bytes(size))


def test_a_plaintext_above_the_largest_size_is_refused() -> None:
    sealer = Sealer(KEY)
    for content in (bytes(MAX_PLAINTEXT + 1), bytes(1 << 20)):
        with pytest.raises(ValueError, match="at most 65516"):
            sealer.seal(DATA, content)
    assert sealer.counter == 0
    assert Opener(KEY).open(sealer.seal(DATA, b"fine")) == (24, DATA, b"fine")


@pytest.mark.parametrize("size", [1, MAX_PLAINTEXT, MAX_PLAINTEXT + 1, 3 * MAX_PLAINTEXT, 3 * MAX_PLAINTEXT + 7])
def test_data_longer_than_a_frame_becomes_full_frames(size: int) -> None:
    data = bytes(i % 251 for i in range(size))
    out = bytearray(sealed_size(size))
    assert Sealer(KEY).seal_data(memoryview(data), memoryview(out)) == len(out)
    frames, rest = open_all(Opener(KEY), bytes(out))
    assert rest == b""
    assert b"".join(content for _, content in frames) == data
    assert {kind for kind, _ in frames} == {DATA}
    assert [len(content) for _, content in frames[:-1]] == [MAX_PLAINTEXT] * (len(frames) - 1)


# -- refused ---------------------------------------------------------------------------------------------------------------


def test_every_header_is_judged_by_its_four_bytes() -> None:
    """Type, reserved byte and length have bounds. The four bytes of the header are enough to refuse it."""
    lengths = [0, 1, MIN_LENGTH - 1, MIN_LENGTH, MIN_LENGTH + 1, 1000, MAX_LENGTH - 1, MAX_LENGTH, MAX_LENGTH + 1, 65535]
    for kind, reserved, length in itertools.product(range(256), (0, 1, 2, 128, 255), lengths):
        header = bytes([kind, reserved]) + length.to_bytes(2, "big")
        if kind <= 5 and reserved == 0 and 16 <= length <= 65532:
            assert Opener(KEY).open(header) is None
        else:
            with pytest.raises(FrameError):
                Opener(KEY).open(header)


def test_every_flipped_bit_is_refused_and_changes_nothing() -> None:
    good = Sealer(KEY, 3).seal(DATA, b"untouched")
    opener = Opener(KEY, 3)
    out = bytearray(MAX_PLAINTEXT)
    for at, bit in itertools.product(range(len(good)), range(8)):
        raw = bytearray(good)
        raw[at] ^= 1 << bit
        raw += bytes(MAX_FRAME)  # enough for any length after the flip
        with pytest.raises(FrameError):
            opener.open_into(memoryview(raw), memoryview(out))
        assert opener.counter == 3
    assert opener.open(good) == (len(good), DATA, b"untouched")


def test_a_bad_frame_at_the_rekey_does_not_disturb_the_good_one() -> None:
    good = Sealer(KEY, REKEY_INTERVAL).seal(DATA, b"good")
    opener = Opener(KEY, REKEY_INTERVAL)
    for _ in range(3):
        with pytest.raises(FrameNotAuthentic):
            opener.open(good[:-1] + bytes([good[-1] ^ 1]))
    assert opener.open(good) == (len(good), DATA, b"good")
    assert opener.key == Secret(reference_rekey(KEY.reveal()))


def test_replayed_dropped_swapped_and_reflected_frames() -> None:
    sealer = Sealer(KEY)
    a, b, c = (sealer.seal(DATA, content) for content in (b"a", b"b", b"c"))
    other = Sealer(Secret(bytes(32))).seal(DATA, b"a")
    for stream in (a + a, a + c, b, a + b + a, other):
        opener = Opener(KEY)
        with pytest.raises(FrameNotAuthentic):
            open_all(opener, stream)
    assert open_all(Opener(KEY), a + b + c) == ([(DATA, b"a"), (DATA, b"b"), (DATA, b"c")], b"")


def test_nothing_that_failed_is_returned() -> None:
    raw = Sealer(KEY).seal(DATA, b"secret words")
    with pytest.raises(FrameNotAuthentic) as caught:
        Opener(KEY).open(raw[:-1] + b"\0")
    assert "secret" not in str(caught.value)
    assert caught.value.__cause__ is None


# -- rekey -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("interval", [1, 2, 4096, 2**30])
@pytest.mark.parametrize("before", [2, 1, 0])
def test_across_the_rekey(interval: int, before: int) -> None:
    counter = interval * REKEY_INTERVAL - before
    sealer, opener = Sealer(KEY, counter), Opener(KEY, counter)
    key = KEY.reveal()
    for n in range(counter, counter + 4):
        if n % REKEY_INTERVAL == 0:
            key = reference_rekey(key)
        raw = sealer.seal(DATA, b"frame %d" % n)
        assert raw == reference_seal(key, n, DATA, b"frame %d" % n)
        assert opener.open(raw) == (len(raw), DATA, b"frame %d" % n)
        assert sealer.key == opener.key == Secret(key)
        assert sealer.counter == opener.counter == n + 1


def test_there_is_no_rekey_before_the_first_frame() -> None:
    assert Sealer(KEY).seal(DATA, b"x") == reference_seal(KEY.reveal(), 0, DATA, b"x")


def test_two_rekeys_in_one_life() -> None:
    """The second rekey follows from the first. The test sets the counter forward between the two."""
    sealer = Sealer(KEY, REKEY_INTERVAL - 1)
    sealer.seal(DATA)
    sealer.seal(DATA)
    once = reference_rekey(KEY.reveal())
    assert sealer.key == Secret(once)
    sealer._n = 2 * REKEY_INTERVAL - 1
    assert sealer.seal(DATA) == reference_seal(once, 2 * REKEY_INTERVAL - 1, DATA, b"")
    assert sealer.seal(DATA) == reference_seal(reference_rekey(once), 2 * REKEY_INTERVAL, DATA, b"")


@pytest.mark.parametrize("at", range(REKEY_INTERVAL - 2, REKEY_INTERVAL + 3))
def test_a_handover_at_any_frame_changes_nothing(at: int) -> None:
    """`key` and `counter` at a frame boundary are enough to continue: before, at and after the rekey."""
    whole = Sealer(KEY, REKEY_INTERVAL - 2)
    first = [whole.seal(DATA, b"%d" % n) for n in range(REKEY_INTERVAL - 2, at)]
    second = Sealer(whole.key, whole.counter)
    opener = Opener(KEY, REKEY_INTERVAL - 2)
    for raw in first:
        opener.open(raw)
    opener = Opener(opener.key, opener.counter)
    for n in range(at, at + 4):
        raw = second.seal(DATA, b"%d" % n)
        assert raw == whole.seal(DATA, b"%d" % n)
        assert opener.open(raw) == (len(raw), DATA, b"%d" % n)


# -- the last number ---------------------------------------------------------------------------------------------------------


def test_the_counter_ends_before_the_number_of_rekey() -> None:
    sealer, opener = Sealer(KEY, REKEY_NONCE - 2), Opener(KEY, REKEY_NONCE - 2)
    for content in (b"last but one", b"last"):
        raw = sealer.seal(DATA, content)
        assert opener.open(raw) == (len(raw), DATA, content)
    assert sealer.counter == opener.counter == 2**64 - 1
    after = reference_seal(sealer.key.reveal(), 2**64 - 1, DATA, b"x")
    for _ in range(2):
        with pytest.raises(CounterExhausted):
            sealer.seal(DATA, b"one too many")
        with pytest.raises(CounterExhausted):
            opener.open(after)
    assert sealer.counter == opener.counter == 2**64 - 1


@pytest.mark.parametrize("counter", [-1, 2**64, 2**70])
def test_invalid_counters(counter: int) -> None:
    for direction in (Sealer, Opener):
        with pytest.raises(ValueError, match="64 bits"):
            direction(KEY, counter)


# -- buffers of the caller's -------------------------------------------------------------------------------------------------


def test_open_into_uses_exactly_what_it_says() -> None:
    raw = Sealer(KEY).seal(DATA, b"content")
    out = bytearray(b"\xaa" * 20)
    assert Opener(KEY).open_into(memoryview(raw + b"behind"), memoryview(out)) == (len(raw), DATA, 7)
    assert out == b"content" + b"\xaa" * 13


def test_seal_into_uses_exactly_what_it_says() -> None:
    out = bytearray(b"\xaa" * 40)
    assert Sealer(KEY).seal_into(DATA, b"content", memoryview(out)) == HEADER_LEN + 7 + TAG_LEN
    assert out[27:] == b"\xaa" * 13
    assert Opener(KEY).open(bytes(out[:27])) == (27, DATA, b"content")
