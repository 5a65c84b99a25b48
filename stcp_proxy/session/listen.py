"""The responder's side of one connection.

    wire leg accepted -> handshake -> OPEN authenticated -> target dialled -> ACCEPT -> engine
    kept leg                       -> OPEN authenticated -> target dialled -> ACCEPT -> engine

A session ends in one of two ways: an engine has both sockets, or an exception names the failure and both sockets are closed.

Invariants:
- Before its first frame has authenticated the peer, this side dials nothing and tells the peer nothing.
"""

from __future__ import annotations

import socket
from typing import Final, Protocol

import structlog
import trio

from stcp_proxy.config import KeyAuth, TunnelPlan
from stcp_proxy.errors import (
    Denied,
    HandshakeTimedOut,
    KeyRevoked,
    PeerOverLimit,
    ServiceUnknown,
    StcpError,
    code_for,
)
from stcp_proxy.handshake import exchange
from stcp_proxy.handshake.trust import Trust
from stcp_proxy.net import path_mtu
from stcp_proxy.net.dial import Dialled
from stcp_proxy.net.first_steps import in_task, until
from stcp_proxy.net.leg_stream import LegStream
from stcp_proxy.net.pattern import Pattern
from stcp_proxy.net.socket_options import tune_leg
from stcp_proxy.net.source import source_of_client
from stcp_proxy.protocol.opening import Endpoint, Opening
from stcp_proxy.protocol.wire import READY_SERVICE
from stcp_proxy.relay.engine import Engine
from stcp_proxy.relay.plain_leg import reset_on_close
from stcp_proxy.session.client_address import client_of, endpoint_of, plain_endpoint, proxy_header, send_header, source_for
from stcp_proxy.session.handover import hand_over, stopping
from stcp_proxy.session.original_target import allowed_destination, dial_destination, port_of
from stcp_proxy.session.peer_leg import Keeper, NoKeeper, PeerLeg, give_back, now
from stcp_proxy.session.ready_leg import answer_ready
from stcp_proxy.session.record import Connection
from stcp_proxy.session.services import Offer, Offers
from stcp_proxy.upstream.attempt import Attempt
from stcp_proxy.upstream.targets import Targets

_log = structlog.get_logger("stcp_proxy.session")

_NOT_KEPT: Final = "set 'keep' in this tunnel, or 'keep: {ready: 0}' in the peer's"


class Gate(Protocol):
    """Counts the connections whose peer has not authenticated, and those of each peer."""

    def heard(self, record: Connection, /) -> None:
        """Note that message 1 was valid; it may be a replay."""

    def proved(self, record: Connection, /) -> None:
        """Note that the peer has authenticated."""

    def admit(self, record: Connection, plan: TunnelPlan, /) -> None:
        """Count a connection for its peer.

        Raises:
            PeerOverLimit: the peer is beyond a limit of its own.
            KeyRevoked: only audit mode admits the peer, and it is over.
        """


class ListenSession:
    """The responder's side of one connection.

    Args:
        plan: the tunnel.
        trust: its access rule.
        offers: the services of the tunnel.
        engine: carries the connection after the handover.
        wire: the accepted socket, non-blocking and tuned; owned by the session.
        record: the record of the connection.
        gate: learns when the peer has sent a valid message 1, and when it has authenticated.
        legs: holds wire legs between their connections. [default: none is kept]
        reopened: a kept leg, whose socket is `wire`, with the OPEN that arrived on it; None for a new leg.
    """

    def __init__(
        self,
        plan: TunnelPlan,
        trust: Trust,
        offers: Offers,
        engine: Engine,
        wire: socket.socket,
        record: Connection,
        gate: Gate,
        legs: Keeper | None = None,
        reopened: tuple[PeerLeg, Opening] | None = None,
    ) -> None:
        self._legs: Keeper = NoKeeper() if legs is None or not engine.keeps_legs else legs
        self._reopened = reopened
        self._plan = plan
        self._trust = trust
        self._offers = offers
        self._engine = engine
        self._stream = LegStream(wire)
        self._record = record
        self._gate = gate

    async def run(self) -> None:
        """Bring the connection to its handover.

        Raises:
            StcpError: the connection was refused; the wire leg is closed.
        """
        try:
            if self._reopened is None:
                with self._record.ledger.handshakes.step():
                    leg, opening = await self._prove()
            else:
                leg, opening = self._reopened
                self._note(leg)
            self._gate.proved(self._record)
            if opening.service == READY_SERVICE:
                await self._make_ready(leg, opening)
            else:
                await self._reach_target(leg, opening)
        except BaseException:
            self._stream.close()
            raise

    async def _prove(self) -> tuple[PeerLeg, Opening]:
        """Let the peer authenticate, within the rest of its time. Returns the leg, and OPEN."""
        timeout, record = self._plan.handshake_timeout, self._record
        try:
            return await until(trio.current_time() + max(0.0, timeout - record.waited), self._hear())
        except trio.TooSlowError:
            what = f"the peer did not authenticate within {timeout:g} s"
            if path_mtu.is_unacknowledged(self._stream.socket):
                why = f"{what}: this side's answer was never acknowledged"
                raise HandshakeTimedOut(why, remedy=path_mtu.REMEDY) from None
            missing = "first frame" if record.channel else "first message"
            raise HandshakeTimedOut(f"{what}: its {missing} did not come") from None

    async def _hear(self) -> tuple[PeerLeg, Opening]:
        """Do the handshake and read OPEN."""
        plan, trust, record, era = self._plan, self._trust, self._record, self._legs.era
        channel, established = await exchange.respond(self._stream, trust.responder(plan.suites))
        record.channel = established.channel_id
        self._gate.heard(record)
        opening = await exchange.read_open(self._stream, channel)
        leg = PeerLeg(self._stream, channel, None, record.client, era, now())
        self._note(leg)  # not earlier: message 1 may be a replay
        by_name = isinstance(plan.auth, KeyAuth) and not record.audited
        leg.use = record.peer if by_name else source_of_client(record.client).host
        return leg, opening

    def _note(self, leg: PeerLeg) -> None:
        """Write the leg and its peer into the record."""
        record = self._record
        record.channel, record.leg = leg.channel.leg.channel_id, leg.kind
        record.proved(self._trust.peer(leg.channel.established))
        record.suite = leg.channel.established.suite

    def _answer(self, leg: PeerLeg, opening: Opening) -> int | None:
        """Seconds for which both sides can keep the leg, for ACCEPT; None where one of them does not."""
        if opening.keep is None or leg.channel.leg.exhausted or leg.era is not self._legs.era:
            return None
        return self._legs.offer(leg.made)

    def _admit(self) -> None:
        """Refuse a peer that a reload no longer admits, whose certificate has expired meanwhile, or that is beyond a limit.

        A cut cancels the session at its next wait. Where the target is near, there is none before the handover.
        """
        if self._record.cut is not None:
            raise self._record.cut
        if self._record.identity.has_expired:  # only on a kept leg: a handshake refuses an expired certificate
            raise KeyRevoked("the certificate of this connection's peer has expired")
        self._gate.admit(self._record, self._plan)

    async def _make_ready(self, leg: PeerLeg, opening: Opening) -> None:
        """Keep a leg for a later connection. No target is dialled."""
        await in_task()
        keep = self._answer(leg, opening)
        try:
            self._admit()
            if keep is None:
                raise ServiceUnknown("the peer makes wire legs ready, and this tunnel does not keep this one", remedy=_NOT_KEPT)
        except StcpError as exc:
            await leg.channel.reject(self._stream, code_for(exc))
            raise
        with trio.move_on_after(self._plan.handshake_timeout) as scope:
            await answer_ready(self._stream, leg.channel, keep)
        if scope.cancelled_caught:
            raise HandshakeTimedOut("the peer did not end the connection that makes a wire leg ready")
        self._record.made_ready()
        leg.at_rest = now()
        self._legs.put(leg)

    async def _reach_target(self, leg: PeerLeg, opening: Opening) -> None:
        channel = leg.channel
        plain: socket.socket | None = None
        try:
            try:
                self._admit()
                plain = await self._dial(channel, opening)
            except StcpError as exc:
                # The peer is told the kind of the failure, and no address behind this side.
                await channel.reject(self._stream, code_for(exc), waits=not (isinstance(exc, PeerOverLimit) and exc.often))
                raise
            await channel.accept(self._stream, self._answer(leg, opening))
            hand_over(
                self._plan,
                self._engine,
                channel,
                plain=plain,
                wire=self._stream.socket,
                record=self._record,
                give_back=give_back(leg, self._legs),
            )
        except trio.Cancelled:
            if plain is not None:
                plain.close()
            with trio.CancelScope(shield=True):
                await channel.reject(self._stream, code_for(self._record.cut or stopping()))
            raise
        except BaseException:
            if plain is not None:
                plain.close()
            raise

    async def _dial(self, channel: exchange.Channel, opening: Opening) -> socket.socket:
        """Connect to the target that the peer asks for, and send it the PROXY header where one is configured."""
        record, peer = self._record, self._record.identity
        if opening.client is not None:
            record.origin = str(plain_endpoint(opening.client))
        offer = self._offers.choose(opening.service, peer)
        record.service = offer.service
        if record.audited:
            record.admitted_by_audit()
        seen = endpoint_of(self._stream.socket) if offer.hand_on.tells_client else None
        client = client_of(opening.client, seen, offer.hand_on)
        source = source_for(client, offer.hand_on)
        if offer.hand_on.allow_targets is None:
            dialled = await self._dial_targets(offer.targets, source)
        else:
            dialled = await self._dial_original(opening.original, offer, offer.hand_on.allow_targets, source)
        record.target = dialled.name
        plain = dialled.sock
        try:
            tune_leg(plain)
            reset_on_close(plain)
            header = proxy_header(offer.hand_on, client, opening.original, plain, record, peer=peer.full_name)
            if header:
                await send_header(LegStream(plain), header)
        except BaseException:
            plain.close()
            raise
        return plain

    async def _dial_targets(self, targets: Targets, source: Endpoint | None) -> Dialled:
        with Attempt(targets, self._plan.dial_timeout, source=source) as attempt:
            with self._record.ledger.dials.step():
                dialled = await attempt.dial()
            self._record.endpoint = attempt.reached()
        return dialled

    async def _dial_original(
        self, original: Endpoint | None, offer: Offer, rules: tuple[Pattern, ...], source: Endpoint | None
    ) -> Dialled:
        """Connect to the client's destination where the rules allow it, otherwise to the service's own targets."""
        if original is not None:
            self._record.original = str(plain_endpoint(original))
        try:
            target = allowed_destination(original, rules, listening=port_of(self._stream.socket))
        except Denied:
            if not offer.targets.to:
                raise
            return await self._dial_targets(offer.targets, source)
        await in_task()
        with self._record.ledger.dials.step():
            return await dial_destination(target, self._plan.dial_timeout, source=source)
