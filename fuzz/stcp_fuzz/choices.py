"""Reads decisions from the bytes of an input. A used-up input gives zeros, so every input means something."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import TypeVar

T = TypeVar("T")


class Choices:
    """The decisions of one input.

    Args:
        data: the input.
    """

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    @property
    def left(self) -> int:
        """Bytes that are not used yet."""
        return len(self._data) - self._at

    def byte(self) -> int:
        """The next byte, or 0."""
        if self._at >= len(self._data):
            return 0
        self._at += 1
        return self._data[self._at - 1]

    def flag(self) -> bool:
        """The lowest bit of the next byte."""
        return bool(self.byte() & 1)

    def number(self) -> int:
        """The next two bytes."""
        return self.byte() << 8 | self.byte()

    def pick(self, options: Sequence[T]) -> T:
        """One of `options`, by the next byte."""
        return options[self.byte() % len(options)]

    def take(self, size: int) -> bytes:
        """Up to `size` bytes."""
        start, self._at = self._at, min(self._at + size, len(self._data))
        return self._data[start : self._at]

    def rest(self) -> bytes:
        """All bytes that are left."""
        return self.take(self.left)

    def pieces(self, data: bytes) -> list[bytes]:
        """`data`, cut in one to eight pieces."""
        cuts = sorted({0, len(data), *(self.number() % (len(data) + 1) for _ in range(self.byte() % 8))})
        return [data[start:end] for start, end in itertools.pairwise(cuts)]

    def changed(self, data: bytes) -> bytes:
        """`data` with up to four changes: a byte flipped, bytes removed, bytes put in, or the end cut off."""
        for _ in range(self.byte() % 5):
            at = self.number() % (len(data) + 1)
            what = self.byte()
            if what < 128:
                data = data[:at] + bytes([data[at] ^ (what or 1)]) + data[at + 1 :] if at < len(data) else data
            elif what < 160:
                data = data[:at] + data[at + what - 127 :]
            elif what < 192:
                data = data[:at] + self.take(what - 159) + data[at:]
            else:
                data = data[:at]
        return data
