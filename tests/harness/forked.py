"""Start commands of the product by fork, from a process that has imported it already (``fork_server``).

A test about the start of a program, or about its memory, starts it with ``fresh``: from nothing. So do all tests where STCP_PROXY
names the program under test.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import json
import os
import resource
import select
import shlex
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

_OTHER_PROGRAM = shlex.split(os.environ.get("STCP_PROXY", ""))
COMMAND = _OTHER_PROGRAM or [sys.executable, "-m", "stcp_proxy"]
"""The product as a program."""

_FORK_SERVER = str(Path(__file__).with_name("fork_server.py"))
_PR_SET_CHILD_SUBREAPER = 36
_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True, slots=True)
class Place:
    """Where and by whom a command is run.

    Attributes:
        prefix: a command that runs a program there.
        namespaces: the id of a process whose network and files the command has, or None for those of this process.
        user: the user, or None for that of this process.
    """

    prefix: tuple[str, ...] = ()
    namespaces: int | None = None
    user: int | None = None


HERE = Place()


class Forked:
    """A process that the fork server started for this one, with the part of subprocess.Popen that tests use."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.returncode: int | None = None
        self._lock = threading.Lock()

    def poll(self) -> int | None:
        """Exit status, or None while it runs."""
        with self._lock:
            if self.returncode is None:
                pid, status = os.waitpid(self.pid, os.WNOHANG)
                if pid:
                    self.returncode = os.waitstatus_to_exitcode(status)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Wait for the end. Returns the exit status.

        Raises:
            subprocess.TimeoutExpired: it runs on.
        """
        if self.poll() is None:
            ended = os.pidfd_open(self.pid)
            try:
                select.select([ended], [], [], timeout)
            finally:
                os.close(ended)
        status = self.poll()
        if status is None:
            raise subprocess.TimeoutExpired(f"process {self.pid}", timeout or 0)
        return status

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


class _ForkServer:
    """The fork server of this process, from its first use to the end of the session."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._requests: socket.socket | None = None

    def start(self, request: dict[str, object], streams: list[int]) -> Forked:
        with self._lock, _subreaper():
            requests = self._requests or self._begin()
            self._requests = None  # an interrupted exchange leaves an answer to nobody: the next one begins anew
            socket.send_fds(requests, [json.dumps(request).encode()], streams)
            process = Forked(int(requests.recv(64)))
            self._requests = requests
            return process

    def _begin(self) -> socket.socket:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            server = subprocess.Popen(
                [sys.executable, _FORK_SERVER, str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
            )
        atexit.register(lambda: (ours.close(), server.wait()))
        assert ours.recv(64) == b"ready"
        return ours


@contextlib.contextmanager
def _subreaper() -> Iterator[None]:
    """Let the child of a child belong to this process when its parent ends."""
    _libc.prctl(_PR_SET_CHILD_SUBREAPER, 1)
    try:
        yield
    finally:
        _libc.prctl(_PR_SET_CHILD_SUBREAPER, 0)


_fork_server = _ForkServer()


def can_fork(env: Mapping[str, str] | None = None) -> bool:
    """Whether the program under test is the one that the fork server has imported."""
    return not _OTHER_PROGRAM and not any(name.startswith("PYTHON") for name in env or ())


def start(
    arguments: Sequence[str], *, streams: tuple[int, int, int], env: Mapping[str, str] | None = None, place: Place = HERE
) -> Forked:
    """Start the product by fork.

    Args:
        arguments: those behind `stcp-proxy`.
        streams: descriptors for its standard input, output and error.
        env: variables that are added to this process's environment.
        place: where it runs.
    """
    request = {
        "arguments": list(arguments),
        "environment": {**os.environ, **(env or {})},
        "folder": os.getcwd(),
        "descriptors": resource.getrlimit(resource.RLIMIT_NOFILE),
        "namespaces": place.namespaces,
        "user": place.user,
    }
    return _fork_server.start(request, list(streams))


def run(
    *arguments: str, env: Mapping[str, str] | None = None, place: Place = HERE, timeout: float = 60, check: bool = False
) -> subprocess.CompletedProcess[str]:
    """Run a command of the product to its end, with its output as text.

    Args:
        arguments: those behind `stcp-proxy`.
        env: variables that are added to this process's environment.
        place: where it runs.
        timeout: seconds until TimeoutExpired.
        check: whether a status other than 0 raises CalledProcessError.
    """
    if not can_fork(env):
        command, added = [*place.prefix, *COMMAND, *arguments], {**os.environ, **(env or {})}
        return subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=check, env=added)
    with open(os.devnull) as nothing, tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        process = start(arguments, streams=(nothing.fileno(), out.fileno(), err.fileno()), env=env, place=place)
        try:
            status = process.wait(timeout)
        except BaseException:
            process.kill()
            process.wait()
            raise
        for file in (out, err):
            file.seek(0)
        done = subprocess.CompletedProcess(list(arguments), status, out.read(), err.read())
    if check:
        done.check_returncode()
    return done
