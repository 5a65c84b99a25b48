"""How many records the exporter has taken, and what became of them: 24 bytes in memory that two processes share.

The exporter alone writes. It may be killed at any time: the next one counts what it had taken and not finished as lost.
"""

from __future__ import annotations

import os
import struct
from typing import NamedTuple

_FORM = struct.Struct("<QQQ")


class Counts(NamedTuple):
    """Counts of the exporters of one proxy since its start.

    Attributes:
        taken: records that were read from the channel.
        exported: spans that the collector has accepted.
        failed: spans that the collector has not accepted, or that ended with the exporter.
    """

    taken: int = 0
    exported: int = 0
    failed: int = 0


def make() -> int:
    """A descriptor of new counts, all zero."""
    fd = os.memfd_create("stcp-spans", os.MFD_CLOEXEC)
    os.pwrite(fd, _FORM.pack(*Counts()), 0)
    return fd


def read(fd: int) -> Counts:
    """The counts now."""
    data = os.pread(fd, _FORM.size, 0)
    return Counts(*_FORM.unpack(data)) if len(data) == _FORM.size else Counts()


def write(fd: int, counts: Counts) -> None:
    """Replace the counts."""
    os.pwrite(fd, _FORM.pack(*counts), 0)
