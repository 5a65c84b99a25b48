"""One connection from accept to handover, for either role.

    listen   wire leg accepted -> handshake -> OPEN authenticated -> target dialled -> ACCEPT -> engine
    connect  plain leg accepted -> peer dialled -> handshake -> OPEN -> ACCEPT -> engine

A session ends in one of two ways: an engine has both sockets, or an exception says why not and both are closed. The order is the
security argument: nothing is dialled, and nothing told, before the peer's first frame has authenticated.
"""

from __future__ import annotations

import dataclasses
import socket
from typing import Protocol

import structlog
import trio

from stcp_proxy.config import AcceptProxy, TunnelPlan
from stcp_proxy.errors import (
    ClientGone,
    Denied,
    HandshakeClosed,
    HandshakeError,
    HandshakeTimedOut,
    PeerRejected,
    PeerUnreachable,
    ShuttingDown,
    StcpError,
    TargetError,
    TargetTimedOut,
    Truncated,
    code_for,
)
from stcp_proxy.net.dial import Dialled
from stcp_proxy.net.pattern import Pattern
from stcp_proxy.net.stream import LegStream
from stcp_proxy.net.tuning import tune_leg
from stcp_proxy.protocol.handshake import Responder
from stcp_proxy.protocol.opening import Endpoint, Opening
from stcp_proxy.protocol.wire import MAX_PLAINTEXT
from stcp_proxy.relay.engine import Engine, Handover, RelayLimits
from stcp_proxy.tunnel import exchange
from stcp_proxy.tunnel.announced import read_announcement
from stcp_proxy.tunnel.client import client_of, endpoint_of, plain_endpoint, proxy_header, send_header, source_for
from stcp_proxy.tunnel.destination import allowed_destination, dial_destination, port_of
from stcp_proxy.tunnel.greet import greet
from stcp_proxy.tunnel.keyring import Pair
from stcp_proxy.tunnel.offer import Offer, Offers
from stcp_proxy.tunnel.record import Connection
from stcp_proxy.tunnel.targets import Targets
from stcp_proxy.tunnel.trust import Trust
from stcp_proxy.tunnel.turn import TRY_NEXT, Turn

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
            _hand_over(self._plan, self._engine, channel, plain=plain, wire=self._stream.socket, record=self._record)
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
            header = proxy_header(offer.hand_on, client, opening.original, plain, record, peer=self._trust.full_name(peer))
            if header:
                await send_header(LegStream(plain), header)
        except BaseException:
            plain.close()
            raise
        return plain

    async def _dial_targets(self, targets: Targets, source: Endpoint | None) -> Dialled:
        with targets.turn(self._plan.dial_timeout, source=source) as turn:
            with self._record.ledger.dials.step():
                dialled = await turn.dial()
            turn.reached(self._record)
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


class ConnectSession:
    """The initiator's side of one connection.

    Args:
        plan: the tunnel.
        trust: whom it trusts: exactly one peer with one or several keys, or a shared secret.
        targets: where that peer is.
        engine: who carries the connection afterwards.
        plain: the accepted socket, non-blocking and tuned; owned by the session.
        record: what is known of the connection.
        opening: what the peer is told beside the client's address; the tunnel's service unless given.
    """

    def __init__(
        self,
        plan: TunnelPlan,
        trust: Trust,
        targets: Targets,
        engine: Engine,
        plain: socket.socket,
        record: Connection,
        opening: Opening | None = None,
    ) -> None:
        self._plan = plan
        self._trust = trust
        self._targets = targets
        self._engine = engine
        self._plain = LegStream(plain)
        self._record = record
        self._early = b""
        self._opening = dataclasses.replace(opening or Opening(service=plan.service), client=endpoint_of(plain))
        self._may_retry = True

    async def run(self) -> None:
        """Bring the connection to its handover, trying one address of the peer after the other.

        Raises:
            StcpError: why it did not come to that; the application got a TCP RST.
        """
        try:
            if self._plan.accept_proxy is not None:
                await self._believe(self._plan.accept_proxy)
            await self._try_each()
        except BaseException:
            self._plain.reset()
            raise

    async def _believe(self, rule: AcceptProxy) -> None:
        """Learn from a PROXY header who the client is, and where it wanted to go."""
        header, self._early = await read_announcement(self._plain, rule, timeout=self._plan.handshake_timeout)
        if header.source is not None and header.destination is not None:
            client, original = plain_endpoint(header.source), plain_endpoint(header.destination)
            self._opening = dataclasses.replace(self._opening, client=client, original=original)
            self._record.origin = str(client)

    async def _try_each(self) -> None:
        with self._targets.turn(self._plan.dial_timeout) as turn:
            while True:
                dialled = await self._dial(turn)
                try:
                    await self._carry(dialled, turn)
                except StcpError as exc:
                    turn.failed(exc)
                    if not (turn.more and self._may_try_next(exc)):
                        raise
                else:
                    turn.reached(self._record)
                    return

    def _may_try_next(self, exc: StcpError) -> bool:
        """Whether another peer may be asked. Never when this one may have passed on what the application said."""
        if isinstance(exc, PeerRejected):
            return exc.reason in TRY_NEXT
        return self._may_retry and isinstance(exc, PeerUnreachable | HandshakeError | Truncated)

    async def _dial(self, turn: Turn, *, again: bool = False) -> Dialled:
        try:
            with self._record.ledger.dials.step():
                dialled = await (turn.again() if again else turn.dial())
        except TargetError as exc:
            self._start_over()
            raise PeerUnreachable(
                f"the peer cannot be reached: {exc.what}",
                remedy="check that `stcp-proxy listen` runs there and no firewall is between",
            ) from None
        self._start_over()
        return dialled

    def _start_over(self) -> None:
        record = self._record
        record.channel = record.peer = record.target = ""  # whoever was tried before is not in this connection's log line
        record.key = None
        self._may_retry = True

    async def _carry(self, dialled: Dialled, turn: Turn) -> None:
        """Everything from the connected wire leg to the handover."""
        plan, record = self._plan, self._record
        stream, channel = await self._prove(dialled, turn)
        try:
            await self._ask(stream, channel)
            _hand_over(plan, self._engine, channel, plain=self._plain.socket, wire=stream.socket, record=record)
        except BaseException:
            stream.close()
            raise

    async def _prove(self, dialled: Dialled, turn: Turn) -> tuple[LegStream, exchange.Channel]:
        """The handshake, with the next pair of keys on a new connection where the peer closes at one."""
        choice, record = self._trust.choice, self._record
        pairs = choice.order(dialled.name, trio.current_time())
        while True:
            pair = pairs.pop(0)
            stream = LegStream(dialled.sock)
            try:
                tune_leg(dialled.sock)
                record.target = dialled.name
                with record.ledger.handshakes.step():
                    channel = await self._handshake(stream, pair)
                choice.worked(dialled.name, pair, trio.current_time())
                return stream, channel
            except HandshakeClosed:
                stream.close()
                if not pairs:
                    raise
            except BaseException:
                stream.close()
                raise
            _log.warning("trying the next key", tunnel=self._plan.name, target=dialled.name, why="the peer does not answer it")
            dialled = await self._dial(turn, again=True)

    async def _handshake(self, stream: LegStream, pair: Pair) -> exchange.Channel:
        channel = await greet(stream, self._plan, self._trust, pair)
        established = channel.established
        self._record.channel = established.channel_id
        self._record.proved(self._trust.name(established.peer), established.peer, established.own)
        return channel

    async def _ask(self, stream: LegStream, channel: exchange.Channel) -> None:
        """OPEN, and the peer's answer: one scope for both, because a scope costs as much as a frame."""
        self._may_retry = False
        opened = False
        patience = self._plan.dial_timeout + self._plan.handshake_timeout
        with trio.move_on_after(self._plan.handshake_timeout) as scope:
            self._record.early = await exchange.open_channel(stream, channel, self._opening, self._first_bytes)
            self._may_retry, opened = self._record.early == 0, True
            scope.deadline = trio.current_time() + patience
            await exchange.read_answer(stream, channel)
            return
        if not opened:
            raise HandshakeTimedOut("the peer stopped reading during the opening")
        raise TargetTimedOut(f"the peer did not answer OPEN within {patience:g} s", remedy="look in its log for its target")

    def _first_bytes(self) -> bytes:
        """What the application has sent already; kept, because another peer may have to be asked."""
        if not self._early:
            try:
                self._early = self._plain.receive_nowait(MAX_PLAINTEXT)
            except trio.BrokenResourceError:
                raise ClientGone("the application reset its connection before the peer was ready") from None
        return self._early


def _hand_over(
    plan: TunnelPlan,
    engine: Engine,
    channel: exchange.Channel,
    *,
    plain: socket.socket,
    wire: socket.socket,
    record: Connection,
) -> None:
    handover = Handover(
        plain=plain,
        wire=wire,
        send=channel.send,
        receive=channel.receive,
        wire_bytes=channel.rest,
        limits=RelayLimits(idle=plan.idle_timeout, half_close=plan.half_close_timeout),
    )
    record.relay = engine.adopt(handover, record.relay_ended)


def stopping() -> ShuttingDown:
    """Why a session was cut short by a stop."""
    return ShuttingDown("this proxy is shutting down", remedy="connect again once it runs")


def removed() -> ShuttingDown:
    """Why a connection was ended whose tunnel is no longer in the file."""
    return ShuttingDown("this tunnel has been removed", remedy="put it back into the file and reload, if it was meant to stay")
