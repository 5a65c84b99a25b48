"""Run the pump in Trio's own thread: both wait in one place.

Trio's loop ends every turn in an epoll_wait, and calls instruments right before it with the time that it is going to wait. This
instrument waits instead of Trio, in the pump's epoll set, of which Trio's epoll descriptor is a member. It relays while Trio has
nothing to do, and returns as soon as Trio has. So no chunk of bytes costs a Trio task or a change of threads.

Invariants:

- Trio waits for the announced time again, however long the instrument took. Once that time has passed, a no-op sent through the
  token of Trio wakes it.
- The pump never reschedules a task directly here, because Trio has already looked at its run queue. It uses the token.

Trio does not publish its epoll descriptor. /proc/self/fd lists the candidates. A process that inherited an epoll descriptor has
several: then Trio is asked to watch a socket, and /proc/self/fdinfo tells which candidate does. Where no candidate is found, the
pump gets a thread of its own, which costs speed; `PumpEngine.why_thread` says why, and the log does.
"""

from __future__ import annotations

import contextlib
import logging
import os
import socket
from functools import partial
from typing import Final

import trio

from stcp_proxy.relay.pump import PumpEngine

_log: Final = logging.getLogger(__name__)
_NO_PROC: Final = "/proc/self/fd cannot be read; mount /proc"
_NOT_FOUND: Final = "/proc/self/fdinfo does not show Trio's epoll descriptor"
_FAILED: Final = "the pump failed inside Trio's loop; report the traceback in the log"


def start(engine: PumpEngine) -> None:
    """Start `engine` inside the running Trio, or in a thread of its own.

    With several candidates for Trio's descriptor, the engine starts a moment later; connections that it adopts wait for that.

    Args:
        engine: not started yet.

    Raises:
        OSError: the process is out of descriptors.
    """
    candidates = _epoll_descriptors()
    if not candidates:
        engine.start()
        _tell_thread(engine, _NO_PROC)
    elif len(candidates) == 1:
        _drive(engine, next(iter(candidates)))
    else:
        engine.open()
        trio.lowlevel.spawn_system_task(_find_and_drive, engine, candidates)


def obstacle() -> str:
    """Why the pump of a process on this machine would need a thread of its own; empty where Trio's loop can drive it."""
    try:
        os.listdir("/proc/self/fdinfo")
    except OSError:
        return _NO_PROC
    return ""


def _drive(engine: PumpEngine, descriptor: int) -> None:
    engine.start_driven(descriptor)
    token = trio.lowlevel.current_trio_token()
    engine.wake_trio = partial(token.run_sync_soon, _nothing, idempotent=True)
    trio.lowlevel.add_instrument(_Driver(engine, token))


async def _find_and_drive(engine: PumpEngine, candidates: frozenset[int]) -> None:
    descriptor = await _trios_among(candidates)
    if engine.closed:
        return
    if descriptor is None:
        engine.start_thread()
        _tell_thread(engine, _NOT_FOUND)
    else:
        _drive(engine, descriptor)


async def _trios_among(candidates: frozenset[int]) -> int | None:
    """The one descriptor among `candidates` that starts to watch a socket when Trio does; None if no single one does."""
    watched, other = socket.socketpair()
    with watched, other:
        watched.setblocking(False)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.lowlevel.wait_readable, watched)
            for _ in range(2):
                await trio.lowlevel.checkpoint()  # the task runs, and Trio registers the socket
            found = [descriptor for descriptor in candidates if _watches(descriptor, watched.fileno())]
            nursery.cancel_scope.cancel()
    return found[0] if len(found) == 1 else None


def _watches(epoll: int, descriptor: int) -> bool:
    """Whether an epoll set has `descriptor` as a member, as its lines ``tfd: NUMBER ...`` in fdinfo tell."""
    try:
        with open(f"/proc/self/fdinfo/{epoll}") as lines:
            return any(line.split()[:2] == ["tfd:", str(descriptor)] for line in lines)
    except OSError:
        return False


def _tell_thread(engine: PumpEngine, why: str) -> None:
    engine.why_thread = why
    _log.warning("the user-space engine runs in a thread of its own, which is slower: %s", why)


def _epoll_descriptors() -> frozenset[int]:
    """The epoll descriptors of this process; none without /proc."""
    found = set()
    try:
        names = os.listdir("/proc/self/fd")
    except OSError:
        return frozenset()
    for name in names:
        with contextlib.suppress(OSError):
            if os.readlink(f"/proc/self/fd/{name}") == "anon_inode:[eventpoll]":
                found.add(int(name))
    return frozenset(found)


class _Driver(trio.abc.Instrument):
    """Waits in Trio's place."""

    def __init__(self, engine: PumpEngine, token: trio.lowlevel.TrioToken) -> None:
        self._engine: PumpEngine | None = engine
        self._token = token

    def before_io_wait(self, timeout: float) -> None:
        """Relay until Trio has something to do, or `timeout` seconds have passed."""
        engine = self._engine
        if engine is None:
            return
        if engine.closed:
            self._engine = None
            return
        try:
            if timeout <= 0:
                engine.turn(0)
            elif not engine.run(timeout):
                self._token.run_sync_soon(_nothing, idempotent=True)
        except Exception:
            # Trio drops an instrument that raises; the connections must not be dropped with it.
            _log.exception("the pump failed inside Trio's loop and goes on in a thread of its own")
            self._engine = None
            engine.start_thread()
            _tell_thread(engine, _FAILED)


def _nothing() -> None:
    pass
