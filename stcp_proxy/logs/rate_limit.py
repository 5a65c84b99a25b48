"""A rate limit for repeated log events: they are counted instead of written.

A stranger can cause refused connections as fast as it can connect, and only the first refusals deserve their own lines. So the
limit counts events with the same name, reason and tunnel. Each second, the first ones are written at once with all details. The
others are counted; after the second, the last of them is written with their number in `times`. No event is lost, and a flood
costs no more than `AT_ONCE` lines a second.

The limit applies to warnings and errors, and to refusals of every level. It never applies to the line for the ordinary end of a
connection, which always stands for one connection. `quiet: [connections]` silences these lines.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import structlog
import trio

AT_ONCE: Final = 10
"""Lines a second for events with the same name, reason and tunnel."""
ONE_AT_ONCE: Final = frozenset({"limit reached: new connections wait", "cannot accept: new connections wait"})
"""Events about a state: one line a second is enough."""
ONCE_MORE: Final = "_once_more"
"""A field of an event that is only counted, as one more of the last event of its kind."""
_SECOND: Final = 1.0
_BY_STRANGERS: Final = frozenset({"connection refused", "health check received"})
"""Events of any level that strangers can cause as fast as they can connect."""
_SEVERE: Final = frozenset({"warning", "error", "critical"})
_MANY: Final = 1000
"""When more kinds of events than this are remembered, old ones are forgotten at once."""

Event = dict[str, Any]
_Kind = tuple[object, ...]


@dataclass(slots=True)
class _Second:
    """The events of one kind in the current second."""

    ends: float
    said: int = 0
    held: int = 0
    last: Event = field(default_factory=dict)


class Repeats:
    """Decides whether an event is written now, and later writes the events that it held back.

    Args:
        say: writes a held-back event after its second is over.
        clock: monotonic time in seconds.
    """

    def __init__(self, say: Callable[[Event], None], *, clock: Callable[[], float] = time.monotonic) -> None:
        self._say = say
        self._clock = clock
        self._seconds: dict[_Kind, _Second] = {}
        self._lock = threading.Lock()
        self.on_held: Callable[[], None] = _nothing
        """Called when the first event of a kind is held back in its second."""

    def may_say(self, event: Mapping[str, Any]) -> bool:
        """Whether to write `event` now. Otherwise it is counted, and kept as the last event of its kind."""
        kind = _kind(event)
        if kind is None:
            return True
        now = self._clock()
        with self._lock:
            second = self._seconds.get(kind)
            over = second if second is not None and second.ends <= now and second.held else None
            if second is None or second.ends <= now:
                if len(self._seconds) >= _MANY:
                    self._forget(now)
                last = {} if second is None else second.last
                second = self._seconds[kind] = _Second(now + _SECOND, said=over is not None, last=last)
            spoken = second.said < (1 if event["event"] in ONE_AT_ONCE else AT_ONCE)
            if spoken:
                second.said += 1
            else:
                second.held += 1
                second.last = dict(event)
            first = second.held == 1
        if over is not None:
            self._tell(over)
        if not spoken and first:
            self.on_held()
        return spoken

    def count(self, event: Mapping[str, Any]) -> None:
        """Count one more event like one that was held back lately. Where there is none, the log leaves this kind out."""
        with self._lock:
            second = self._seconds.get(_kind(event) or ())
            if second is None or not second.last:
                return
            second.held += 1
            first = second.held == 1
        if first:
            self.on_held()

    def flush(self, *, everything: bool = False) -> float | None:
        """Write the held-back events whose second is over.

        Args:
            everything: write all held-back events, also before their second is over.

        Returns:
            Seconds until the next event is due; None when no event is held back.
        """
        now = self._clock()
        with self._lock:
            due = [second for second in self._seconds.values() if second.held and (everything or second.ends <= now)]
            told = [_Second(second.ends, held=second.held, last=second.last) for second in due]
            for second in due:
                second.ends, second.said, second.held = now + _SECOND, 1, 0
            self._forget(now)
            waiting = [second.ends - now for second in self._seconds.values() if second.held]
        for second in told:
            self._tell(second)
        return min(waiting, default=None)

    def _tell(self, second: _Second) -> None:
        self._say({**second.last, "times": second.held} if second.held > 1 else second.last)

    def _forget(self, now: float) -> None:
        for kind in [kind for kind, second in self._seconds.items() if second.ends <= now and not second.held]:
            del self._seconds[kind]


def _kind(event: Mapping[str, Any]) -> _Kind | None:
    """The kind of an event: events of one kind are repetitions. None for an event without a rate limit."""
    if event.get("level") not in _SEVERE and event["event"] not in _BY_STRANGERS:
        return None
    return (event["event"], event.get("tunnel"), event.get("reason", event.get("limit")))


def _nothing() -> None:
    pass


@contextlib.asynccontextmanager
async def telling(repeats: Repeats) -> AsyncIterator[None]:
    """Inside this context, held-back events are written when their second is over. The remaining ones are written at its end."""
    token, held = trio.lowlevel.current_trio_token(), trio.Event()

    def set_held() -> None:
        held.set()

    def wake() -> None:
        with contextlib.suppress(trio.RunFinishedError):
            token.run_sync_soon(set_held, idempotent=True)

    async def tell() -> None:
        nonlocal held
        while True:
            await held.wait()
            held = trio.Event()
            while True:
                seconds = repeats.flush()
                if seconds is None:
                    break
                await trio.sleep(seconds)

    repeats.on_held = wake
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(tell)
            yield
            nursery.cancel_scope.cancel()
    finally:
        repeats.on_held = _nothing
        repeats.flush(everything=True)


def processor(repeats: Repeats) -> structlog.typing.Processor:
    """The step of structlog's chain that applies the limit. It must come after the step that adds the level."""

    def limit(_logger: object, _method: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
        if event.pop("_kept_back", False):
            return event
        if ONCE_MORE in event:
            repeats.count(event)
        elif repeats.may_say(event):
            return event
        raise structlog.DropEvent

    return limit


def say_kept_back(event: Event) -> None:
    """Send a held-back event through structlog's chain again."""
    level = event["level"]
    fields = {name: value for name, value in event.items() if name not in ("event", "level")}
    getattr(structlog.get_logger("stcp_proxy.repeats"), level)(event["event"], **fields, _kept_back=True)
