"""One entry of the name cache: the last answer for a name, its last failure, and the lookup in progress.

``name_cache`` describes how answers age.
"""

from __future__ import annotations

import errno
import functools
from collections.abc import Awaitable, Callable
from typing import Final, Generic, TypeAlias, TypeVar

import structlog
import trio

from stcp_proxy.errors import OverLimit
from stcp_proxy.net.dial import Failure
from stcp_proxy.net.dns_client import Answer, NotThere
from stcp_proxy.net.dns_settings import DnsSettings

_T = TypeVar("_T")
_log = structlog.get_logger("stcp_proxy.names")

_PREFETCH: Final = 0.2
"""The last part of an answer's time, in which a request for it starts a lookup in the background."""
_PATIENCE: Final = 1.0
"""Seconds to wait for a new answer when an old one is in the cache."""
_FIRST_PAUSE: Final = 0.25
"""Seconds between two lookups of one name. After a failed lookup the pause doubles with every further failure."""
_LONGEST_PAUSE: Final = 3.0
_LEAST_TTL: Final = 1.0
"""Seconds for which an answer is used at least, even where its server says less."""
_LOOKUP_LIMIT: Final = 20.0
"""Seconds after which a lookup counts as failed, although its thread may go on."""

Ask: TypeAlias = Callable[[str, Callable[[Answer[_T]], None]], Awaitable[Answer[_T]]]
"""Looks a name up, and may publish a part of the answer that comes before the rest."""


class CachedAnswer(Generic[_T]):
    """The cache entry of one name: its last answer, its last failure, and the lookup in progress."""

    def __init__(self, name: str, ask: Ask[_T], settings: DnsSettings) -> None:
        self._name = name
        self._ask = ask
        self._settings = settings
        self.records: _T | None = None
        self._started_at = self._asked_at = self._prefetch_at = self._fresh_until = self._usable_until = float("-inf")
        self._failure: Failure | None = None
        self._failures = 0
        self._answered_at = self._ask_again_at = float("-inf")
        self._under_way: trio.Event | None = None

    def expire(self) -> None:
        """Start a new lookup before this answer is used again, unless the answer is newer than `_FIRST_PAUSE`."""
        if trio.current_time() >= self._asked_at + _FIRST_PAUSE:
            self._fresh_until = self._prefetch_at = float("-inf")

    async def get(self, deadline: float, insist: bool, *, stand_in: bool = True) -> _T | Failure:
        """The answer, looked up where that is due.

        Args:
            deadline: until when to wait for a lookup, on Trio's clock.
            insist: wait for a retry where the last lookup failed.
            stand_in: whether an expired answer may be returned while no new one comes.
        """
        now = trio.current_time()
        if self.records is not None and now < self._fresh_until:
            if now >= self._prefetch_at:
                self._start()
            return self.records
        if now >= self._ask_again_at or (insist and now >= self._asked_at + _FIRST_PAUSE):
            self._start()
        under_way = self._under_way
        if under_way is None or (self._failure is not None and not insist):
            return self._told(self._failure, stand_in)
        has_other = stand_in and self._old() is not None
        with trio.move_on_at(min(deadline, now + _PATIENCE) if has_other else deadline):
            await under_way.wait()
            return self._told(self._failure, stand_in)
        failure = Failure(self._name, errno.ETIMEDOUT, f"resolving {self._name} took too long")
        if trio.current_time() >= self._started_at + _PATIENCE:
            self._failure = failure  # the next ones need not find out for themselves
        return self._told(failure, stand_in)

    def _told(self, failure: Failure | None, stand_in: bool) -> _T | Failure:
        if failure is None:
            assert self.records is not None  # noqa: S101  (a lookup has ended, and not in failure)
            return self.records
        old = self._old() if stand_in else None
        return failure if old is None else old

    def _old(self) -> _T | None:
        return self.records if trio.current_time() < self._usable_until else None

    def _start(self) -> None:
        if self._under_way is None or self._under_way.is_set():
            self._under_way, self._started_at = trio.Event(), trio.current_time()
            trio.lowlevel.spawn_system_task(self._look_up, self._under_way)

    async def _look_up(self, done: trio.Event) -> None:
        """Look the name up and store the result. Every exception is a failed lookup: a system task may not raise."""
        failure = Failure(self._name, errno.ETIMEDOUT, f"resolving {self._name} took too long")
        answer: Answer[_T] | None = None
        try:
            with trio.move_on_after(_LOOKUP_LIMIT):
                answer = await self._ask(self._name, functools.partial(self._publish, done))
        except NotThere as exc:
            self.records = None
            failure = Failure(self._name, 0, f"cannot resolve {self._name}: {exc}")
        except OverLimit as exc:
            failure = Failure(self._name, 0, f"cannot resolve {self._name}: {exc.what}", lack=exc)
        except Exception as exc:
            reason = exc.strerror if isinstance(exc, OSError) and exc.strerror else str(exc) or type(exc).__name__
            failure = Failure(self._name, 0, f"cannot resolve {self._name}: {reason}")
        if self._under_way is not done:
            return  # a part of the answer was published, and a newer lookup has begun since then
        self._under_way = None
        self._asked_at = now = trio.current_time()
        if answer is None:
            self._note_failure(failure, now)
        else:
            self._note_answer(answer, now)
        done.set()

    def _publish(self, done: trio.Event, answer: Answer[_T]) -> None:
        """Use a part of the answer while the rest is still to come."""
        if self._under_way is done:
            self._asked_at = trio.current_time()
            self._note_answer(answer, self._asked_at)
            done.set()

    def _note_failure(self, failure: Failure, now: float) -> None:
        self._failure = failure
        self._failures += 1
        self._ask_again_at = now + min(_LONGEST_PAUSE, _FIRST_PAUSE * 2.0 ** min(self._failures - 1, 16))
        if self._failures == 1:
            old = None if self._old() is None else f"the answer of {now - self._answered_at:.0f} s ago is used"
            _log.warning("name lookup failed", name=self._name, why=failure.words, meanwhile=old or "there is no older answer")

    def _note_answer(self, answer: Answer[_T], now: float) -> None:
        if self._failures:
            _log.info("name lookup works again", name=self._name)
        ttl = min(self._settings.ttl, max(answer.ttl, _LEAST_TTL))
        if self.records != answer.records:  # the same answer stays the same object: nobody has to compare it again
            self.records = answer.records
        self._failure, self._failures = None, 0
        self._answered_at, self._ask_again_at = now, float("-inf")
        self._fresh_until, self._prefetch_at = now + ttl, now + ttl * (1 - _PREFETCH)
        self._usable_until = self._fresh_until + self._settings.stale
