"""Notify the service manager by systemd's sd_notify protocol: datagrams to the socket that NOTIFY_SOCKET names.

Without such a manager every function here does nothing. A datagram that cannot be sent is lost; connections go on. With `workers:
N` the manager accepts messages of the parent alone. So workers notify the parent, and the parent notifies for all of them
(`WorkerNotifications`): it is ready when the last worker is ready, and alive while every worker is alive.
"""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time
from collections.abc import AsyncIterator, Callable, MutableMapping
from typing import Final

import trio

from stcp_proxy.process.takeover_messages import Manager

_TIMEOUT: Final = 1.0
"""Seconds to wait for a manager that does not read."""

Send = Callable[[str], None]


def _to_nobody(_text: str) -> None:
    pass


_send: Send = _to_nobody
_parent: Send | None = None
_interval: float | None = None
_path = ""
"""The address of the manager's socket; empty without one."""


def notify_instead(parent: Send) -> None:
    """From `attach` on, send every message to `parent` instead of the manager: this process is a part of the service only."""
    global _parent
    _parent = parent


def attach(environ: MutableMapping[str, str] = os.environ) -> None:
    """Find the manager that started this process, if there is one.

    Args:
        environ: the manager's variables are removed from it, so that no child process can notify in this one's name.
    """
    global _send, _interval, _path
    path = environ.pop("NOTIFY_SOCKET", "")
    _path = path if _parent is None and path[:1] in ("/", "@") else ""
    _interval = _watchdog_interval(environ) if _parent is None else None
    _send = _parent or (_to_socket(_path) if _path else _to_nobody)


# -- a takeover by a new process -------------------------------------------------------------------------------------------


def manager() -> Manager | None:
    """The manager that watches this process, for a new process that takes over; None without one."""
    return Manager(_path, _interval) if _path else None


def hand_over(pid: int) -> None:
    """Name a new process to the manager as the main process of the service, and send nothing from now on.

    Args:
        pid: of the new process; 0 where it is in another PID namespace, and cannot be named.
    """
    global _send, _path
    if pid > 0:
        _send(f"MAINPID={pid}")
    _send, _path = _to_nobody, ""


def expect(old: Manager | None) -> None:
    """In the new process: the manager of the old one will watch this process, after `take_over`.

    Args:
        old: what the old process said of its manager; None where there is nothing to expect.
    """
    global _interval, _path
    if old is not None and not _path and _parent is None:
        _path, _interval = old.notify, old.watchdog


def take_over() -> None:
    """The old process has named this one to the manager: send to it from now on."""
    global _send
    if _path and _parent is None:
        _send = _to_socket(_path)
        if _interval is not None:  # the last message of the old process may be half an interval ago
            _send("WATCHDOG=1")


def ready(status: str) -> None:
    """Every tunnel listens: call it at the start, and after each `reloading`.

    Args:
        status: one line for `systemctl status`.
    """
    _send(f"READY=1\nSTATUS={_line(status)}")


def reloading() -> None:
    """A reload has begun; `ready` ends it, whether it was applied or refused."""
    _send(f"RELOADING=1\nMONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}\nSTATUS=reloading")


def stopping(status: str, *, seconds: float) -> None:
    """A stop has begun: nothing new is accepted.

    Args:
        status: one line for `systemctl status`.
        seconds: the longest duration of the drain; extends the manager's own time-out.
    """
    _send(f"STOPPING=1\nEXTEND_TIMEOUT_USEC={int(seconds * 1e6)}\nSTATUS={_line(status)}")


def status(text: str) -> None:
    """One line for `systemctl status`."""
    _send(f"STATUS={_line(text)}")


@contextlib.asynccontextmanager
async def watchdog() -> AsyncIterator[None]:
    """Inside of this context manager, notify the manager's watchdog twice in its interval.

    A task of Trio's loop does it. The user-space engine runs in the same loop, so a process that hangs there stops notifying.
    """
    if _interval is None:
        yield
        return
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_keep_alive, _interval / 2)
        try:
            yield
        finally:
            nursery.cancel_scope.cancel()


async def _keep_alive(seconds: float) -> None:
    while True:
        _send("WATCHDOG=1")
        await trio.sleep(seconds)


def _line(text: str) -> str:
    return " ".join(text.split())


def _watchdog_interval(environ: MutableMapping[str, str]) -> float | None:
    """Seconds of silence after which the manager kills this process; None where it does not watch this process."""
    usec, pid = environ.pop("WATCHDOG_USEC", ""), environ.pop("WATCHDOG_PID", "")
    if not (usec.isascii() and usec.isdigit() and int(usec)) or (pid and pid != str(os.getpid())):
        return None
    return int(usec) / 1e6


def _to_socket(path: str) -> Send:
    address = "\0" + path[1:] if path.startswith("@") else path

    def send(text: str) -> None:
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
            sock.settimeout(_TIMEOUT)
            sock.sendto(text.encode(), address)

    return send


# -- several processes -----------------------------------------------------------------------------------------------------


class WorkerNotifications:
    """Merges the messages of several workers. The parent itself notifies of reloads, which it leads.

    Args:
        workers: the number of workers.
        words: the status line when all are ready.
        first: called once before the manager hears that all are ready.
    """

    def __init__(self, workers: int, words: str, *, first: Callable[[], None] | None = None) -> None:
        self._words = words
        self._first = first
        self._serving = set(map(str, range(workers)))
        self._ready: set[str] = set()
        self._alive: set[str] = set()
        self._stopping = False
        self._receiver, self._sender = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)

    def send_for_worker(self, number: int) -> None:
        """In a worker, right after the fork: send its messages to the parent from now on."""
        global _send
        self._receiver.close()
        self._sender.settimeout(_TIMEOUT)

        def send(text: str) -> None:
            with contextlib.suppress(OSError):
                self._sender.send(f"{number} {text}".encode())

        _send = send

    def listen(self) -> None:
        """In the parent, after the last fork: receive from the workers."""
        self._sender.close()
        threading.Thread(target=self._listen, name="stcp-notify", daemon=True).start()

    def _listen(self) -> None:
        with self._receiver:
            while message := self._receiver.recv(4096):
                number, _, text = message.decode().partition(" ")
                self._heard(number, text, text.partition("=")[0])

    def _heard(self, number: str, text: str, verb: str) -> None:
        if verb == "READY":
            self._ready.add(number)
            if self._ready >= self._serving:
                self._ready.clear()
                first, self._first = self._first, None
                if first is not None:
                    first()
                ready(self._words)
        elif verb == "STOPPING":
            if not self._stopping:
                self._stopping = True
                _send(text)
            self._serving.discard(number)  # its connections may end before those of other workers
        elif verb == "WATCHDOG":
            self._alive.add(number)
        if self._alive and self._alive >= self._serving:
            self._alive.clear()
            _send("WATCHDOG=1")
