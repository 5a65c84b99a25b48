"""What the admin address requires of a running proxy. `process/` and `tunnel/` implement it without importing it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import TYPE_CHECKING, Any, Protocol

from stcp_proxy.config import Plan, TunnelPlan
from stcp_proxy.counters import Ledger, Reloads
from stcp_proxy.errors import StcpError
from stcp_proxy.net.address import Destination
from stcp_proxy.relay.engine import Engine, Relay

if TYPE_CHECKING:
    from stcp_proxy.credentials.verifier import Verified


class Link(Protocol):
    """A live connection. Every property may change until the relay begins."""

    @property
    def client(self) -> str:
        """Address of the client that connected."""

    @property
    def started(self) -> float:
        """Time of the accept, on the monotonic clock."""

    @property
    def channel(self) -> str:
        """The channel id, which both sides log; empty before the handshake."""

    @property
    def peer(self) -> str:
        """The peer's configured name; empty before the peer has proved its key."""

    @property
    def rule(self) -> str:
        """The part of the configuration that admits the peer, its label in metrics."""

    @property
    def key(self) -> bytes | None:
        """The key that the peer has proved."""

    @property
    def certificate(self) -> Verified | None:
        """What the certificate of the peer says; None without one."""

    @property
    def own(self) -> bytes | None:
        """The key of this side that was used in the handshake with the peer."""

    @property
    def target(self) -> str:
        """Address that this side dialled; empty before the dial."""

    @property
    def early(self) -> int:
        """Application bytes that the engine does not count."""

    @property
    def relay(self) -> Relay | None:
        """The engine's handle; None before the handover."""


class Endpoint(Protocol):
    """One resolved address of a target. `str` of it is the address."""

    @property
    def live(self) -> int:
        """The number of attempts and open connections to it."""

    @property
    def failures(self) -> int:
        """The number of failures in a row; 0 means healthy."""

    @property
    def failing_since(self) -> float:
        """The time of the first of these failures, on Trio's clock."""

    @property
    def until(self) -> float:
        """The time when it returns to its place in the order after a failure, on Trio's clock."""

    @property
    def reached_at(self) -> float:
        """The time of the last success; minus infinity means never."""

    @property
    def why(self) -> StcpError | None:
        """The last failure."""


class Unresolved(Protocol):
    """A name without an address."""

    @property
    def since(self) -> float:
        """The time of the first of the lookups that failed in a row, on Trio's clock."""

    @property
    def why(self) -> str:
        """The last failure."""

    @property
    def remedy(self) -> str:
        """What to do about it."""


class Targets(Protocol):
    """The targets for one kind of connection."""

    @property
    def to(self) -> Sequence[Destination]:
        """The addresses as configured."""

    @property
    def endpoints(self) -> Sequence[Endpoint]:
        """All endpoints that are known now."""

    @property
    def without_endpoint(self) -> Sequence[tuple[Destination, Unresolved | None]]:
        """The configured addresses that no endpoint is known for, and why; None before the first lookup."""


class Tunnel(Protocol):
    """One running tunnel."""

    @property
    def plan(self) -> TunnelPlan:
        """The tunnel's configuration."""

    @property
    def engine(self) -> Engine:
        """The engine that carries its connections."""

    @property
    def addresses(self) -> list[str]:
        """Its listening addresses; empty when it does not listen."""

    @property
    def lost(self) -> list[str]:
        """The addresses of unix sockets whose file was removed or replaced: clients cannot connect to them."""

    @property
    def behind(self) -> Sequence[tuple[str, str, Targets]]:
        """Its targets, each with the names of its service and its route. Both names are empty for the tunnel's own `to`."""

    @property
    def connections(self) -> AbstractSet[Link]:
        """Its live connections."""

    @property
    def strangers(self) -> int:
        """The number of accepted connections without a complete first message; they are not in `connections`."""

    @property
    def proving(self) -> int:
        """The number of unauthenticated connections among them."""

    @property
    def idle_legs(self) -> int:
        """The number of its wire legs between two connections."""

    @property
    def ledger(self) -> Ledger:
        """The counts of the tunnel."""

    async def reach(self) -> None:
        """Return when the far target has answered.

        Raises:
            StcpError: the reason why it has not answered.
        """


class Host(Protocol):
    """A process with running tunnels. Read all properties in Trio's thread."""

    @property
    def plan(self) -> Plan:
        """The plan that runs now."""

    @property
    def state(self) -> str:
        """``starting``, ``ready`` or ``draining``."""

    @property
    def started(self) -> float:
        """The start time, in seconds since 1970."""

    @property
    def worker(self) -> int:
        """Its number among the worker processes."""

    @property
    def workers(self) -> int:
        """The number of worker processes."""

    @property
    def engines(self) -> Mapping[str, tuple[str, str]]:
        """For each configured choice, the engine's name and the reason for it."""

    @property
    def tunnels(self) -> Sequence[Tunnel]:
        """Its tunnels."""

    @property
    def rules(self) -> str:
        """The state of the host's interception rules: a value of `Installed`; empty where no tunnel intercepts."""

    @property
    def egress_filter(self) -> tuple[str, tuple[str, ...]]:
        """The state of the egress filter: a value of `EgressState`, and the interfaces that it is about."""

    @property
    def log_lines_dropped(self) -> int:
        """The number of log lines that could not be written without waiting."""

    @property
    def spans(self) -> dict[str, int]:
        """Spans by result: ``exported``, ``failed``, ``dropped``; empty without spans."""

    @property
    def reloads(self) -> Reloads:
        """The counts of reloads, and the last reload."""

    async def reload(self, *, check: bool, force: bool = False) -> dict[str, Any]:
        """Read the configuration again, or only compare it with what runs.

        Raises:
            StcpError: the reload is refused, with the reason; nothing has changed.
        """

    def after_reload(self, call: Callable[[], None]) -> None:
        """Register `call`: it is called after each reload, in Trio's thread."""

    def quit(self) -> None:
        """Stop all worker processes in order, as SIGTERM does."""
