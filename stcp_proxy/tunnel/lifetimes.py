"""Connections that end after a maximum lifetime, whatever they carry."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import trio

from stcp_proxy.relay.deadlines import Deadlines
from stcp_proxy.session.record import Connection


class Lifetimes:
    """The deadlines of the connections of one tunnel.

    Args:
        end: ends a connection whose lifetime is over.
    """

    def __init__(self, end: Callable[[Connection], None]) -> None:
        self._end: Final = end
        self._deadlines: Final[Deadlines[Connection]] = Deadlines()
        self._earlier: Final = trio.lowlevel.ParkingLot()
        self._serves = False

    def __len__(self) -> int:
        return len(self._deadlines)

    def begin(self, connection: Connection, seconds: float, nursery: trio.Nursery) -> None:
        """Let a connection live for this long from now on.

        Args:
            connection: its record.
            seconds: its lifetime.
            nursery: for the task that ends connections; it starts with the first one.
        """
        when = trio.current_time() + seconds
        first = self._deadlines.next()
        self._deadlines.set(connection, when)
        if not self._serves:
            self._serves = True
            nursery.start_soon(self._serve)
        elif first is None or when < first:
            self._earlier.unpark_all()

    def forget(self, connection: Connection) -> None:
        """Drop a connection that has ended, or that has no deadline."""
        self._deadlines.discard(connection)

    async def _serve(self) -> None:
        while True:
            first = self._deadlines.next()
            with trio.move_on_at(float("inf") if first is None else first):
                await self._earlier.park()
            for connection in self._deadlines.expired(trio.current_time()):
                self._end(connection)
