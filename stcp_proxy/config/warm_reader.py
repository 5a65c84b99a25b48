"""The process that reads configuration files for reloads, kept for a while: the next reload then needs no imports.

A reload starts this process, which takes half a second of imports. It stays for `LINGER` seconds after each reload, so that files
that change again and again are read at once, and then ends. A proxy at rest has no such process.

Invariants:
- The process itself reads no file. It forks a child for each reload, from the state after the imports, and the child ends after
  its answer. So nothing of an older file is left: no content, no cache, no secret.
- It is a new program, not a fork of the serving process. It inherits the sandbox, and has no secret and no socket of a tunnel.
- Its program on disk, environment, folder and user are those of the serving process at the time of the reload. Where they differ,
  a new process is started.
- It ends when the serving process ends or closes the control socket, and so does its child.

On the control socket (SOCK_SEQPACKET) a message is the request as JSON, with two pipes as descriptors: for the answer and for
standard error. End of file on both pipes is the end of the answer, so a reading that fails half-way cannot disturb the next one.
`reader_loop` is the other side.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from typing import Any, BinaryIO, Final

LINGER: Final = 10.0
"""Seconds that the process waits for the next reload."""

_PROGRAM: Final = """\
import json, signal, sys
signal.pthread_sigmask(signal.SIG_SETMASK, ())
sys.path[:] = json.loads(sys.argv[1])
from stcp_proxy.config import reader_loop
reader_loop.serve(float(sys.argv[2]))
"""


class Reading:
    """One reading that is under way. Without `finish`, it is abandoned, and its process ends."""

    def __init__(self, readers: Readers, reader: _Reader, answer: BinaryIO, words: BinaryIO) -> None:
        self._readers, self._reader, self._answer, self._words = readers, reader, answer, words

    def finish(self) -> tuple[bytes, str]:
        """Wait for the end of the reading. Call this in a thread.

        Returns:
            The answer, and the text on standard error.
        """
        with self._answer, self._words:
            found = _read_all(self._answer, self._words)
        self._readers.give_back(self._reader)
        return found[0], found[1].decode("utf-8", "replace")


class Readers:
    """Starts the process that reads files, or takes the one that waits.

    Args:
        linger: seconds that it waits for the next reading.
    """

    def __init__(self, linger: float = LINGER) -> None:
        self._linger = linger
        self._lock = threading.Lock()
        self._waiting: _Reader | None = None

    def begin(self, request: dict[str, Any]) -> Reading:
        """Begin a reading. Two at a time have a process each.

        Between fork and exec, the child has a copy of every descriptor. The calling thread waits until exec.

        Raises:
            OSError: the process cannot be started.
        """
        message = json.dumps(request).encode()
        with self._lock:
            reader, self._waiting = self._waiting, None
        with contextlib.ExitStack() as ends:
            answer, answer_end = _pipe(ends)
            words, words_end = _pipe(ends)
            try:
                if reader is None or not reader.ask(message, answer_end, words_end):
                    reader = _Reader(self._linger, words_end, self._ended)
                    reader.ask(message, answer_end, words_end)  # one that has ended already says why on standard error
            except BaseException:
                answer.close()
                words.close()
                raise
        return Reading(self, reader, answer, words)

    def give_back(self, reader: _Reader) -> None:
        """Keep a process for the next reading."""
        with self._lock:
            if self._waiting is None and not reader.has_ended:
                self._waiting = reader
                return
        reader.close()

    def _ended(self, pid: int) -> None:
        """A process has ended. Called in a thread."""
        with self._lock:
            reader = self._waiting
            if reader is None or reader.pid != pid:
                return
            self._waiting = None
        reader.close()


class _Reader:
    """A process that reads files.

    Args:
        linger: seconds that it waits for a request.
        errors: the descriptor for its standard error until the first request.
        ended: called with its process id when it has ended.
    """

    def __init__(self, linger: float, errors: int, ended: Callable[[int], None]) -> None:
        self._world = _world()
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            with theirs:
                child = subprocess.Popen(  # noqa: S603  (our own interpreter and program)
                    [sys.executable, "-P", "-c", _PROGRAM, json.dumps(sys.path), str(linger)],
                    stdin=theirs.fileno(),
                    stdout=subprocess.DEVNULL,
                    stderr=errors,
                    process_group=0,  # a terminal's Ctrl-C must reach only the proxy
                )
        except BaseException:
            self._control.close()
            raise
        self.pid: Final = child.pid
        self._gone = threading.Event()
        threading.Thread(target=_reap, args=(child, self._gone, ended), name="stcp-reader", daemon=True).start()

    @property
    def has_ended(self) -> bool:
        return self._gone.is_set()

    def ask(self, message: bytes, *ends: int) -> bool:
        """Send a request with the pipes for its answer.

        Returns:
            False, with the process closed, if it has ended, or if it would read another world than this process.
        """
        if self._world == _world():
            with contextlib.suppress(OSError):
                socket.send_fds(self._control, [message], ends)
                return True
        self.close()
        return False

    def close(self) -> None:
        """Let the process end."""
        self._control.close()


def _reap(child: subprocess.Popen[bytes], gone: threading.Event, ended: Callable[[int], None]) -> None:
    """Wait for the end of the process. The parent of worker processes may have waited for it already, which Popen bears."""
    child.wait()
    gone.set()
    ended(child.pid)


def _world() -> tuple[object, ...]:
    """What decides beside the files about a reading: program, environment, folder, user."""
    program = sys.executable, _version_of(__file__), *sys.path
    return program, dict(os.environ), _version_of(".")[:2], os.getresuid(), os.getresgid(), os.getgroups()


def _version_of(path: str) -> tuple[int, ...]:
    """Which file a path names now, and when it was changed: an upgrade of the program replaces its files."""
    try:
        found = os.stat(path)
    except OSError:
        return ()
    return found.st_dev, found.st_ino, found.st_mtime_ns


def _pipe(ends: contextlib.ExitStack) -> tuple[BinaryIO, int]:
    """A pipe: the end to read from, and the descriptor to write to, which `ends` closes."""
    reader, writer = os.pipe2(os.O_CLOEXEC)
    ends.callback(os.close, writer)
    return open(reader, "rb", buffering=0), writer


def _read_all(*files: BinaryIO) -> list[bytes]:
    """Read several pipes to their ends. A process that writes to one of them is never held up by another."""
    found = {file.fileno(): bytearray() for file in files}
    poll = select.poll()
    for number in found:
        poll.register(number, select.POLLIN)
    open_ones = set(found)
    while open_ones:
        for number, _ in poll.poll():
            data = os.read(number, 1 << 16)
            found[number] += data
            if not data:
                poll.unregister(number)
                open_ones.discard(number)
    return [bytes(each) for each in found.values()]
