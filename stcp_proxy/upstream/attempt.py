"""One connection's attempts at the endpoints of its targets: each endpoint at most once.

    with Attempt(targets, timeout) as attempt:
        while True:
            dialled = await attempt.dial()       # raises when no endpoint is left
            ...                                  # handshake and opening, where there are any
            endpoint = attempt.reached()         # or attempt.failed(exc), and around again, or not

The order: healthy endpoints as the tunnel's balance sorts them; unhealthy ones, the oldest failure first; endpoints that a
second lookup of failed names finds. So every endpoint is tried before a connection is refused.

Each attempt gets an equal part of the time that is left, by the number of endpoints known to be left. So an endpoint that
swallows packets cannot use up the time of the others, and a single endpoint has the whole deadline.
"""

from __future__ import annotations

import collections
import socket
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import structlog
import trio

from stcp_proxy.config import Balance
from stcp_proxy.errors import PeerUnreachable, StcpError, TargetError, TargetUnreachable
from stcp_proxy.net import name_cache
from stcp_proxy.net.address import Destination
from stcp_proxy.net.dial import Dialled, Failure, connect, summary
from stcp_proxy.net.first_steps import in_task
from stcp_proxy.protocol.opening import Endpoint as OpeningEndpoint
from stcp_proxy.upstream.balance import Candidate, arrange
from stcp_proxy.upstream.endpoint import Endpoint
from stcp_proxy.upstream.targets import REPAIR_NAME, Targets

_log = structlog.get_logger("stcp_proxy.targets")
D = TypeVar("D")
T = TypeVar("T")


class Attempt:
    """One connection's attempts; a context manager.

    Args:
        targets: the targets.
        timeout: seconds for all attempts together.
        source: a client whose address the attempts come from. [default: this machine's address]
    """

    def __init__(self, targets: Targets, timeout: float, source: OpeningEndpoint | None = None) -> None:
        self._targets = targets
        self._source = source
        self._left = timeout
        only = targets.only
        known = () if only is None or only.failures else (only,)
        self._lines = collections.deque(() if known else targets.to)
        self._ready: collections.deque[Endpoint] = collections.deque(known)
        self._unhealthy: list[Endpoint] = []
        self._doubtful: dict[Destination, bool] = {}
        """Names to look up again when no endpoint is left, and whether that has been done."""
        self._seen: set[Endpoint] = set(known)
        self._failures: list[Failure] = []
        self._unresolved = 0
        """The number of failures that are those of a name."""
        self._last: StcpError | None = None
        self._failed: tuple[str, StcpError] | None = None
        """The last failure and its endpoint, until a log line tells it."""
        self._current: Endpoint | None = None
        self._since = 0.0
        self._sockname: Any = None

    def __enter__(self) -> Attempt:
        return self

    def __exit__(self, *exc: object) -> None:
        self._let_go()

    @property
    def more(self) -> bool:
        """Whether an endpoint may be left to try."""
        return bool(self._ready or self._lines or self._unhealthy) or not all(self._doubtful.values())

    async def dial(self) -> Dialled:
        """Connect to the next endpoint that answers; see `dial_or_take`."""
        return await self.dial_or_take(_nothing)

    async def dial_or_take(self, take: Callable[[str], T | None]) -> Dialled | T:
        """Go to the next endpoint: by what `take` has for it, or by a new connection.

        Args:
            take: gives a connection to an address that exists already, or None.

        Raises:
            TargetRefused, TargetTimedOut, TargetUnreachable: no endpoint is left; the text tells every attempt.
            StcpError: no endpoint is left, and the last one failed after it was dialled.
            OverLimit: this machine lacks descriptors, memory or ports.

        Cancellation closes the socket under way.
        """
        self._let_go()
        while (endpoint := await self._next()) is not None:
            self._log_failover(endpoint)
            self._since = trio.current_time()
            self._targets.take(endpoint, self._since)
            self._current = endpoint
            if (taken := take(endpoint.name)) is not None:
                return taken
            made = await self._connect(endpoint)
            if not isinstance(made, Failure):
                return Dialled(made, endpoint.name)
            self._failures.append(made)
            if made.local:
                self._let_go()
            else:
                self._fail(summary([endpoint], [made]))
            self._last = None
        raise self._last or self._nobody_left()

    def _nobody_left(self) -> StcpError:
        """The failure of a connection that has tried every endpoint."""
        error = summary(self._targets.to, self._failures)
        if self._failures and self._unresolved == len(self._failures) and isinstance(error, TargetError):
            return TargetUnreachable(error.what, remedy=REPAIR_NAME)
        return error

    def _log_failover(self, endpoint: Endpoint) -> None:
        if self._failed is not None:
            (failed, why), self._failed = self._failed, None
            _log.warning(
                "connection failed over",
                tunnel=self._targets.tunnel,
                why=why.what,
                remedy=why.remedy,
                failed=failed,
                next=str(endpoint),
                reason=why.label,
                log_class=why.judgement.log_class,
            )

    async def again(self) -> Dialled:
        """Connect once more to the endpoint that `dial` gave last.

        Raises:
            TargetRefused, TargetTimedOut, TargetUnreachable: it does not answer any more.
            OverLimit: this process has no descriptor left.
        """
        assert self._current is not None  # noqa: S101
        self._forget_dial()
        made = await self._connect(self._current)
        if isinstance(made, Failure):
            raise summary([self._current], [made])
        return Dialled(made, self._current.name)

    async def _connect(self, endpoint: Endpoint) -> socket.socket | Failure:
        started = trio.current_time()
        try:
            made = await connect(endpoint.address, started + self._share(), own=self._targets.own, source=self._source)
        finally:
            self._left -= trio.current_time() - started
        if self._targets.own is not None and not isinstance(made, Failure):
            self._sockname = made.getsockname()
        return made

    async def until_served(
        self, dial: Callable[[], Awaitable[D]], use: Callable[[D], Awaitable[T]], *, heard: Callable[[], bool]
    ) -> T:
        """Go from peer to peer until one serves the connection.

        Args:
            dial: goes to the next endpoint, by `dial` or `dial_or_take` of this object.
            use: does the rest at the peer; its failure decides whether the next peer may be asked.
            heard: tells whether a byte of the application may have reached a target through this peer.

        Returns:
            The result of `use`.

        Raises:
            StcpError: the failure of `dial`, or of the last peer that was asked.
        """
        while True:
            dialled = await dial()
            try:
                return await use(dialled)
            except StcpError as exc:
                self.failed(exc)
                if not (self.more and exc.judgement.may_ask_next_peer(heard=heard())):
                    raise

    def reached(self) -> Endpoint:
        """Note that the endpoint that `dial` gave last serves the connection.

        Returns:
            The endpoint. It counts the connection as live until the caller takes one off `live`.
        """
        assert self._current is not None  # noqa: S101
        endpoint, self._current = self._current, None
        self._targets.note_reached(endpoint)
        return endpoint

    def failed(self, why: StcpError) -> None:
        """Note that the endpoint that `dial` gave last does not serve the connection."""
        self._last = why
        self._fail(why)

    def _fail(self, why: StcpError) -> None:
        assert self._current is not None  # noqa: S101
        endpoint, self._failed = self._current, (str(self._current), why)
        if why.judgement.blames_endpoint:
            self._targets.note_failure(endpoint, why, since=self._since)
            for address in self._targets.names_of(endpoint):
                name_cache.current().invalidate(address)
                self._doubtful.setdefault(address, False)
        self._let_go()

    def _forget_dial(self) -> None:
        if self._targets.own is not None and self._sockname is not None:
            self._targets.own.forget(self._sockname)
            self._sockname = None

    def _let_go(self) -> None:
        self._forget_dial()
        if self._current is not None:
            self._current.live -= 1
            self._current = None

    async def _next(self) -> Endpoint | None:
        """The next endpoint: healthy, then unhealthy, then found by a second lookup; None when no endpoint is left."""
        while True:
            if self._ready:
                return self._ready.popleft()
            if self._lines:
                await self._read_lines()
            elif self._unhealthy:
                self._ready.extend(sorted(self._unhealthy, key=lambda endpoint: endpoint.failed_at))
                self._unhealthy.clear()
            else:
                again = [address for address, done in self._doubtful.items() if not done]
                if not again:
                    return None
                self._doubtful |= dict.fromkeys(again, True)
                await self._read(again, insist=True)

    async def _read_lines(self) -> None:
        """Resolve the next address with failover, and all addresses with other balances, which need them all to sort."""
        if self._targets.balance is Balance.FAILOVER:
            await self._read([self._lines.popleft()])
        else:
            lines = list(self._lines)
            self._lines.clear()
            await self._read(lines)

    async def _read(self, lines: list[Destination], *, insist: bool = False) -> None:
        new: list[Candidate] = []
        while lines:
            address = lines.pop(0)
            found = self._targets.fixed(address) or await self._look_up(address, len(lines), insist=insist)
            if not isinstance(found, Failure):
                new += [each for each in found if each.endpoint not in self._seen]
                self._seen.update([each.endpoint for each in found])
            elif insist:
                self._failures.append(found)
                self._unresolved += 1
            else:
                self._doubtful.setdefault(address, False)
        ready: list[Candidate] = []
        for each in new:
            if each.endpoint.failures and each.endpoint.is_unhealthy(trio.current_time()):
                self._unhealthy.append(each.endpoint)
            else:
                ready.append(each)
        if ready:
            self._ready.extend(arrange(ready, self._targets.balance, self._targets.rng))

    async def _look_up(self, address: Destination, more: int, *, insist: bool) -> list[Candidate] | Failure:
        await in_task()
        started = trio.current_time()
        try:
            return await self._targets.look_up(address, started + self._share(more), insist=insist)
        finally:
            self._left -= trio.current_time() - started

    def _share(self, more: int = 0) -> float:
        """Seconds for this attempt: an equal part of the time that is left."""
        waiting = more + len(self._ready) + len(self._lines) + len(self._unhealthy) + list(self._doubtful.values()).count(False)
        return max(0.0, self._left) / (1 + waiting)


def _nothing(endpoint: str) -> Dialled | None:
    """No connection exists already."""
    return None


def peer_unreachable(why: TargetError) -> PeerUnreachable:
    """The failure of a connect tunnel whose peer cannot be dialled.

    Args:
        why: the failure of the dial.
    """
    remedy = why.remedy if isinstance(why, TargetUnreachable) else None  # a name or a route: the peer's program is not to blame
    return PeerUnreachable(f"the peer cannot be reached: {why.what}", remedy=remedy)
