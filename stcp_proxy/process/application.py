"""An application and the proxy beside it, started and ended together: `stcp-proxy run CONFIG -- app`.

Three processes: the proxy, the application, and this one, which is their parent and does nothing but start them, hand on signals
and reap; as PID 1 it is a container's init. That the proxy is a child of its own lets it have workers, and die, like any other.

- The application starts when the proxy accepts connections. A proxy that cannot start never starts it.
- A service manager's NOTIFY_SOCKET is the application's, which is the service.
- Every signal goes to the application alone. It ends in its own time, and all tunnels serve until it has: what it says while it
  shuts down still needs them. Only then the proxy is stopped, and drains. The exit status is the application's.
- A proxy that dies takes the application with it: SIGTERM, SIGKILL after `GRACE` seconds, and exit status 1.

All signals are blocked, and taken one by one with sigwaitinfo. A blocked signal is never discarded, not even by PID 1, for which
the kernel drops every signal that has no handler. And sigwaitinfo tells who sent it: a terminal's Ctrl-C goes to every process of
the foreground group, so the application, which is in our group, has had it already. The proxy is in a group of its own, and gets
none.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import os
import shutil
import signal
import sys
from collections.abc import Callable, Sequence
from typing import Final

from stcp_proxy.process import signals
from stcp_proxy.redact import shown

GRACE: Final = 30
"""Seconds that the application has after the proxy died."""
NOT_EXECUTABLE: Final = 126
NOT_FOUND: Final = 127
_BY_SIGNAL: Final = 128

_FAULTS: Final = {
    signal.SIGSEGV, signal.SIGBUS, signal.SIGFPE, signal.SIGILL, signal.SIGTRAP, signal.SIGABRT, signal.SIGSYS, signal.SIGPIPE
}  # fmt: skip
"""What this process does to itself: not to be held back, and nobody else's business."""
_NEVER: Final = {signal.SIGKILL, signal.SIGSTOP}
_WAITED: Final = signal.valid_signals() - _FAULTS - _NEVER
_TERMINAL: Final = {signal.SIGINT, signal.SIGQUIT, signal.SIGTSTP, signal.SIGWINCH}
"""What a terminal sends to the whole foreground group."""
_STOPS: Final = {signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGHUP}
_STOPS_FROM_READING: Final = {signal.SIGTTIN, signal.SIGTTOU}

_PR_SET_PDEATHSIG: Final = 1
_PR_SET_CHILD_SUBREAPER: Final = 36


def run(command: Sequence[str], proxy: Callable[[], int]) -> int:
    """Run `command` beside a proxy.

    Args:
        command: the application and its arguments.
        proxy: serves until SIGTERM and returns its exit status; it is called in a process of its own, *in which this function
            returns, too*, with that status, or raises what it raises.

    Returns:
        The application's exit status, 128+n when signal n ended it; 127 when it was not found, 126 when it cannot be executed;
        1 when the proxy died; the proxy's own when it did not start; 128+n when signal n came before the application was started.
    """
    before = signals.original_mask()
    signal.pthread_sigmask(signal.SIG_BLOCK, _WAITED)
    reader, writer = os.pipe()
    fcntl.fcntl(reader, fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(reader, fcntl.F_SETFL, os.O_NONBLOCK | os.O_ASYNC)  # SIGIO when the proxy has something to say
    parent = os.getpid()
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)
    pid = os.fork()
    if pid == 0:
        os.close(reader)
        _become_proxy(parent, before, writer)
        return proxy()
    os.close(writer)
    return _Init(command, pid, reader, before).run()


def _become_proxy(parent: int, mask: set[int], writer: int) -> None:
    """Make this new process fit to be the proxy. What it would tell a service manager, it tells its parent."""
    from stcp_proxy.process import running, sd_notify  # they load Trio, which the parent can do without

    def tell(text: str) -> None:
        if text.startswith("READY=1"):
            with contextlib.suppress(OSError):  # a reload makes it ready again, and nobody listens any more
                os.write(writer, b"+")

    os.setpgid(0, 0)  # the terminal's Ctrl-C is not for us
    signal.signal(signal.SIGTTOU, signal.SIG_IGN)  # and from behind we may log to it
    _prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:
        os._exit(1)
    with open(os.devnull, "rb") as nothing:
        os.dup2(nothing.fileno(), 0)  # what comes in is the application's
    sd_notify.notify_instead(tell)
    running.stop_through(parent)
    if not signals.resume():
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def _prctl(option: int, value: int) -> None:
    ctypes.CDLL(None).prctl(option, value, 0, 0, 0)


class _Init:
    """The parent of the two.

    Args:
        command: the application.
        proxy: process id of the proxy.
        reader: the proxy writes here when it is ready.
        mask: the signals that were blocked before.
    """

    def __init__(self, command: Sequence[str], proxy: int, reader: int, mask: set[int]) -> None:
        self._command = command
        self._proxy: int | None = proxy
        self._application: int | None = None
        self._reader: int | None = reader
        self._mask = mask
        self._status: int | None = None
        """The exit status, as soon as it is certain."""

    def run(self) -> int:
        """Returns the exit status, when both children have gone."""
        while self._proxy is not None or self._application is not None:
            info = signal.sigwaitinfo(_WAITED)
            number = info.si_signo
            if number == signal.SIGCHLD:
                self._reap()
            elif number == signal.SIGIO and self._reader is not None:
                self._listen()
            elif number == signal.SIGALRM and info.si_code > 0:
                self._send(self._application, signal.SIGKILL)
            else:
                self._forward(number, by_kernel=info.si_code > 0)
        return 1 if self._status is None else self._status

    # -- start -------------------------------------------------------------------------------------------------------------

    def _listen(self) -> None:
        """Start the application when the proxy has said that it is ready."""
        assert self._reader is not None  # noqa: S101
        try:
            if not os.read(self._reader, 1):
                return
        except BlockingIOError:
            return
        os.close(self._reader)
        self._reader = None
        if self._status is None:
            self._start()

    def _start(self) -> None:
        program = self._command[0]
        try:
            self._application = os.posix_spawnp(
                program,
                list(self._command),
                os.environ,
                setsigmask=self._mask,
                setsigdef=[signal.SIGPIPE, signal.SIGXFSZ],  # Python's own, which ignores them
            )
        except (OSError, ValueError) as exc:
            self._status, why = _explain(program, exc)
            _say(why)
            self._send(self._proxy, signal.SIGTERM)

    # -- signals -----------------------------------------------------------------------------------------------------------

    def _forward(self, number: int, *, by_kernel: bool) -> None:
        if self._application is None:
            if number in _STOPS:
                if self._status is None:
                    self._status = _BY_SIGNAL + number
                self._send(self._proxy, signal.SIGTERM)
            return
        if number in _STOPS_FROM_READING:
            return
        if not by_kernel or number == signal.SIGHUP or (number in _TERMINAL and not self._in_our_group()):
            self._send(self._application, number)
        if number == signal.SIGTSTP:
            self._suspend()

    def _in_our_group(self) -> bool:
        """Whether the application gets what the terminal sends us."""
        assert self._application is not None  # noqa: S101
        try:
            return os.getpgid(self._application) == os.getpgrp()
        except OSError:
            return False

    def _suspend(self) -> None:
        """Stop as this signal stops any program, where there is a shell to continue it."""
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTSTP})
        os.kill(os.getpid(), signal.SIGTSTP)
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTSTP})

    def _send(self, pid: int | None, number: int) -> None:
        # Only children that have not been reaped: nobody else has their number.
        if pid is not None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, number)

    # -- ends --------------------------------------------------------------------------------------------------------------

    def _reap(self) -> None:
        """Every child that has ended; those of others have come to us as orphans."""
        while True:
            try:
                pid, code = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            if pid == self._application:
                self._application_ended(os.waitstatus_to_exitcode(code))
            elif pid == self._proxy:
                self._proxy_ended(os.waitstatus_to_exitcode(code))

    def _application_ended(self, code: int) -> None:
        self._application = None
        if self._status is None:
            self._status = _BY_SIGNAL - code if code < 0 else code
        self._send(self._proxy, signal.SIGTERM)

    def _proxy_ended(self, code: int) -> None:
        self._proxy = None
        if self._application is None:
            if self._status is None:  # it did not start, and has said why unless a signal ended it
                self._status = code if code > 0 else 1
                if code < 0:
                    _say(f"the proxy was ended by {_name(-code)} before it was ready")
            return
        self._status = 1
        how = f"was ended by {_name(-code)}" if code < 0 else f"ended with status {code}"
        _say(f"the proxy {how}: the application has {GRACE} s to end, too")
        self._send(self._application, signal.SIGTERM)
        signal.alarm(GRACE)


def _name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _explain(program: str, exc: OSError | ValueError) -> tuple[int, str]:
    """Exit status and sentence for an application that cannot be started."""
    name = shown(program)
    if isinstance(exc, ValueError):
        return NOT_FOUND, f"the application {name} was not found; no file has such a name"
    if exc.errno not in (errno.ENOENT, errno.ENOTDIR):
        remedy = "'chmod +x' it, or name its interpreter before it" if exc.errno in (errno.EACCES, errno.ENOEXEC) else None
        return NOT_EXECUTABLE, f"the application {name} cannot be executed: {exc.strerror}" + (f"; {remedy}" if remedy else "")
    if shutil.which(program) is not None:
        return NOT_FOUND, f"the application {name} cannot be executed: the interpreter that it names was not found; install it"
    return NOT_FOUND, f"the application {name} was not found; " + (
        "correct the path" if "/" in program else "install it, or give its path"
    )


def _say(words: str) -> None:
    with contextlib.suppress(OSError, AttributeError):  # nobody may be there to read it
        sys.stderr.write(f"stcp-proxy: {words}\n")
        sys.stderr.flush()
