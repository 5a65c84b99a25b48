"""What the admin address needs of a running proxy. `process/` and `tunnel/` fulfil it without importing it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import Any, Protocol

from stcp_proxy.config import Plan, TunnelPlan
from stcp_proxy.counters import Ledger, Reloads
from stcp_proxy.errors import StcpError
from stcp_proxy.net.address import Destination
from stcp_proxy.relay.engine import Engine, Relay


class Link(Protocol):
    """A connection that has not ended. All of it may change until it is relayed."""

    @property
    def client(self) -> str:
        """Address of whoever connected."""

    @property
    def started(self) -> float:
        """When it was accepted, on the monotonic clock."""

    @property
    def channel(self) -> str:
        """The channel id that both sides log; empty before the handshake."""

    @property
    def peer(self) -> str:
        """The peer's configured name; empty before it has proved itself."""

    @property
    def key(self) -> bytes | None:
        """The key that the peer has proved."""

    @property
    def own(self) -> bytes | None:
        """The key of this side's that it was proved to."""

    @property
    def target(self) -> str:
        """Address this side dialled; empty before that."""

    @property
    def early(self) -> int:
        """Application bytes that the engine did not count."""

    @property
    def relay(self) -> Relay | None:
        """The engine's handle, once an engine carries it."""


class Endpoint(Protocol):
    """A concrete address that a tunnel dials. Its text is the address."""

    @property
    def live(self) -> int:
        """Connections that are on their way to it or open."""

    @property
    def failures(self) -> int:
        """How many in a row; 0 is in order."""

    @property
    def until(self) -> float:
        """When it may be tried in its place again after a failure, on Trio's clock."""

    @property
    def reached_at(self) -> float:
        """When it was last reached; minus infinity is never."""

    @property
    def why(self) -> StcpError | None:
        """Its last failure."""


class Targets(Protocol):
    """Where connections of one kind go."""

    @property
    def to(self) -> Sequence[Destination]:
        """Addresses as configured."""

    @property
    def endpoints(self) -> Sequence[Endpoint]:
        """Every concrete address that is known now."""


class Tunnel(Protocol):
    """One tunnel that serves."""

    @property
    def plan(self) -> TunnelPlan:
        """What it is to do."""

    @property
    def engine(self) -> Engine:
        """Who carries its connections."""

    @property
    def addresses(self) -> list[str]:
        """Where it listens; empty when it does not."""

    @property
    def lost(self) -> list[str]:
        """The addresses of unix sockets whose file was removed or replaced: nobody can connect to them."""

    @property
    def behind(self) -> Sequence[tuple[str, str, Targets]]:
        """Where its connections go, with the service or the route that leads there; both are empty for its own `to`."""

    @property
    def connections(self) -> AbstractSet[Link]:
        """Those that have not ended."""

    @property
    def proving(self) -> int:
        """How many of them have not proved themselves."""

    @property
    def ledger(self) -> Ledger:
        """What it has done."""

    async def reach(self) -> None:
        """Return when the far target has answered.

        Raises:
            StcpError: why it did not.
        """


class Host(Protocol):
    """A process that serves. Everything is read in Trio's thread."""

    @property
    def plan(self) -> Plan:
        """What it serves now."""

    @property
    def state(self) -> str:
        """``starting``, ``ready`` or ``draining``."""

    @property
    def started(self) -> float:
        """When, in seconds since 1970."""

    @property
    def worker(self) -> int:
        """Its number among the workers."""

    @property
    def workers(self) -> int:
        """How many there are."""

    @property
    def engines(self) -> Mapping[str, tuple[str, str]]:
        """For each configured choice, the engine's name and why it is that one."""

    @property
    def tunnels(self) -> Sequence[Tunnel]:
        """Its tunnels."""

    @property
    def rules(self) -> str:
        """Which rules of interception the host has: a value of `Installed`; empty where no tunnel intercepts."""

    @property
    def log_lines_dropped(self) -> int:
        """Log lines that could not be written without waiting."""

    @property
    def reloads(self) -> Reloads:
        """Readings of the configuration."""

    async def reload(self, *, check: bool) -> dict[str, Any]:
        """Read the configuration again, or only compare it with what runs.

        Raises:
            StcpError: it is refused, and why; nothing has changed.
        """

    def after_reload(self, call: Callable[[], None]) -> None:
        """Have `call` called after each reload, in Trio's thread."""

    def quit(self) -> None:
        """Stop all workers in order, as SIGTERM does."""
