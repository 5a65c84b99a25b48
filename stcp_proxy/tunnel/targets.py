"""Where a tunnel's connections go: which address one tries first, and which next.

A `Targets` is what `to` says, with all that is known of each address behind it. Who has a `to` of its own has a `Targets` of its
own. One connection's way through it is a `Turn`, which tries every endpoint at most once:

    with targets.turn(timeout) as turn:
        while True:
            dialled = await turn.dial()          # raises when nobody is left
            ...                                  # handshake and opening, where there are any
            turn.reached(record)                 # or turn.failed(exc), and around again

Endpoints that are set aside come last, the one first whose failure is longest ago: no connection is refused untried.
"""

from __future__ import annotations

import collections
from collections.abc import Sequence
from typing import Final

import structlog
import trio

from stcp_proxy.errors import ClientGone, Code, OverLimit, PeerRejected, StcpError
from stcp_proxy.net.address import Address
from stcp_proxy.net.dial import Dialled, Failure, connect, places, summary
from stcp_proxy.tunnel.endpoint import Endpoint
from stcp_proxy.tunnel.record import Connection

_log = structlog.get_logger("stcp_proxy.targets")

TRY_NEXT: Final = {
    Code.TARGET_REFUSED,
    Code.TARGET_TIMED_OUT,
    Code.TARGET_UNREACHABLE,
    Code.OVER_LIMIT,
    Code.SHUTTING_DOWN,
}
"""REJECT codes after which another peer may well say yes."""


class Targets:
    """The targets of one tunnel.

    Args:
        to: addresses as configured, at least one.
        tunnel: its name, for the log.
    """

    def __init__(self, to: Sequence[Address], *, tunnel: str) -> None:
        self.to: Final = tuple(to)
        self.tunnel: Final = tunnel
        self._endpoints: dict[str, Endpoint] = {}
        self._lines: dict[Address, list[Endpoint]] = {address: [] for address in self.to}

    def turn(self, timeout: float) -> Turn:
        """One connection's way through the targets.

        Args:
            timeout: seconds for everything that is dialled, names included. What happens between two dials does not count.
        """
        return Turn(self, timeout)

    def adopt(self, other: Targets) -> None:
        """Take over what `other`, whom this one replaces, knows of the addresses that both have. Connections of both count."""
        self._endpoints = {**other._endpoints, **self._endpoints}

    @property
    def endpoints(self) -> list[Endpoint]:
        """Every concrete address that is known now, in the order of the file."""
        return list(dict.fromkeys(endpoint for line in self._lines.values() for endpoint in line))

    async def look_up(self, address: Address, deadline: float) -> list[Endpoint] | Failure:
        """The endpoints behind one address as configured, names resolved."""
        found = await places(address, deadline)
        if isinstance(found, Failure):
            return found
        known = [self._endpoints.setdefault(str(place), Endpoint(place)) for place in found]
        self._lines[address] = known
        self._forget()
        return known

    def _forget(self) -> None:
        """Drop what no name leads to any more and no connection goes to."""
        named = {id(endpoint) for line in self._lines.values() for endpoint in line}
        if len(self._endpoints) > len(named):
            self._endpoints = {key: each for key, each in self._endpoints.items() if id(each) in named or each.live}

    def note_failure(self, endpoint: Endpoint, why: StcpError, *, since: float) -> None:
        """An attempt that began at `since` failed for a reason that is the endpoint's own."""
        first = endpoint.fail(why, now=trio.current_time(), since=since)
        if first and self._is_choice():
            _log.warning(
                "target set aside", tunnel=self.tunnel, target=str(endpoint), reason=why.label, why=why.what, remedy=why.remedy
            )

    def note_reached(self, endpoint: Endpoint) -> None:
        """A connection came through to it."""
        if endpoint.reach(trio.current_time()) and self._is_choice():
            _log.info("target is back", tunnel=self.tunnel, target=str(endpoint))

    def _is_choice(self) -> bool:
        return len(self.to) > 1 or len(self.endpoints) > 1


class Turn:
    """One connection's way through the targets; a context manager."""

    def __init__(self, targets: Targets, timeout: float) -> None:
        self._targets = targets
        self._left = timeout
        self._lines = collections.deque(targets.to)
        self._ready: collections.deque[Endpoint] = collections.deque()
        self._aside: list[Endpoint] = []
        self._seen: set[Endpoint] = set()
        self._failures: list[Failure] = []
        self._last: StcpError | None = None
        self._current: Endpoint | None = None
        self._since = 0.0

    def __enter__(self) -> Turn:
        return self

    def __exit__(self, *exc: object) -> None:
        self._let_go()

    @property
    def more(self) -> bool:
        """Whether somebody is left to be tried."""
        return bool(self._ready or self._lines or self._aside)

    async def dial(self) -> Dialled:
        """Connect to the next endpoint that answers.

        Raises:
            TargetRefused, TargetTimedOut, TargetUnreachable: nobody is left; the text tells every attempt.
            StcpError: the same, where the last thing that happened was `failed`.
            OverLimit: this process has no descriptor left.

        Cancellation closes the socket under way.
        """
        self._let_go()
        while (endpoint := await self._next()) is not None:
            started = trio.current_time()
            self._take(endpoint, started)
            try:
                made = await connect(endpoint.place, started + self._share())
            finally:
                self._left -= trio.current_time() - started
            if not isinstance(made, Failure):
                return Dialled(made, str(endpoint))
            self._failures.append(made)
            self.failed(summary([endpoint], [made]), final=not self.more)
            self._last = None
        raise self._last or summary(self._targets.to, self._failures)

    def reached(self, record: Connection) -> None:
        """The connection came through to the endpoint that `dial` gave last; the record keeps it until its end."""
        assert self._current is not None  # noqa: S101
        self._targets.note_reached(self._current)
        record.endpoint, self._current = self._current, None

    def failed(self, why: StcpError, *, final: bool) -> None:
        """The connection did not come through to the endpoint that was tried last.

        Args:
            why: it did not.
            final: whether nobody else is going to be tried.
        """
        assert self._current is not None  # noqa: S101
        self._last = why
        failed = self._current
        if _is_its_own(why):
            self._targets.note_failure(failed, why, since=self._since)
        if not final:
            name = self._targets.tunnel
            _log.warning(
                "trying the next address", tunnel=name, failed=str(failed), reason=why.label, why=why.what, remedy=why.remedy
            )
        self._let_go()

    def _take(self, endpoint: Endpoint, now: float) -> None:
        endpoint.take_trial(now)
        endpoint.live += 1
        self._current, self._since = endpoint, now

    def _let_go(self) -> None:
        if self._current is not None:
            self._current.live -= 1
            self._current = None

    async def _next(self) -> Endpoint | None:
        """The endpoint to try now."""
        while True:
            if self._ready:
                return self._ready.popleft()
            if self._lines:
                await self._read_line()
            elif self._aside:
                self._ready.extend(sorted(self._aside, key=lambda endpoint: endpoint.failed_at))
                self._aside.clear()
            else:
                return None

    async def _read_line(self) -> None:
        address = self._lines.popleft()
        started = trio.current_time()
        try:
            found = await self._targets.look_up(address, started + self._share())
        finally:
            self._left -= trio.current_time() - started
        if isinstance(found, Failure):
            self._failures.append(found)
            self._last = None
            return
        now = trio.current_time()
        for endpoint in found:
            if endpoint not in self._seen:
                self._seen.add(endpoint)
                if endpoint.is_aside(now):
                    self._aside.append(endpoint)
                else:
                    self._ready.append(endpoint)

    def _share(self) -> float:
        """Seconds for this attempt: an equal part of what is left, by what is known to be left."""
        return max(0.0, self._left) / (1 + len(self._ready) + len(self._lines) + len(self._aside))


def _is_its_own(why: StcpError) -> bool:
    """Whether a failure is the endpoint's: not the application's, not a limit of this process, no refusal that others share."""
    if isinstance(why, PeerRejected):
        return why.reason in TRY_NEXT
    return not isinstance(why, ClientGone | OverLimit)
