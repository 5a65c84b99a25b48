"""Write log lines to standard error, without waiting for its reader.

A reader that does not read (a stuck pipe, a stopped terminal, a hanging log collector) must not stop the connections of this
process. So a line that cannot be written at once is dropped and counted. The count is logged when the reader continues.

A pipe and a terminal are reopened through /proc/self/fd, because O_NONBLOCK on the inherited descriptor would affect every
process that shares it. A socket takes each line with MSG_DONTWAIT. When a pipe cannot be reopened, poll tells whether it has
room. Another writer may take that room first; only in this case a write can still wait.
"""

from __future__ import annotations

import contextlib
import io
import os
import select
import socket
import stat
import threading
from collections.abc import Callable
from typing import Final, TextIO

Write = Callable[[bytes], int]
"""Writes as much as there is room for and returns the number of bytes. Raises BlockingIOError when there is no room."""

_ROOM: Final = select.PIPE_BUF
"""The room of a pipe, in bytes, when poll reports it as writable."""


class Output:
    """A file for log lines. No method raises, and `write` never waits.

    Args:
        file: the file, usually standard error; None when the process began without standard error.
        on_resumed: called with the number of dropped lines before the first line after a drop.

    Attributes:
        dropped: the number of lines dropped since the start.
    """

    def __init__(self, file: TextIO | None, on_resumed: Callable[[int], None] | None = None) -> None:
        self.dropped = 0
        self._file = file
        self._on_resumed = on_resumed
        self._write_some: Write | None = None
        self._opened: int | None = None
        self._rest = b""
        """The remainder of a partly written line."""
        self._unreported = 0
        self._lock = threading.RLock()
        """Held while a line is written. The same thread writes the report of dropped lines during that time."""

    def isatty(self) -> bool:
        """Whether the file is a terminal."""
        return self._file is not None and not self._file.closed and self._file.isatty()

    def close(self) -> None:
        """Close the reopened descriptor. The file itself stays open."""
        if self._opened is not None:
            os.close(self._opened)
            self._opened = None

    def flush(self) -> None:
        """Do nothing: every line is written at once or dropped."""

    def write(self, text: str) -> None:
        """Write one line, or drop it."""
        with self._lock:
            self._write_or_drop(text)

    def _write_or_drop(self, text: str) -> None:
        try:
            if self._write_some is None:
                self._write_some = self._writer()
            if self._unreported:
                self._wait_for_room()
            self._finish_line()
            if self._unreported and self._on_resumed is not None:
                self._report()
            self._begin_line(text.encode("utf-8", "backslashreplace"))
        except BlockingIOError:
            self.dropped += 1
            self._unreported += 1
        except BrokenPipeError:
            self._write_some = len  # the reader has ended for good
        except (OSError, ValueError):  # a full disk, a closed file: drop this line, but try the next one
            self._rest = b""

    def _wait_for_room(self) -> None:
        """After a drop, wait until there is room for several lines. Otherwise each short line would cause a report."""
        assert self._file is not None  # noqa: S101  (without a file nothing is dropped)
        if not _has_room(self._file.fileno()):
            raise BlockingIOError

    def _finish_line(self) -> None:
        while self._rest:
            self._rest = self._rest[self._write(self._rest) :]

    def _report(self) -> None:
        count, self._unreported = self._unreported, 0
        before = self.dropped
        assert self._on_resumed is not None  # noqa: S101
        self._on_resumed(count)  # this writes a line itself, which may be dropped as well
        if self.dropped > before:
            self._unreported = count

    def _begin_line(self, line: bytes) -> None:
        self._rest = line[self._write(line) :]
        with contextlib.suppress(BlockingIOError):
            self._finish_line()

    def _write(self, data: bytes) -> int:
        assert self._write_some is not None  # noqa: S101
        return self._write_some(data)

    def _writer(self) -> Write:
        """The way to write to the file without waiting."""
        file = self._file
        if file is None:
            return len
        try:
            fd = file.fileno()
        except io.UnsupportedOperation:  # a file in memory
            return lambda data: len(data) if file.write(data.decode()) else 0
        mode = os.fstat(fd).st_mode
        if stat.S_ISSOCK(mode):
            return lambda data: _send(fd, data)
        if stat.S_ISFIFO(mode) or stat.S_ISCHR(mode):
            with contextlib.suppress(OSError):
                again = os.open(f"/proc/self/fd/{fd}", os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
                self._opened = again
                return lambda data: os.write(again, data)
            return lambda data: _write_after_poll(fd, data)
        return lambda data: os.write(fd, data)


def _send(fd: int, data: bytes) -> int:
    sock = socket.socket(fileno=fd)
    try:
        return sock.send(data, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
    finally:
        sock.detach()


def _write_after_poll(fd: int, data: bytes) -> int:
    if not _has_room(fd):
        raise BlockingIOError
    return os.write(fd, data[:_ROOM])


def _has_room(fd: int) -> bool:
    poll = select.poll()
    poll.register(fd, select.POLLOUT)
    return bool(poll.poll(0))
