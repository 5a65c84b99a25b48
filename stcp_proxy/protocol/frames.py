"""One direction of frames: `Sealer` writes them, `Opener` reads them (PROTOCOL.md section 2).

    type (u8) ‖ 0 (u8) ‖ length (u16) ‖ ciphertext ‖ tag (16)

Each owns the key and the counter of its direction. It checks the counter before use, makes the rekeys, and ends the session at
the counter's limit: 2^64-2 is the last number of a frame, because 2^64-1 belongs to REKEY. Both read from and write to buffers of
the caller, so that no chunk of data costs an allocation.
"""

from __future__ import annotations

import mmap
import struct
from typing import ClassVar, Final, TypeAlias

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from stcp_proxy.errors import CounterExhausted, FrameError, FrameNotAuthentic
from stcp_proxy.protocol.secret import Secret
from stcp_proxy.protocol.wire import (
    FRAME_OVERHEAD,
    HEADER_LEN,
    KEY_LEN,
    MAX_FRAME,
    MAX_LENGTH,
    MAX_PLAINTEXT,
    MIN_LENGTH,
    NONCE_LEN,
    REKEY_INTERVAL,
    REKEY_NONCE,
    TAG_LEN,
    FrameType,
)

_HEADER: Final = struct.Struct(">BBH")
_DATA_HEADER: Final = struct.Struct(">I")
"""The header of a DATA frame is its length, as type and reserved byte are zero."""
_DATA: Final = int(FrameType.DATA)
_REKEY_NONCE: Final = REKEY_NONCE.to_bytes(NONCE_LEN, "big")

Buffer: TypeAlias = bytes | bytearray | memoryview


class Scratch:
    """Two buffers for sealing and opening frames, and the slices of them for each size.

    For a small frame, slicing a memoryview costs a quarter of the cipher's time. So the slices are kept by size.

    Args:
        chunk: size of `source` in bytes, at least MAX_FRAME.

    Attributes:
        source: the input: plaintext to seal, or frames to open.
        result: the output: frames, or plaintext.
    """

    __slots__ = ("open_views", "result", "result_head", "seal_views", "source", "source_head")
    _MOST_SIZES: Final = 1024

    def __init__(self, chunk: int) -> None:
        if chunk < MAX_FRAME:
            raise ValueError("a chunk holds at least one frame")
        self.source: Final = memoryview(_pages(chunk))
        self.result: Final = memoryview(_pages(max(chunk, sealed_size(chunk))))
        self.source_head: Final = self.source[:HEADER_LEN]
        self.result_head: Final = self.result[:HEADER_LEN]
        self.seal_views: Final[dict[int, tuple[memoryview, memoryview, memoryview]]] = {}
        self.open_views: Final[dict[int, tuple[memoryview, memoryview]]] = {}

    def for_sealing(self, size: int) -> tuple[memoryview, memoryview, memoryview]:
        """Plaintext of `size` bytes in `source`; ciphertext with tag, and the whole frame, in `result`."""
        if len(self.seal_views) >= self._MOST_SIZES:
            self.seal_views.clear()
        end = size + FRAME_OVERHEAD
        views = self.seal_views[size] = (self.source[:size], self.result[HEADER_LEN:end], self.result[:end])
        return views

    def for_opening(self, size: int) -> tuple[memoryview, memoryview]:
        """Ciphertext and tag of a frame of `size` bytes in `source`; its plaintext in `result`."""
        if len(self.open_views) >= self._MOST_SIZES:
            self.open_views.clear()
        views = self.open_views[size] = (self.source[HEADER_LEN:size], self.result[: size - FRAME_OVERHEAD])
        return views


def _pages(size: int) -> mmap.mmap:
    """A buffer that takes memory only where it has been used. A bytearray would be written to at once."""
    return mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)


class CipherDirection:
    """Key and counter of one direction.

    Args:
        key: the key in force for the frame before `counter`.
        counter: number of the next frame. At a positive multiple of 2^20, the rekey before this frame is still to be made.
    """

    __slots__ = ("_aead", "_check_at", "_key", "_n")

    def __init__(self, key: Secret, counter: int = 0) -> None:
        if not 0 <= counter <= REKEY_NONCE:
            raise ValueError("a counter has 64 bits")
        self._key = key
        self._aead: AESGCM = key.cipher or cipher_of(key)
        self._n = counter
        # The next counter at which something is due: a rekey, or the end. Checked with one comparison for every frame.
        self._check_at = REKEY_INTERVAL
        if counter > REKEY_INTERVAL:
            self._check_at = min(-(-counter // REKEY_INTERVAL) * REKEY_INTERVAL, REKEY_NONCE)

    @property
    def counter(self) -> int:
        """Number of the next frame."""
        return self._n

    @property
    def key(self) -> Secret:
        """The key in force for the frame before `counter`."""
        return self._key

    def next_connection(self) -> None:
        """Rekey at the boundary between two connections of a kept leg (PROTOCOL.md section 7). The counter goes on.

        A rekey that is due by the counter is made later, before the next frame.
        """
        self._replace_key(rekeyed(self._key))

    def _due(self) -> None:
        """Rekey before frame `counter`, or end the direction."""
        if self._n >= REKEY_NONCE:
            raise CounterExhausted("this direction has used every frame number it may use", remedy="open a new connection")
        self._replace_key(rekeyed(self._key))
        self._check_at = min(self._n + REKEY_INTERVAL, REKEY_NONCE)

    def _replace_key(self, key: Secret) -> None:
        self._key = key
        self._aead = cipher_of(key)


def cipher_of(key: Secret) -> AESGCM:
    """The cipher with this key. It is made once and stays with the key, which goes from object to object."""
    cipher: AESGCM | None = key.cipher
    if cipher is None:
        cipher = key.cipher = AESGCM(key.reveal())
    return cipher


def rekeyed(key: Secret) -> Secret:
    """REKEY of the Noise specification, section 4.2: the key that replaces `key`."""
    return Secret(cipher_of(key).encrypt(_REKEY_NONCE, bytes(KEY_LEN), None)[:KEY_LEN])


def key_at(key: Secret, counter: int, later: int) -> Secret:
    """Derive a direction's key at a later counter, when an engine that never hands out keys has used the direction.

    Args:
        key: the key in force for the frame before `counter`.
        counter: the counter at the handover to the engine.
        later: the counter that the engine reports, at least `counter`.

    Returns:
        The key in force for the frame before `later`.
    """
    if not 0 <= counter <= later <= REKEY_NONCE:
        raise ValueError(f"a counter does not go from {counter} to {later}")
    first = -(-max(counter, 1) // REKEY_INTERVAL) * REKEY_INTERVAL
    for _ in range(first, later, REKEY_INTERVAL):
        key = rekeyed(key)
    return key


class Sealer(CipherDirection):
    """Writes the frames of one direction."""

    __slots__ = ()

    def seal_into(self, kind: int, plaintext: Buffer, out: memoryview) -> int:
        """Seal one frame.

        Args:
            kind: a FrameType.
            plaintext: at most MAX_PLAINTEXT bytes.
            out: buffer for the frame, at least FRAME_OVERHEAD bytes longer than `plaintext`, and not overlapping it.

        Returns:
            Length of the frame in bytes.

        Raises:
            CounterExhausted: no number is left.
        """
        size = len(plaintext)
        if size > MAX_PLAINTEXT:
            raise ValueError(f"a frame carries at most {MAX_PLAINTEXT} bytes, not {size}")
        n = self._n
        if n >= self._check_at:
            self._due()
        end = size + FRAME_OVERHEAD
        _HEADER.pack_into(out, 0, kind, 0, size + TAG_LEN)
        self._aead.encrypt_into(n.to_bytes(NONCE_LEN, "big"), plaintext, out[:HEADER_LEN], out[HEADER_LEN:end])
        self._n = n + 1
        return end

    def seal(self, kind: int, plaintext: Buffer = b"") -> bytes:
        """Seal one frame into new bytes. Use this for frames outside the stream of data."""
        out = bytearray(len(plaintext) + FRAME_OVERHEAD)
        self.seal_into(kind, plaintext, memoryview(out))
        return bytes(out)

    def seal_scratch(self, scratch: Scratch, size: int) -> memoryview:
        """Seal the first `size` bytes of `scratch.source` as one DATA frame, or as several when one is too small.

        Args:
            scratch: buffers; the frames are written to `scratch.result`.
            size: at least one byte.

        Returns:
            The frames: a view of `scratch.result`, valid until the next call.

        Raises:
            CounterExhausted: no number is left.
        """
        if size > MAX_PLAINTEXT:
            sealed = self.seal_data(scratch.source[:size], scratch.result)
            return scratch.result[:sealed]
        n = self._n
        if n >= self._check_at:
            self._due()
        plaintext, body, frame = scratch.seal_views.get(size) or scratch.for_sealing(size)
        _DATA_HEADER.pack_into(scratch.result_head, 0, size + TAG_LEN)
        self._aead.encrypt_into(n.to_bytes(NONCE_LEN, "big"), plaintext, scratch.result_head, body)
        self._n = n + 1
        return frame

    def seal_data(self, data: memoryview, out: memoryview) -> int:
        """Seal `data` as one DATA frame, or as several when one is too small.

        Args:
            data: at least one byte.
            out: at least `sealed_size(len(data))` long, not overlapping `data`.

        Returns:
            Bytes written to `out`.

        Raises:
            CounterExhausted: no number is left.
        """
        at = 0
        for start in range(0, len(data), MAX_PLAINTEXT):
            at += self.seal_into(_DATA, data[start : start + MAX_PLAINTEXT], out[at:])
        return at


def sealed_size(size: int) -> int:
    """Bytes on the wire for `size` bytes of data in full frames."""
    return size + -(-size // MAX_PLAINTEXT) * FRAME_OVERHEAD


class Opener(CipherDirection):
    """Reads the frames of one connection in one direction.

    A frame type above `last_type` is refused by its header. BYE is one of them: it belongs to no connection, and `leg` reads it.
    """

    __slots__ = ()
    last_type: ClassVar[FrameType] = FrameType.REJECT

    def open_into(self, data: memoryview, out: memoryview) -> tuple[int, int, int] | None:
        """Open the frame at the beginning of `data`.

        Args:
            data: bytes from the wire, of any length.
            out: buffer for the plaintext, at least MAX_PLAINTEXT long or as long as `data`. After an exception its content is
                undefined.

        Returns:
            (bytes of `data` used, frame type, length of the plaintext), or None while the frame is incomplete. The type is a
            FrameType. The caller checks whether the type may come now.

        Raises:
            FrameError: the format does not allow the header. It is checked as soon as its four bytes are there.
            FrameNotAuthentic: the tag failed.
            CounterExhausted: no number is left.
        """
        if len(data) < HEADER_LEN:
            return None
        kind, reserved, length = _HEADER.unpack_from(data)
        if reserved or kind > self.last_type or not MIN_LENGTH <= length <= MAX_LENGTH:
            raise _bad_header(kind, reserved, length)
        used = length + HEADER_LEN
        if len(data) < used:
            return None
        n = self._n
        if n >= self._check_at:
            self._due()
        size = length - TAG_LEN
        try:
            nonce = n.to_bytes(NONCE_LEN, "big")
            self._aead.decrypt_into(nonce, data[HEADER_LEN:used], data[:HEADER_LEN], out[:size])
        except InvalidTag:
            raise _not_authentic(n) from None
        self._n = n + 1
        return used, kind, size

    def open_scratch(self, scratch: Scratch, size: int) -> memoryview | None:
        """Open the first `size` bytes of `scratch.source` if they are exactly one DATA frame with content.

        Returns:
            The plaintext, a view of `scratch.result` valid until the next call; None when the caller has to use `open_into`.

        Raises:
            FrameNotAuthentic, CounterExhausted: as `open_into`.
        """
        if not FRAME_OVERHEAD < size <= MAX_FRAME or _DATA_HEADER.unpack_from(scratch.source_head)[0] != size - HEADER_LEN:
            return None
        n = self._n
        if n >= self._check_at:
            self._due()
        body, plaintext = scratch.open_views.get(size) or scratch.for_opening(size)
        try:
            self._aead.decrypt_into(n.to_bytes(NONCE_LEN, "big"), body, scratch.source_head, plaintext)
        except InvalidTag:
            raise _not_authentic(n) from None
        self._n = n + 1
        return plaintext

    def open(self, data: Buffer) -> tuple[int, int, bytes] | None:
        """`open_into` with new bytes for the plaintext: (bytes used, frame type, plaintext)."""
        view = memoryview(data)
        out = bytearray(min(len(view), MAX_PLAINTEXT))
        opened = self.open_into(view, memoryview(out))
        if opened is None:
            return None
        used, kind, size = opened
        return used, kind, bytes(out[:size])


def begins_with_frame(data: Buffer) -> bool:
    """Whether `data` holds at least one frame to its end."""
    return len(data) >= HEADER_LEN and len(data) >= HEADER_LEN + int.from_bytes(data[2:HEADER_LEN], "big")


def _not_authentic(n: int) -> FrameNotAuthentic:
    return FrameNotAuthentic(
        f"frame {n} did not authenticate: bytes changed on the way", remedy="look for what rewrites the wire leg"
    )


def _bad_header(kind: int, reserved: int, length: int) -> FrameError:
    if reserved:
        return FrameError("a frame header has a reserved byte that is not zero")
    if not MIN_LENGTH <= length <= MAX_LENGTH:
        return FrameError(f"a frame of length {length}, outside {MIN_LENGTH} to {MAX_LENGTH}")
    return FrameError(f"a frame of unknown type {kind}")
