"""Memory that stalled readers cost: bounded while they stall, returned afterwards.

A connection whose receiver does not read holds the rest of one buffer. The rest is as long as a read was, up to 1 MiB. When all
connections together hold more than a limit, reads become short, so that each further stalled reader holds 64 KiB at most.

The C library keeps freed memory for later. Once most of a large amount is free, it is told to return it to the system.
"""

from __future__ import annotations

import ctypes
from typing import Final

from stcp_proxy.protocol.wire import MAX_FRAME

LIMIT: Final = 64 << 20
"""Bytes of all connections beyond which reads are short, unless the owner of an engine sets another limit."""
SHORT_READ: Final = MAX_FRAME
_RETURN_FROM: Final = 8 << 20
"""Bytes whose release is worth a call of malloc_trim, which takes milliseconds."""


class HeldBytes:
    """Counts the bytes that the connections of one engine hold for stalled readers.

    Args:
        limit: bytes beyond which `crowded` is true.

    Attributes:
        limit: as above; a change counts from the next change of the total on.
        total: bytes that are held.
    """

    __slots__ = ("_peak", "limit", "total")

    def __init__(self, limit: int = LIMIT) -> None:
        self.limit = limit
        self._peak = 0
        self.total = 0

    @property
    def crowded(self) -> bool:
        """Whether further reads are to be short."""
        return self.total > self.limit

    def change(self, difference: int) -> None:
        """Count `difference` bytes more, or less."""
        self.total += difference
        if self.total > self._peak:
            self._peak = self.total
        elif self._peak > _RETURN_FROM and self.total < self._peak // 4:
            self._peak = self.total
            return_memory()


def return_memory() -> None:
    """Return free memory of the C library to the system, where the library can do that."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
