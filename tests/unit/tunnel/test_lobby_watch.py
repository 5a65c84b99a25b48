"""The engine's loop as the driver of a lobby: when callers are refused."""

from __future__ import annotations

import math
import select

import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from stcp_proxy.tunnel.lobby_watch import PAUSE, LobbyWatch

from .engine_loop import EngineLoop


class Callers:
    """A lobby with one caller, whose time is over at `due`. Fulfils `Steps`."""

    waits = may_begin = relays_first = False

    def __init__(self, due: float) -> None:
        self.due = due
        self.expired: list[bool] = []
        """For each call of `expire`, whether a Trio task or Trio's loop makes it, and not the engine's loop."""
        self.in_engine = False

    def look(self) -> None: ...

    def expire(self) -> None:
        self.expired.append(not self.in_engine)
        self.due = math.inf

    def begin_one(self) -> bool:
        raise AssertionError

    def end_of_handshake(self) -> None:
        raise AssertionError


async def test_callers_are_refused_by_trios_clock(mock_clock: MockClock) -> None:
    """A pause of the process is left out by Trio's clock after its next wait: the engine's loop cannot know it before."""
    engine, lobby = EngineLoop(), Callers(trio.current_time() + 2)
    with select.epoll() as callers:
        watch = LobbyWatch(engine, callers, lobby)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(watch.until_over)
            await wait_all_tasks_blocked()
            mock_clock.jump(5)
            lobby.in_engine = True
            for timed in engine.deadlines.expired(engine.now):
                timed.on_deadline()
            lobby.in_engine = False
            assert lobby.expired == []
            await wait_all_tasks_blocked()
            assert lobby.expired == [True]
            assert (engine.deadlines.next() or math.inf) >= engine.now + PAUSE
            watch.end()
