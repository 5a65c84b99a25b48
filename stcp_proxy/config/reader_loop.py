"""The process that reads configuration files for reloads: see `warm_reader` for what it promises.

It waits for a request, forks a child that reads and answers, waits for the child, and ends when no request comes for a while.
"""

from __future__ import annotations

import ctypes
import gc
import importlib
import json
import os
import select
import signal
import socket
import sys
from typing import Any, Final, NoReturn

_READS: Final = "stcp_proxy.config.load"
_READS_CERTIFICATES: Final = "stcp_proxy.config.certificate_files"
_USED_CERTIFICATES: Final = 3
"""The exit status of a child that has imported what reads certificates."""
_MAX_REQUEST: Final = 1 << 16
_PR_SET_PDEATHSIG: Final = 1
_CONTROL: Final = 0
"""The descriptor of the control socket."""


def serve(linger: float) -> None:
    """Answer requests until none comes for `linger` seconds, or the serving process has closed the control socket."""
    with socket.socket(fileno=_CONTROL) as control:
        poll = select.poll()
        poll.register(control, select.POLLIN)
        while _answer_one(control):
            if not poll.poll(linger * 1000):
                break
        else:
            return
        # No further request can be sent from here on. One that was sent before is answered.
        control.shutdown(socket.SHUT_RD)
        while _answer_one(control):
            pass


def _answer_one(control: socket.socket) -> bool:
    """Answer the next request. Returns False at the end of requests."""
    packet, descriptors, _, _ = socket.recv_fds(control, _MAX_REQUEST, 2)
    if not packet or len(descriptors) != 2:
        return False
    answer, errors = descriptors
    os.dup2(errors, sys.stderr.fileno())  # a failed import is the reading's failure
    importlib.import_module(_READS)
    gc.freeze()  # the collector of a child then leaves the memory alone that it shares with this process
    alive, end = os.pipe()
    parent = os.getpid()
    child = os.fork()
    if child == 0:
        with open(os.devnull, "rb") as nothing:
            os.dup2(nothing.fileno(), control.detach())
        _read(json.loads(packet), answer, parent)
    os.close(end)
    os.close(answer)
    status = _wait(child, alive, control)
    os.close(alive)
    if status < 0:
        os.write(errors, f"signal {-status} ended it\n".encode())
    os.close(errors)
    with open(os.devnull, "wb") as nothing:
        os.dup2(nothing.fileno(), sys.stderr.fileno())
    if status == _USED_CERTIFICATES:
        importlib.import_module(_READS_CERTIFICATES)
    return True


def _read(request: dict[str, Any], answer: int, parent: int) -> NoReturn:
    """In the child: read the file, send the plan or the failure, and end."""
    status = 1
    try:
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(status)  # it ended before this process asked to end with it
        from stcp_proxy.config import reader_process

        with open(answer, "wb") as file:
            reader_process.answer(request, file)
        status = _USED_CERTIFICATES if _READS_CERTIFICATES in sys.modules else 0
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        os._exit(status)


def _wait(child: int, alive: int, control: socket.socket) -> int:
    """Wait for the child, and end it when the serving process has ended.

    Args:
        alive: a pipe that the child has, too; its end of file is the child's end.

    Returns:
        The child's exit status, or less the number of the signal that ended it.
    """
    poll = select.poll()
    poll.register(alive, 0)
    poll.register(control, 0)  # only its end counts now
    if alive not in dict(poll.poll()):
        os.kill(child, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
