"""The targets of a tunnel: the addresses of `to`, and the state of each endpoint behind them.

Each `to` of a file has a `Targets` of its own. An `Attempt` is one connection's way through it.
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


class Targets:
    """The targets of one tunnel.

    Args:
        to: addresses as configured, at least one.
        tunnel: its name, for the log.
        balance: the order among them.
        own: keeps in mind what is dialled until its turn is over; only where connections are intercepted.
        rng: chance, for weights.
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
        self.has_probes = False
        """Whether somebody probes what is set aside."""
        self.is_watched = False
        """Whether all of it is probed all the time."""
        self.changed: Final = trio.lowlevel.ParkingLot()
        """Woken when an endpoint is set aside."""
        self._endpoints: dict[str, Endpoint] = {}
        self._lines: dict[Destination, _Line] = {}
        self._turns = itertools.count(1)
        for address in self.to:
            options = name_cache.fixed(address)
            if options:
                self._lines[address] = self._line(address, options)

    @classmethod
    def of(cls, plan: TunnelPlan) -> Targets:
        """Those of a whole tunnel."""
        return cls(plan.to, tunnel=plan.name, balance=plan.balance)

    def adopt(self, other: Targets) -> None:
        """Take over what `other`, whom this one replaces, knows of the addresses that both have. Connections of both count."""
        self._endpoints, self._turns = dict(other._endpoints), other._turns
        self._lines = {address: self._line(address, line.options) for address, line in self._lines.items()}
        self._forget()

    @property
    def endpoints(self) -> list[Endpoint]:
        """Every concrete address that is known now, in the order of the file."""
        lines = [self._lines[address] for address in self.to if address in self._lines]
        return list(dict.fromkeys(each.endpoint for line in lines for each in line.candidates))

    @property
    def is_choice(self) -> bool:
        """Whether there is more than one address to go to."""
        return len(self.to) > 1 or len(self.endpoints) > 1

    def fixed(self, address: Destination) -> list[Candidate] | None:
        """What is behind one address as configured where that is no name; None where it is to be looked up."""
        line = self._lines.get(address)
        return line.candidates if line is not None and line.fixed else None

    async def look_up(self, address: Destination, deadline: float, *, insist: bool = False) -> list[Candidate] | Failure:
        """What is behind one address as configured, names looked up; see `NameCache.options`."""
        if (fixed := self.fixed(address)) is not None:
            return fixed
        found = await name_cache.current().options(address, deadline, insist=insist)
        if isinstance(found, Failure):
            return found
        line = self._lines.get(address)
        if line is None or line.options is not found:
            line = self._lines[address] = self._line(address, found)
            self._forget()
        return line.candidates

    def names_of(self, endpoint: Endpoint) -> Iterator[Destination]:
        """The names that lead to an endpoint."""
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
        """Drop what no name leads to any more and no connection goes to."""
        named = {str(each.endpoint) for line in self._lines.values() for each in line.candidates}
        for key in [key for key, endpoint in self._endpoints.items() if key not in named and not endpoint.live]:
            del self._endpoints[key]

    def take(self, endpoint: Endpoint, now: float) -> None:
        """A connection is going to be tried there."""
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
        told = self.is_choice or self.is_watched
        probed = why.judgement.seen_by_health_check and self.has_probes and told
        first = endpoint.fail(why, now=trio.current_time(), since=since, probed=probed)
        if first and told:
            _log.warning(
                "target set aside", tunnel=self.tunnel, target=str(endpoint), reason=why.label, why=why.what, remedy=why.remedy
            )
        self.changed.unpark_all()

    def note_reached(self, endpoint: Endpoint) -> None:
        """A connection came through to it."""
        if endpoint.reach(trio.current_time()) and (self.is_choice or self.is_watched):
            _log.info("target is back", tunnel=self.tunnel, target=str(endpoint))


@dataclass(frozen=True, slots=True)
class _Line:
    """One address of `to`: what was last behind it.

    Attributes:
        options: as the names had it; another list when they change.
        candidates: the same with what is known of them.
        fixed: whether it is no name.
    """

    options: list[ResolvedAddress]
    candidates: list[Candidate]
    fixed: bool
