"""Repeated events are counted, not repeated.

A stranger can make this side refuse connections as fast as it can open them, and each refusal is worth a line: the first. So of
one event with one reason in one tunnel, a few lines a second are written at once, with all their details. The rest of the second
is counted, and its last event is written when the second is over, with `times`: how many it stands for. No event is lost, and a
flood costs no more than `AT_ONCE` lines a second.

What is limited: warnings and errors, and refusals of every level. The line for a connection's ordinary end is none of them: it
stands for one connection, always (`quiet: [connections]` is for those who do not want it).
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
"""Lines in a second for one event with one reason in one tunnel."""
ONE_AT_ONCE: Final = frozenset({"limit reached: new connections wait", "cannot accept: new connections wait"})
"""Events about a state, where one line in a second says all."""
_SECOND: Final = 1.0
_BY_STRANGERS: Final = frozenset({"connection refused", "health check received"})
"""Events of any level that strangers can cause as fast as they can connect."""
_SEVERE: Final = frozenset({"warning", "error", "critical"})
_MANY: Final = 1000
"""Kinds of events at which those of the past are forgotten at once, not at leisure."""

Event = dict[str, Any]
_Kind = tuple[object, ...]


@dataclass(slots=True)
class _Second:
    """What one kind of event has done in its second."""

    ends: float
    said: int = 0
    held: int = 0
    last: Event = field(default_factory=dict)


class Repeats:
    """Decides about each event whether it is said now, and says later what it kept back.

    Args:
        say: writes an event that was kept back, once its second is over.
        clock: seconds, monotonic.
    """

    def __init__(self, say: Callable[[Event], None], *, clock: Callable[[], float] = time.monotonic) -> None:
        self._say = say
        self._clock = clock
        self._seconds: dict[_Kind, _Second] = {}
        self._lock = threading.Lock()
        self.on_held: Callable[[], None] = _nothing
        """Called when something was kept back and nothing was before."""

    def may_say(self, event: Mapping[str, Any]) -> bool:
        """Whether to write `event` now; otherwise it is counted, and kept as its kind's last."""
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
                second = self._seconds[kind] = _Second(now + _SECOND, said=over is not None)
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

    def flush(self, *, everything: bool = False) -> float | None:
        """Say what was kept back, where its second is over.

        Args:
            everything: do not wait for that.

        Returns:
            Seconds until the next one is due; None when nothing is kept back.
        """
        now = self._clock()
        with self._lock:
            due = [second for second in self._seconds.values() if second.held and (everything or second.ends <= now)]
            told = [_Second(second.ends, held=second.held, last=second.last) for second in due]
            for second in due:
                second.ends, second.said, second.held, second.last = now + _SECOND, 1, 0, {}
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
    """What makes two events repetitions of each other; None for one that always stands alone."""
    if event.get("level") not in _SEVERE and event["event"] not in _BY_STRANGERS:
        return None
    return (event["event"], event.get("tunnel"), event.get("reason", event.get("limit")))


def _nothing() -> None:
    pass


@contextlib.asynccontextmanager
async def telling(repeats: Repeats) -> AsyncIterator[None]:
    """While it is entered, what was kept back is said when its second is over; the rest at the end."""
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
    """The step of structlog's chain, behind the one that adds the level."""

    def limit(_logger: object, _method: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
        if event.pop("_kept_back", False) or repeats.may_say(event):
            return event
        raise structlog.DropEvent

    return limit


def say_kept_back(event: Event) -> None:
    """Send an event that `processor` kept back through structlog's chain again."""
    level = event["level"]
    fields = {name: value for name, value in event.items() if name not in ("event", "level")}
    getattr(structlog.get_logger("stcp_proxy.repeats"), level)(event["event"], **fields, _kept_back=True)
