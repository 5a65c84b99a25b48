"""The terminal that a process was started from: whether SIGHUP means "read the file again" or "the terminal has gone"."""

from __future__ import annotations

import os
import signal
from typing import Final


class Terminal:
    """The controlling terminal at the time when this object was made. Under nohup the terminal does not count."""

    def __init__(self) -> None:
        self._was_there: Final = signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN and _is_there()

    @property
    def gone(self) -> bool:
        """Whether the terminal was closed since then."""
        return self._was_there and not _is_there()


def _is_there() -> bool:
    try:
        os.close(os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY | os.O_NONBLOCK | os.O_CLOEXEC))
    except OSError:
        return False
    return True
