"""The responder's side of one connection.

    wire leg accepted -> handshake -> OPEN authenticated -> target dialled -> ACCEPT -> engine

A session ends in one of two ways: an engine has both sockets, or an exception says why not and both are closed. The order is the
security argument: nothing is dialled, and nothing told, before the peer's first frame has authenticated.
"""

from __future__ import annotations

import socket
from typing import Protocol

import structlog
import trio

from stcp_proxy.config import TunnelPlan
from stcp_proxy.errors import (
    Denied,
    HandshakeTimedOut,
    StcpError,
    code_for,
)
from stcp_proxy.handshake import exchange
from stcp_proxy.handshake.trust import Trust
from stcp_proxy.net import path_mtu
from stcp_proxy.net.dial import Dialled
from stcp_proxy.net.leg_stream import LegStream
from stcp_proxy.net.pattern import Pattern
from stcp_proxy.net.socket_options import tune_leg
from stcp_proxy.protocol.handshake import Responder
from stcp_proxy.protocol.opening import Endpoint, Opening
from stcp_proxy.relay.engine import Engine
from stcp_proxy.relay.plain_leg import reset_on_close
from stcp_proxy.session.client_address import client_of, endpoint_of, plain_endpoint, proxy_header, send_header, source_for
from stcp_proxy.session.handover import hand_over, stopping
from stcp_proxy.session.original_target import allowed_destination, dial_destination, port_of
from stcp_proxy.session.record import Connection
from stcp_proxy.session.services import Offer, Offers
from stcp_proxy.upstream.attempt import Attempt
from stcp_proxy.upstream.targets import Targets

_log = structlog.get_logger("stcp_proxy.session")


class Gate(Protocol):
    """Who counts the connections that have not proved themselves."""

    def heard(self, record: Connection, /) -> None:
        """The first message was good; it may have been a replay."""

    def proved(self, record: Connection, /) -> None:
        """The peer has proved itself."""


class ListenSession:
    """The responder's side of one connection.

    Args:
        plan: the tunnel.
        trust: its access rule.
        offers: what its connections can have.
        engine: who carries the connection afterwards.
        wire: the accepted socket, non-blocking and tuned; owned by the session.
        record: what is known of the connection.
        gate: hears how far the peer has come.
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
    ) -> None:
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
            StcpError: why it did not come to that; the wire leg is closed.
        """
        try:
            with self._record.ledger.handshakes.step():
                channel, opening = await self._prove()
            self._gate.proved(self._record)
            await self._reach_target(channel, opening)
        except BaseException:
            self._stream.close()
            raise

    async def _prove(self) -> tuple[exchange.Channel, Opening]:
        plan, trust, record = self._plan, self._trust, self._record
        responder = Responder(plan.suites, trust.credentials, allowed=trust.names)
        channel: exchange.Channel | None = None
        with trio.move_on_after(plan.handshake_timeout):
            channel, established = await exchange.respond(self._stream, responder)
            record.channel = established.channel_id
            self._gate.heard(record)
            opening = await exchange.read_open(self._stream, channel)
            # Not before: the first message may have been a replay of its own.
            record.proved(trust.name(established.peer), established.peer, established.own)
            return channel, opening
        if path_mtu.is_unacknowledged(self._stream.socket):
            what = f"the peer did not prove itself within {plan.handshake_timeout:g} s: this side's answer was never acknowledged"
            raise HandshakeTimedOut(what, remedy=path_mtu.REMEDY)
        what = "it answered nothing" if channel is None else "its first frame did not come"
        raise HandshakeTimedOut(f"the peer did not prove itself within {plan.handshake_timeout:g} s: {what}")

    async def _reach_target(self, channel: exchange.Channel, opening: Opening) -> None:
        plain: socket.socket | None = None
        try:
            try:
                plain = await self._dial(channel, opening)
            except StcpError as exc:
                # The peer learns the kind of failure; addresses behind this side are not its business.
                await channel.reject(self._stream, code_for(exc))
                raise
            await channel.accept(self._stream)
            hand_over(self._plan, self._engine, channel, plain=plain, wire=self._stream.socket, record=self._record)
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
        """What the peer asked for, connected, and told who the client is."""
        record, peer = self._record, channel.established.peer
        if opening.client is not None:
            record.origin = str(plain_endpoint(opening.client))
        offer = self._offers.choose(opening.service, peer)
        record.service = offer.service
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
            header = proxy_header(offer.hand_on, client, opening.original, plain, record, peer=self._trust.full_name(peer))
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
        """Where the client was going, where that is allowed; the offer's own targets otherwise."""
        if original is not None:
            self._record.original = str(plain_endpoint(original))
        try:
            target = allowed_destination(original, rules, listening=port_of(self._stream.socket))
        except Denied:
            if not offer.targets.to:
                raise
            return await self._dial_targets(offer.targets, source)
        with self._record.ledger.dials.step():
            return await dial_destination(target, self._plan.dial_timeout, source=source)
