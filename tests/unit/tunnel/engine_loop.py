"""The loop of an engine on Trio's clock, in a task of a test. It watches one epoll set or socket."""

from __future__ import annotations

import collections
import select

import trio

from stcp_proxy.relay.deadlines import Deadlines, Timed
from stcp_proxy.relay.turns import Busy
from stcp_proxy.relay.watcher import Watched, Watcher


class EngineLoop:
    """Fulfils `Watching`.

    Attributes:
        can_watch: whether `watch` succeeds.
        watched: what it watches.
    """

    def __init__(self) -> None:
        self.deadlines: Deadlines[Timed] = Deadlines()
        self.again: collections.deque[Busy] = collections.deque()
        self.can_watch = True
        self.watched: dict[Watcher, Watched] = {}

    @property
    def now(self) -> float:
        return trio.current_time()

    def watch(self, sock: Watched, watcher: Watcher, *, mask: int = select.EPOLLIN, seconds: float | None = None) -> bool:
        if self.can_watch:
            self.watched[watcher] = sock
        return self.can_watch

    def unwatch(self, sock: Watched, watcher: Watcher) -> None:
        del self.watched[watcher]
        self.deadlines.discard(watcher)

    def lose(self) -> None:
        """Stop watching, as an engine does that goes on in a thread."""
        self.can_watch = False
        for watcher in list(self.watched):
            watcher.on_lost()

    def wake_trio(self) -> None:
        """Nothing: this loop is a task."""

    async def run(self) -> None:
        """Turn by turn: events, the queue, deadlines."""
        while True:
            await trio.sleep(0 if self.again else 0.001)
            for watcher, sock in list(self.watched.items()):
                if watcher in self.watched and _is_ready(sock):
                    watcher.on_news(select.EPOLLIN)
            for _ in range(len(self.again)):
                self.again.popleft().step()
            for timed in self.deadlines.expired(self.now):
                timed.on_deadline()


def _is_ready(sock: Watched) -> bool:
    with select.epoll() as found:
        found.register(sock.fileno(), select.EPOLLIN)
        return bool(found.poll(0))
