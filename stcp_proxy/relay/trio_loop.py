"""The pump driven by Trio's own thread: both wait in one place.

Trio's loop ends every turn in an epoll_wait. An instrument is called right before it, with the time that it is going to wait.
This one waits there itself, in the pump's epoll set, of which Trio's epoll descriptor is a member (an epoll set is a readable
descriptor like any other): it relays for as long as Trio has nothing to do, and returns as soon as Trio has. So a chunk of bytes
costs no Trio task, a connection changes no thread, and a quiet connection is answered at once.

Two things need care. Trio goes on to wait for the time it has announced, however long the instrument took: where that time has
passed, a no-op sent through its token wakes it. And what the pump does in here may not reschedule tasks directly, since Trio has
already looked at its run queue: it has to go through the token too, as `Service.settle` does.

Trio does not tell its epoll descriptor. It is the one that /proc/self/fd shows in a running Trio and that is not anybody else's;
where that is not unique, the pump gets a thread of its own.
"""

from __future__ import annotations

import logging
import os
from typing import Final

import trio

from stcp_proxy.relay.pump import PumpEngine

_log: Final = logging.getLogger(__name__)


def start(engine: PumpEngine) -> None:
    """Start `engine` inside the running Trio, or by a thread of its own where that cannot be.

    Args:
        engine: not started yet.

    Raises:
        OSError: the process is out of descriptors.
    """
    candidates = _epoll_descriptors()
    if len(candidates) != 1:
        engine.start()
        return
    engine.start_driven(next(iter(candidates)))
    trio.lowlevel.add_instrument(_Driver(engine, trio.lowlevel.current_trio_token()))


def _epoll_descriptors() -> frozenset[int]:
    """The epoll descriptors of this process: Trio's alone, unless another engine or library has one; none without /proc."""
    found = set()
    try:
        names = os.listdir("/proc/self/fd")
    except OSError:
        return frozenset()
    for name in names:
        try:
            if os.readlink(f"/proc/self/fd/{name}") == "anon_inode:[eventpoll]":
                found.add(int(name))
        except OSError:
            continue
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


def _nothing() -> None:
    pass
