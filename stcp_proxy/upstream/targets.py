"""The targets of a tunnel: the addresses under `to`, and the health of each endpoint behind them.

Each `to` in a file has a `Targets` of its own. An `Attempt` is one connection's way through its endpoints.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import structlog
import trio

from stcp_proxy.config import Balance, TunnelPlan
from stcp_proxy.errors import StcpError
from stcp_proxy.net import name_cache
from stcp_proxy.net.address import Destination, SrvAddress
from stcp_proxy.net.dial import Failure
from stcp_proxy.net.name_cache import ResolvedAddress
from stcp_proxy.net.own_connections import OwnConnections
from stcp_proxy.upstream.balance import Candidate
from stcp_proxy.upstream.endpoint import Endpoint

_log = structlog.get_logger("stcp_proxy.targets")

REPAIR_NAME: Final = "correct the name, or repair name resolution ('getent hosts NAME' shows what it says)"
"""The remedy for a name that cannot be resolved."""


@dataclass(frozen=True, slots=True)
class Unresolved:
    """A name without an address.

    Attributes:
        since: the time of the first of the lookups that failed in a row, on Trio's clock.
        why: the last failure.
    """

    since: float
    why: str
    remedy: str = REPAIR_NAME


class Targets:
    """The targets of one tunnel.

    Args:
        to: addresses as configured, at least one.
        tunnel: its name, for the log.
        balance: the order among them.
        own: registers the sockets of attempts; only where connections are intercepted.
        rng: random numbers, for weights.
    """

    def __init__(
        self,
        to: Sequence[Destination],
        *,
        tunnel: str,
        balance: Balance = Balance.FAILOVER,
        own: OwnConnections | None = None,
        rng: random.Random | None = None,
    ) -> None:
        self.to: Final = tuple(dict.fromkeys(to))
        self.tunnel: Final = tunnel
        self.balance: Final = balance
        self.own: Final = own
        self.rng: Final = rng or random.Random()  # noqa: S311  (no secret)
        self.has_checks = False
        """Whether health checks try unhealthy endpoints."""
        self.checks_all = False
        """Whether health checks try every endpoint all the time."""
        self.changed: Final = trio.lowlevel.ParkingLot()
        """Woken when an endpoint becomes unhealthy."""
        self._endpoints: dict[str, Endpoint] = {}
        self._lines: dict[Destination, _Line] = {}
        self._turns = itertools.count(1)
        self._unresolved: dict[Destination, Unresolved] = {}
        for address in self.to:
            options = name_cache.fixed(address)
            if options:
                self._lines[address] = self._line(address, options)

    @classmethod
    def of(cls, plan: TunnelPlan) -> Targets:
        """The targets under a tunnel's own `to`."""
        return cls(plan.to, tunnel=plan.name, balance=plan.balance)

    def adopt(self, other: Targets) -> None:
        """Take over the endpoints of the targets that these replace, with their health and their live connections."""
        self._endpoints, self._turns = dict(other._endpoints), other._turns
        self._unresolved = dict(other._unresolved)
        self._lines = {address: self._line(address, line.options) for address, line in self._lines.items()}
        self._forget()

    @property
    def endpoints(self) -> list[Endpoint]:
        """Every endpoint that is known now, in the order of the file."""
        lines = [self._lines[address] for address in self.to if address in self._lines]
        return list(dict.fromkeys(each.endpoint for line in lines for each in line.candidates))

    @property
    def without_endpoint(self) -> list[tuple[Destination, Unresolved | None]]:
        """The addresses under `to` that no endpoint is known for, and why; None before the first lookup."""
        return [(address, self._unresolved.get(address)) for address in self.to if address not in self._lines]

    @property
    def is_choice(self) -> bool:
        """Whether there is more than one endpoint."""
        return len(self.to) > 1 or len(self.endpoints) > 1

    @property
    def only(self) -> Endpoint | None:
        """The only endpoint, where no lookup can find others; None elsewhere."""
        found = self.fixed(self.to[0]) if len(self.to) == 1 else None
        return found[0].endpoint if found is not None and len(found) == 1 else None

    def fixed(self, address: Destination) -> list[Candidate] | None:
        """The candidates of an address that needs no lookup; None for a name."""
        line = self._lines.get(address)
        return line.candidates if line is not None and line.fixed else None

    async def look_up(self, address: Destination, deadline: float, *, insist: bool = False) -> list[Candidate] | Failure:
        """The candidates of an address as configured, with names looked up; see `NameCache.options`."""
        if (fixed := self.fixed(address)) is not None:
            return fixed
        found = await name_cache.current().options(address, deadline, insist=insist)
        if isinstance(found, Failure):
            since = self._unresolved[address].since if address in self._unresolved else trio.current_time()
            self._unresolved[address] = Unresolved(since, found.words)
            return found
        self._unresolved.pop(address, None)
        line = self._lines.get(address)
        if line is None or line.options is not found:
            line = self._lines[address] = self._line(address, found)
            self._forget()
        return line.candidates

    def names_of(self, endpoint: Endpoint) -> Iterator[Destination]:
        """The names that resolve to an endpoint."""
        for address, line in self._lines.items():
            if not line.fixed and any(each.endpoint is endpoint for each in line.candidates):
                yield address

    def _line(self, address: Destination, options: list[ResolvedAddress]) -> _Line:
        drawn = isinstance(address, SrvAddress)
        candidates = []
        for option in options:
            endpoint = self._endpoints.setdefault(str(option.address), Endpoint(option.address))
            candidates.append(Candidate(endpoint, option.priority, option.weight, drawn))
        return _Line(options, candidates, fixed=bool(name_cache.fixed(address)))

    def _forget(self) -> None:
        """Drop endpoints that no name resolves to and no connection uses."""
        named = {str(each.endpoint) for line in self._lines.values() for each in line.candidates}
        for key in [key for key, endpoint in self._endpoints.items() if key not in named and not endpoint.live]:
            del self._endpoints[key]

    def take(self, endpoint: Endpoint, now: float) -> None:
        """Note that a connection tries an endpoint."""
        endpoint.take_trial(now)
        endpoint.live += 1
        endpoint.turn = next(self._turns)

    def note_failure(self, endpoint: Endpoint, why: StcpError, *, since: float) -> None:
        """Note the failure of an attempt for a reason that blames the endpoint.

        Args:
            endpoint: the endpoint of the attempt.
            why: the failure.
            since: when the attempt began, on Trio's clock.
        """
        matters = self.is_choice or self.checks_all
        checked = why.judgement.seen_by_health_check and self.has_checks and matters
        first = endpoint.fail(why, now=trio.current_time(), since=since, left_to_check=checked)
        if first and matters:
            _log.warning(
                "endpoint marked unhealthy",
                tunnel=self.tunnel,
                why=why.what,
                remedy=why.remedy,
                target=str(endpoint),
                reason=why.label,
            )
        self.changed.unpark_all()

    def note_reached(self, endpoint: Endpoint) -> None:
        """Note that a connection or a health check reached an endpoint."""
        if endpoint.reach(trio.current_time()) and (self.is_choice or self.checks_all):
            _log.info("endpoint became healthy", tunnel=self.tunnel, target=str(endpoint))


@dataclass(frozen=True, slots=True)
class _Line:
    """One address under `to`, and the result of its last lookup.

    Attributes:
        options: the result; another list when it changes.
        candidates: the endpoints of the result, in the same order.
        fixed: whether the address needs no lookup.
    """

    options: list[ResolvedAddress]
    candidates: list[Candidate]
    fixed: bool
