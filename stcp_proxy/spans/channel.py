"""The channel from the processes that serve to the exporter: a pipe that never lets a connection wait.

Worker processes share the pipe. A record is one line of JSON of at most PIPE_BUF bytes, which the kernel writes whole or not at
all. So records never mix, and a full pipe is seen at once: the record is dropped and counted. A pipe of 1 MiB holds some 1,500
records, which is the time for which a collector may stand still before spans are lost.

Invariants:
- The end for writing never blocks, in any process.
- The parent keeps the end for reading open: an exporter that ends takes no record in the pipe with it, and no process gets EPIPE.
- The exporter reads the end of the file when every process that serves has closed its end for writing.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import random
import select
from typing import Any, Final

from stcp_proxy.spans import counts

CAPACITY: Final = 1 << 20
"""Bytes that the pipe holds, where the system allows as much (/proc/sys/fs/pipe-max-size)."""
MOST: Final = select.PIPE_BUF
"""The largest record in bytes."""
_F_SETPIPE_SZ: Final = 1031
_ALL: Final = 1 << 64


class Channel:
    """Both ends of the pipe, and the counts that the exporter writes.

    Attributes:
        dropped: records of this process that found no room.
    """

    def __init__(self) -> None:
        self.dropped = 0
        self.reader, self._writer = os.pipe2(os.O_CLOEXEC)
        os.set_blocking(self._writer, False)  # the reader has an open file of its own, and may wait
        with contextlib.suppress(OSError):
            fcntl.fcntl(self._writer, _F_SETPIPE_SZ, CAPACITY)
        self.counts: Final = counts.make()
        self._below = _ALL

    def sample(self, share: float) -> None:
        """Choose this share of connections from now on."""
        self._below = round(share * _ALL)

    def wants(self, channel: str) -> bool:
        """Whether a connection makes a span. Both sides of a connection choose by its channel id, so they choose alike.

        Args:
            channel: the channel id; empty before a handshake.
        """
        if self._below >= _ALL:
            return True
        number = int(channel, 16) if channel else random.getrandbits(64)
        return number < self._below

    def offer(self, record: dict[str, Any]) -> None:
        """Give a record to the exporter, or drop it. Never waits."""
        line = json.dumps(record, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "backslashreplace") + b"\n"
        try:
            if len(line) > MOST:
                raise BlockingIOError
            os.write(self._writer, line)
        except OSError:
            self.dropped += 1

    @property
    def results(self) -> counts.Counts:
        """What became of the records of all processes that share the channel."""
        return counts.read(self.counts)

    def close_reader(self) -> None:
        """Close the end for reading, in a process that serves and does not look after the exporter."""
        self.reader = _closed(self.reader)

    def close_writer(self) -> None:
        """Close the end for writing, in a process that does not serve, or at the end."""
        self._writer = _closed(self._writer)

    def close(self) -> None:
        """Close both ends. The counts can still be read."""
        self.close_reader()
        self.close_writer()


def _closed(fd: int) -> int:
    if fd >= 0:
        os.close(fd)
    return -1
