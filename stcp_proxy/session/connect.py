"""The initiator's side of one connection.

    plain leg accepted -> peer dialled -> handshake -> OPEN -> ACCEPT -> engine

A session ends in one of two ways: an engine has both sockets, or an exception tells the failure and both are closed.
"""

from __future__ import annotations

import dataclasses
import socket
from collections.abc import Awaitable, Callable

import structlog
import trio

from stcp_proxy.config import AcceptProxy, TunnelPlan
from stcp_proxy.errors import (
    ClientGone,
    HandshakeTimedOut,
    NoAnswer,
    TargetError,
)
from stcp_proxy.handshake import exchange
from stcp_proxy.handshake.authenticate import authenticate
from stcp_proxy.handshake.trust import Trust
from stcp_proxy.net.dial import Dialled
from stcp_proxy.net.leg_stream import LegStream
from stcp_proxy.protocol.opening import Opening
from stcp_proxy.protocol.wire import MAX_PLAINTEXT
from stcp_proxy.relay.engine import Engine
from stcp_proxy.relay.plain_leg import reset_on_close
from stcp_proxy.session.client_address import endpoint_of, plain_endpoint
from stcp_proxy.session.handover import hand_over
from stcp_proxy.session.proxy_header import read_announcement
from stcp_proxy.session.record import Connection
from stcp_proxy.upstream.attempt import Attempt, peer_unreachable
from stcp_proxy.upstream.targets import Targets

_log = structlog.get_logger("stcp_proxy.session")


class ConnectSession:
    """The initiator's side of one connection.

    Args:
        plan: the tunnel.
        trust: the access rule: exactly one peer with one or several keys, or a shared secret.
        targets: the addresses of that peer.
        engine: carries the connection after the handover.
        plain: the accepted socket, non-blocking and tuned; owned by the session.
        record: the record of the connection.
        opening: contents of OPEN beside the client's address. [default: the tunnel's service]
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
        reset_on_close(plain)
        self._record = record
        self._early = b""
        self._opening = dataclasses.replace(opening or Opening(service=plan.service), client=endpoint_of(plain))
        self._heard = False
        """Whether this peer may have passed on what the application has said."""

    async def run(self) -> None:
        """Bring the connection to its handover, from one endpoint of the peer to the next.

        Raises:
            StcpError: no endpoint served the connection; the application got a TCP RST.
        """
        try:
            if self._plan.accept_proxy is not None:
                await self._read_header(self._plan.accept_proxy)
            await self._try_each()
        except BaseException:
            self._plain.reset()
            raise

    async def _read_header(self, rule: AcceptProxy) -> None:
        """Take the client's address and its destination from the PROXY header."""
        header, self._early = await read_announcement(self._plain, rule, timeout=self._plan.handshake_timeout)
        if header.source is not None and header.destination is not None:
            client, original = plain_endpoint(header.source), plain_endpoint(header.destination)
            self._opening = dataclasses.replace(self._opening, client=client, original=original)
            self._record.origin = str(client)

    async def _try_each(self) -> None:
        with Attempt(self._targets, self._plan.dial_timeout) as attempt:
            await attempt.until_served(
                lambda: self._dial(attempt.dial), lambda dialled: self._carry(dialled, attempt), heard=lambda: self._heard
            )
            self._record.endpoint = attempt.reached()

    async def _dial(self, dial: Callable[[], Awaitable[Dialled]]) -> Dialled:
        try:
            with self._record.ledger.dials.step():
                return await dial()
        except TargetError as exc:
            raise peer_unreachable(exc) from None
        finally:
            self._start_over()

    def _start_over(self) -> None:
        """Forget the peer that was tried before: it does not belong to this connection's log line."""
        self._record.unproved()
        self._heard = False

    async def _carry(self, dialled: Dialled, attempt: Attempt) -> None:
        """Everything from the connected wire leg to the handover."""
        plan, record = self._plan, self._record
        stream, channel = await self._authenticate(dialled, attempt)
        try:
            await self._ask(stream, channel)
            hand_over(plan, self._engine, channel, plain=self._plain.socket, wire=stream.socket, record=record)
        except BaseException:
            stream.close()
            raise

    async def _authenticate(self, dialled: Dialled, attempt: Attempt) -> tuple[LegStream, exchange.Channel]:
        """The handshake, with the next pair of keys on a new connection where the peer closes."""
        record, sockets = self._record, [dialled.sock]

        async def connect() -> socket.socket:
            sock = sockets.pop() if sockets else (await self._dial(attempt.again)).sock
            record.target = dialled.name
            return sock

        stream, channel, _ = await authenticate(
            connect,
            self._plan,
            self._trust,
            address=dialled.name,
            step=record.ledger.handshakes.step,
            on_next_key=lambda: self._say_next_key(dialled.name),
            opens_at_once=True,
        )
        established = channel.established
        record.channel = established.channel_id
        record.proved(self._trust.peer(established))
        return stream, channel

    def _say_next_key(self, target: str) -> None:
        _log.warning(
            "handshake retried with the next key", tunnel=self._plan.name, target=target, why="the peer does not answer it"
        )

    async def _ask(self, stream: LegStream, channel: exchange.Channel) -> None:
        """Send OPEN and wait for the peer's answer. One cancel scope serves both: it costs as much as a frame."""
        self._heard = True
        opened = False
        patience = self._plan.dial_timeout + self._plan.handshake_timeout
        with trio.move_on_after(self._plan.handshake_timeout) as scope:
            self._record.early = await exchange.open_channel(stream, channel, self._opening, self._first_bytes)
            self._heard, opened = self._record.early > 0, True
            scope.deadline = trio.current_time() + patience
            await exchange.read_answer(stream, channel)
            return
        if not opened:
            raise HandshakeTimedOut("the peer stopped reading during the opening")
        raise NoAnswer(f"the peer did not answer OPEN within {patience:g} s")

    def _first_bytes(self) -> bytes:
        """The bytes that the application has sent already. They are kept for the next peer."""
        if not self._early:
            try:
                self._early = self._plain.receive_nowait(MAX_PLAINTEXT)
            except trio.BrokenResourceError:
                raise ClientGone("the application reset its connection before the peer was ready") from None
        return self._early
