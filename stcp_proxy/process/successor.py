"""SIGUSR2: start this program again, as it is on disk now; the new process takes over.

The new process gets the command line of this one and `--replace`. Under systemd it is a process of the same unit, so systemd
accepts it as the main process of the service, and it leaves this process (``detach``).
"""

from __future__ import annotations

import subprocess
import sys

import structlog
import trio

from stcp_proxy.config import Plan
from stcp_proxy.errors import StcpError
from stcp_proxy.process import detach, running, sd_notify

_log = structlog.get_logger("stcp_proxy.takeover")

OPTION = "--replace"
_child: subprocess.Popen[bytes] | None = None
_detached = False
"""Whether the new process leaves this one, and its end is not seen here."""


def start(plan: Plan) -> None:
    """Start the new process. Call this in the main thread; a failure is logged, and this process goes on.

    Args:
        plan: what this process serves.
    """
    global _child, _detached
    if _child is not None and _child.poll() is None:
        _log.warning("a new process is starting already", pid=_child.pid, remedy="wait until it serves or has ended")
        return
    if plan.takeover is None:
        remedy = "set 'takeover: unix:/path' in the file (--takeover), and restart once"
        _log.warning("no new process is started", why="this proxy has no socket for a takeover", remedy=remedy)
        return
    arguments = [argument for argument in sys.orig_argv[1:] if argument != OPTION]
    try:
        running.check_replaceable()
        _detached = sd_notify.manager() is not None
        environment = detach.environment() if _detached else None
        _child = subprocess.Popen([sys.executable, *arguments, OPTION], env=environment)  # noqa: S603  (our own command line)
    except StcpError as exc:
        _log.warning("no new process is started", why=exc.what, remedy=exc.remedy)
    except OSError as exc:
        why = f"{sys.executable}: {exc.strerror}"
        _log.error("no new process is started", why=why, remedy="see that the program is on disk, and memory has room")
    else:
        _log.info("a new process is started", **({} if _detached else {"pid": _child.pid}))


async def watch() -> None:
    """Reap the new process when it ends, and log it."""
    if (child := _child) is not None:
        ended(child.pid, await trio.to_thread.run_sync(child.wait, abandon_on_cancel=True))


def ended(pid: int, status: int) -> None:
    """Log that a child of this process has ended, where it is the new process."""
    if _child is not None and pid == _child.pid:
        _child.returncode = status
        if _detached and status == 0:
            return  # its other half goes on
        _log.warning("the new process has ended", pid=pid, status=status, remedy="look for its reason in its own log")
