"""A new process that takes over under a service manager: it leaves the process that started it.

systemd waits at a stop for a main process that is its own child. For any other it does not wait, and kills it at once where the
service has no further process. A process whose parent has ended becomes systemd's child. So the new process forks, and its first
half ends, before the old process names it to the manager.
"""

from __future__ import annotations

import os
from typing import Final

_VARIABLE: Final = "STCP_PROXY_DETACH"


def environment() -> dict[str, str]:
    """The environment for a process that is to leave this one."""
    return {**os.environ, _VARIABLE: "1"}


def detach() -> None:
    """Leave the process that started this one, where it asks for that. Call this before any thread is started."""
    if os.environ.pop(_VARIABLE, "") and os.fork() != 0:
        os._exit(0)
