"""The signals of a process that serves, from its first instant to its last.

    begin     first thing in the process: a stop ends it at once; every other signal is held back
    hold      before anything serves: a stop is held back too
    release   handlers are there: what was held back arrives now

Without this, SIGHUP and SIGUSR1, which log rotation sends, would kill a process that has no handler yet, and the kernel would
discard a SIGTERM for a PID 1 that has none. Held back means blocked: a blocked signal stays pending.

No signal but a stop, SIGHUP and SIGUSR2 has a meaning. The others are handled, so that they do not kill, and logged.
"""

from __future__ import annotations

import contextlib
import os
import signal
from typing import Final, NoReturn

STOP: Final = frozenset({signal.SIGTERM, signal.SIGINT, signal.SIGQUIT})
RELOAD: Final = signal.SIGHUP
REPLACE: Final = signal.SIGUSR2
WITHOUT_MEANING: Final = frozenset(
    {
        signal.SIGUSR1,
        signal.SIGALRM,
        signal.SIGVTALRM,
        signal.SIGPROF,
        signal.SIGIO,
        signal.SIGPWR,
        signal.SIGXCPU,
    }
    | set(range(signal.SIGRTMIN, signal.SIGRTMAX + 1))
)
"""What would kill a process that has no handler for it, and tells it nothing."""
HANDLED: Final = STOP | WITHOUT_MEANING | {RELOAD, REPLACE}
REMEDY: Final = "send SIGHUP to reload, SIGUSR2 to replace this process, SIGTERM to stop"
"""What to do instead of a signal without a meaning."""
ENDED_BY: Final = 128
"""An exit status above this is that plus the number of a signal."""

_original: set[int] | None = None
"""The signal mask with which the process was started, without the signals that are handled here; None before `begin`."""


def begin() -> None:
    """Hold every signal back but a stop, which ends the process at once with status 128 + its number.

    A stop that the process was started to ignore, as with nohup, stays ignored. What a launcher has blocked, so that nothing is
    lost before this program runs (`env --block-signal`), arrives now.
    """
    global _original
    _original = set(signal.pthread_sigmask(signal.SIG_BLOCK, HANDLED - STOP)) - HANDLED
    for number in STOP:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _end)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # inherited as ignored, it would take the exit status of children away


def _end(number: int, _frame: object) -> NoReturn:
    os._exit(ENDED_BY + number)  # an exception could be lost in a callback; nothing needs to be cleaned up yet


def hold() -> None:
    """Hold every signal back. Does nothing in a process that has not begun so."""
    if _original is None:
        return
    signal.pthread_sigmask(signal.SIG_BLOCK, HANDLED)
    for number in STOP:
        if signal.getsignal(number) is _end:
            signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)


def release() -> None:
    """Let signals arrive: a handler for each is installed. Does nothing in a process that has not begun so."""
    if _original is not None:
        signal.pthread_sigmask(signal.SIG_SETMASK, _original)


def resume() -> bool:
    """In a process that was forked while everything was held back: be as after `begin` again.

    Returns:
        Whether the process has begun so; otherwise nothing was done.
    """
    if _original is None:
        return False
    signal.pthread_sigmask(signal.SIG_SETMASK, _original | (HANDLED - STOP))
    return True


def original_mask() -> set[int]:
    """The signal mask for a program that this process starts: the one that it was started with itself."""
    return set(signal.pthread_sigmask(signal.SIG_BLOCK, set())) if _original is None else set(_original)


def let_stop() -> None:
    """In a child process that does not serve: a stop ends it, and every other signal stays held back."""
    for number in STOP:
        if signal.getsignal(number) is _end:
            signal.signal(number, signal.SIG_DFL)


def unblock() -> None:
    """In a process that does not serve: let signals do what they do by default, also those that a launcher has blocked."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, HANDLED)


def name(number: int) -> str:
    """The name of a signal, for a log line."""
    with contextlib.suppress(ValueError):
        return signal.Signals(number).name
    return f"signal {number}"
