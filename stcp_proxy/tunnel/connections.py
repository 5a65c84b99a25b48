"""The live connections of one tunnel: on their way to an engine, or carried by one.

A connection is *opening* from accept to its handover. It is *unauthenticated* until its peer has proved its key. An engine
reports the end of a connection from its own thread or from Trio's; the end is always processed in Trio's thread.
"""

from __future__ import annotations

import collections
import contextlib
import math
import socket
import threading
from collections.abc import Awaitable, Callable, Coroutine
from collections.abc import Set as AbstractSet
from typing import Any, Final, Protocol

import trio

from stcp_proxy.config import Mode, TunnelPlan
from stcp_proxy.counters import Ledger
from stcp_proxy.errors import HandshakeError, LifetimeOver, OverLimit, PeerOverLimit, StcpError, code_for
from stcp_proxy.handshake.trust import Trust, revoked
from stcp_proxy.net.source import source_of_client
from stcp_proxy.relay.engine import RelayEnd
from stcp_proxy.session.handover import stopping
from stcp_proxy.session.record import Connection
from stcp_proxy.tunnel.descriptors import Descriptors
from stcp_proxy.tunnel.lifetimes import Lifetimes
from stcp_proxy.tunnel.lobby import Lobby
from stcp_proxy.tunnel.peer_limits import PeerLimits
from stcp_proxy.tunnel.unauthenticated import SILENCE, Unauthenticated


class Session(Protocol):
    """The steps of one connection from accept to its handover."""

    def run(self) -> Coroutine[Any, Any, None]:
        """Take every step.

        Raises:
            StcpError: why the connection did not come to a handover.
        """


MakeSession = Callable[[Connection, socket.socket], Session]


class _Opening:
    """A connection on its way to an engine.

    Attributes:
        trust: the access rule that was in force when its session began.
    """

    __slots__ = ("_scope", "trust")

    def __init__(self, trust: Trust) -> None:
        self._scope: trio.CancelScope | None = None
        self.trust = trust

    @property
    def scope(self) -> trio.CancelScope:
        """Cancels its session. It is made when it is needed, because most sessions end before they have a task."""
        if self._scope is None:
            self._scope = trio.CancelScope()
        return self._scope

    def cancel(self) -> None:
        """Cancel its session: now if it has a task, else when it gets one."""
        self.scope.cancel()


class LiveConnections:
    """The connections of one tunnel that have not ended. Fulfils `Owner` and `Gate` for their sessions.

    Args:
        mode: the role of the tunnel; only on a listen tunnel may an unauthenticated connection lose its place.
        trust: the access rule.
        ledger: where the connections are counted.
        descriptors: the limit that all tunnels share.

    Attributes:
        trust: the access rule in force.
        changed: woken when a connection ends, authenticates, or a limit changes.
        unauthenticated: connections whose peer has not proved its key.
        peers: the limits of each peer.
        grace_until: end of the grace of the last revocation, on Trio's clock.
        lobby: accepted connections that have no session yet; None where every connection gets one at once.
        lifetimes: ends connections after their maximum lifetime.
    """

    def __init__(self, mode: Mode, trust: Trust, ledger: Ledger, descriptors: Descriptors | None = None) -> None:
        self.mode: Final = mode
        self.descriptors: Final = Descriptors() if descriptors is None else descriptors
        self.descriptors.sharers.add(self)
        self.trust = trust
        self.ledger: Final = ledger
        self.changed: Final = trio.lowlevel.ParkingLot()
        self.unauthenticated: Final = Unauthenticated()
        self.peers: Final = PeerLimits()
        self.grace_until = -math.inf
        self._late: Final[dict[Connection, tuple[float, Trust]]] = {}
        """Connections that opened by a former rule, the end of their grace, and this rule."""
        self.lobby: Lobby | None = None
        self.lifetimes: Final = Lifetimes(lambda connection: self.cut(connection, _lifetime_over(), "max_lifetime"))
        self._all: set[Connection] = set()
        self._opening: dict[Connection, _Opening] = {}
        self._ends: collections.deque[tuple[Connection, RelayEnd]] = collections.deque()
        self._stopping = False
        self._token = trio.lowlevel.current_trio_token()
        self._thread = threading.get_ident()

    def __len__(self) -> int:
        return len(self._all) + self.strangers

    @property
    def strangers(self) -> int:
        """The number of connections in the lobby."""
        return 0 if self.lobby is None else len(self.lobby)

    @property
    def unproved(self) -> int:
        """The number of connections whose peer has not authenticated."""
        return len(self.unauthenticated) + self.strangers

    @property
    def all(self) -> AbstractSet[Connection]:
        """The connections, for reading."""
        return self._all

    @property
    def unfinished(self) -> int:
        """The number of connections whose end now would cut an application off: all but the unauthenticated ones."""
        return len(self) - (self.unproved if self.mode is Mode.LISTEN else 0)

    # -- opening -----------------------------------------------------------------------------------------------------------

    def add(self, connection: Connection, sock: socket.socket) -> None:
        """Register a connection that was just accepted.

        Args:
            connection: its record.
            sock: the accepted socket; only looked at.
        """
        self._all.add(connection)
        self.descriptors.take()
        opening = self._opening[connection] = _Opening(self.trust)
        self.unauthenticated.add(connection, opening, sock)

    def begin_session(
        self, connection: Connection, sock: socket.socket, make: MakeSession, *, proved_before: bool = False
    ) -> Coroutine[Any, Any, None]:
        """Make the session of a connection. Returns its steps.

        Args:
            connection: its record, which `add` has registered.
            sock: the accepted socket; owned by the session.
            make: makes the session.
            proved_before: whether the peer had authenticated before `add`, on a kept leg: the rule in force then admitted it.
        """
        if not proved_before:
            self._opening[connection].trust = self.trust  # the session reads the plan now, so this is the rule that it uses
        return make(connection, sock).run()

    async def run_session(
        self, connection: Connection, sock: socket.socket, make: MakeSession, proved_before: bool = False
    ) -> None:
        """Run the session of a connection up to its handover. A failure ends this connection and no other.

        Args: as for `begin_session`.

        Cancellation of the session alone is reported as the failure that caused it.
        """
        await self.go_on(connection, lambda: self.begin_session(connection, sock, make, proved_before=proved_before))

    async def go_on(self, connection: Connection, steps: Callable[[], Awaitable[None]]) -> None:
        """Run the steps of a session to their end, in a task; see `run_session`.

        Args:
            connection: its record, which `add` has registered.
            steps: the steps of its session, or the rest of them.
        """
        try:
            with self._opening[connection].scope:
                await steps()
                self.opened(connection)
                return
            raise self._why_cancelled(connection)
        except trio.Cancelled:
            connection.failed(stopping())
            raise
        except Exception as exc:
            self.refused(connection, exc)
        finally:
            self._opening.pop(connection, None)

    def opened(self, connection: Connection) -> None:
        """Note that the session of a connection has come to its handover."""
        self.proved(connection)
        if connection.cut is not None:  # the session ended before the cut could cancel it
            self.cut(connection, connection.cut)
        self._opening.pop(connection, None)

    def refused(self, connection: Connection, why: Exception) -> None:
        """Note that the session of a connection has failed."""
        if self.lobby is not None and _failed_handshake(connection, why):
            self.lobby.blame(source_of_client(connection.client).host)
        connection.failed(why)
        self._opening.pop(connection, None)

    def _why_cancelled(self, connection: Connection) -> StcpError:
        if connection.cut is not None:
            return connection.cut
        if self._stopping:
            return stopping()
        return no_place()

    def give_up_stranger(self) -> float:
        """See `Sharer.give_up_stranger`."""
        return float("inf") if self.lobby is None else self.lobby.make_room()

    def heard(self, connection: Connection) -> None:
        """See `Gate.heard`."""
        self.unauthenticated.heard(connection)
        if self.lobby is not None and connection.ephemeral:
            self.lobby.replays.add(connection.ephemeral, trio.current_time())
            connection.ephemeral = b""

    def proved(self, connection: Connection) -> None:
        """See `Gate.proved`. Cuts the connection where a reload took its key away meanwhile.

        A connect tunnel has looked at the rule before OPEN. What is revoked after OPEN is revoked from a live connection, which
        `revoke` ends after the grace. On a listen tunnel REJECT lets the peer try again with another key.
        """
        if self.unauthenticated.forget(connection) and self.changed:
            self._wake_soon()
        opening = self._opening.get(connection)
        if opening is not None and not self.covers(connection, opening.trust):
            self._revoke_late(connection, opening.trust)

    def _revoke_late(self, connection: Connection, trust: Trust) -> None:
        """End a connection that the rule in force no longer admits: on a connect tunnel after the grace."""
        if self.mode is Mode.LISTEN or trio.current_time() >= self.grace_until:
            self.cut(connection, revoked())
        else:
            self._late[connection] = self.grace_until, trust

    def end_late(self) -> None:
        """End the connections that a revocation found while they were opening, once their grace is over."""
        now = trio.current_time()
        for connection, (until, trust) in list(self._late.items()):
            if until <= now:
                del self._late[connection]
                if not self.covers(connection, trust):
                    self.cut(connection, revoked())

    def adopt(self, connection: Connection) -> Trust:
        """See `Rules.adopt`."""
        self._opening[connection].trust = self.trust
        return self.trust

    def admit(self, connection: Connection, plan: TunnelPlan) -> None:
        """See `Gate.admit`."""
        if connection.audited and not self.covers(connection, self.trust):  # the audit has ended since the leg's handshake
            raise revoked()
        try:
            self.peers.admit(connection, plan)
        except PeerOverLimit as exc:
            self.ledger.limits[exc.setting] += 1
            raise

    def covers(self, connection: Connection, before: Trust) -> bool:
        """Tell whether the rule in force admits a connection that the rule `before` admitted."""
        return connection.in_the_clear or self.trust.covers(before, connection.identity)

    # -- end ---------------------------------------------------------------------------------------------------------------

    def forget(self, connection: Connection) -> None:
        """See `Owner.forget`."""
        self.lifetimes.forget(connection)
        self._late.pop(connection, None)
        if connection in self._all:
            self._all.discard(connection)
            self._give_descriptors_back()
        self.unauthenticated.forget(connection)
        self.peers.release(connection)
        if self.changed:
            self._wake_soon()

    def place_is_free(self) -> None:
        """Note that a caller has left the lobby."""
        self._give_descriptors_back()
        if self.changed:
            self._wake_soon()

    def _give_descriptors_back(self) -> None:
        if self.descriptors.give_back():
            self._token.run_sync_soon(self.descriptors.wake, idempotent=True)

    def settle(self, connection: Connection, end: RelayEnd) -> None:
        """See `Owner.settle`.

        In Trio's thread the end is processed at once, unless it comes before the handover is complete. From another thread many
        ends make one wake-up.
        """
        if threading.get_ident() == self._thread and connection.relay is not None:
            connection.ended(end)
            return
        self._ends.append((connection, end))
        with contextlib.suppress(trio.RunFinishedError):
            self._token.run_sync_soon(self._process_ends, idempotent=True)

    def _process_ends(self) -> None:
        while self._ends:
            connection, end = self._ends.popleft()
            connection.ended(end)

    def cut(self, connection: Connection, why: StcpError, text: str = "") -> None:
        """End a connection: by RESET where an engine carries it, else by cancelling its session.

        Args:
            connection: its record.
            why: the failure of its session; its code goes to the peer.
            text: goes to the peer with the code.
        """
        if connection.relay is not None:
            connection.relay.abort(code_for(why), text)
        elif (opening := self._opening.get(connection)) is not None:
            connection.cut = why
            opening.cancel()  # a session without a task acts on it when it gets one, or in `opened`

    def abort(self, why: StcpError) -> None:
        """End every connection."""
        if self.lobby is not None:
            self.lobby.dismiss(why)
        for connection in list(self._all):
            self.cut(connection, why)

    # -- waiting -----------------------------------------------------------------------------------------------------------

    def _wake_soon(self) -> None:
        """`wake`, also from an engine that runs in Trio's loop: it may not wake a task itself."""
        self._token.run_sync_soon(self.wake, idempotent=True)

    def wake(self) -> None:
        """Wake every task that waits for `changed`."""
        self.changed.unpark_all()

    async def wait_idle(self) -> None:
        """Return when no connection is left."""
        while self._all or self.strangers:
            await self.changed.park()

    async def dismiss_unauthenticated(self) -> None:
        """While stopping, give each unauthenticated connection one second of silence, not the whole deadline."""
        self._stopping = True
        while self.mode is Mode.LISTEN and (self.unauthenticated or self.strangers):
            left = self.unauthenticated.patience
            if left <= 0:
                self.unauthenticated.give_up_oldest()
                continue
            if self.lobby is not None:
                left = min(left, self.lobby.dismiss_silent(SILENCE, stopping()))
            if left < float("inf"):  # else the last one was just dismissed
                with trio.move_on_after(left):
                    await self.changed.park()


def no_place() -> OverLimit:
    """The failure of an unauthenticated connection whose place somebody else gets."""
    return OverLimit(
        "places are short, and this caller has not proved to be a peer",
        remedy="raise max_handshakes or max_connections if it is honest",
    )


def _failed_handshake(connection: Connection, why: Exception) -> bool:
    """Whether the end of a session speaks against its host: a failed handshake, or one that lost its place in the middle.

    The first message of suite 5 proves nothing. So a host could have message 2 made for it again and again, and stay silent.
    """
    if isinstance(why, HandshakeError):
        return not why.judgement.is_check
    return isinstance(why, OverLimit) and not connection.channel


def _lifetime_over() -> LifetimeOver:
    return LifetimeOver("the connection has lived for max_lifetime, before it carried anything")
