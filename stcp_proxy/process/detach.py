"""Detach a new process that takes over from the process that started it.

At a stop, systemd waits only for a main process that is its own child. It kills any other main process at once, if the service
has no further process. A process whose parent has ended becomes a child of systemd. So the new process forks and its parent ends,
before the old process names the new one to systemd.
"""

from __future__ import annotations

import os
from typing import Final

_VARIABLE: Final = "STCP_PROXY_DETACH"


def environment() -> dict[str, str]:
    """The environment of a new process that shall detach."""
    return {**os.environ, _VARIABLE: "1"}


def detach() -> None:
    """Detach from the parent, if its environment asks for that. Call this before any thread is started."""
    if os.environ.pop(_VARIABLE, "") and os.fork() != 0:
        os._exit(0)
