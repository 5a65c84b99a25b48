"""The initiator's side of one connection.

    plain leg accepted -> peer dialled -> handshake -> OPEN -> ACCEPT -> engine
                       -> kept leg found          -> OPEN -> ACCEPT -> engine

A session ends in one of two ways: an engine has both sockets, or an exception names the failure and both sockets are closed.

Invariants:
- Application bytes that went with OPEN on one leg go on a second leg only where section 7 of PROTOCOL.md proves that the first
  peer has used none of them.
"""

from __future__ import annotations

import dataclasses
import socket
import time
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

import trio

from stcp_proxy.config import AcceptProxy, TunnelPlan
from stcp_proxy.errors import ClientGone, Code, HandshakeError, HandshakeTimedOut, NoAnswer, PeerRejected, TargetError, Truncated
from stcp_proxy.handshake import exchange
from stcp_proxy.handshake.trust import Trust
from stcp_proxy.net.dial import Dialled
from stcp_proxy.net.first_steps import in_task, soon_readable, until
from stcp_proxy.net.leg_stream import LegStream
from stcp_proxy.protocol.opening import Opening
from stcp_proxy.protocol.wire import MAX_PLAINTEXT, FrameType
from stcp_proxy.relay.engine import Engine
from stcp_proxy.relay.plain_leg import reset_on_close
from stcp_proxy.session.access_rule import AccessRule, Rules
from stcp_proxy.session.client_address import endpoint_of, plain_endpoint
from stcp_proxy.session.first_accepted import first_accepted
from stcp_proxy.session.handover import hand_over
from stcp_proxy.session.new_leg import new_leg
from stcp_proxy.session.peer_leg import Keeper, NoKeeper, PeerLeg, give_back
from stcp_proxy.session.proxy_header import read_announcement
from stcp_proxy.session.record import Connection
from stcp_proxy.upstream.attempt import Attempt, peer_unreachable
from stcp_proxy.upstream.targets import Targets

T = TypeVar("T")

SILENCE: Final = 1.0
"""Seconds without an answer to OPEN on a kept leg, which a NAT may have forgotten, after which a new leg is tried beside it."""


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
        legs: holds wire legs between their connections. [default: none is kept]
        rules: has the access rule in force, which a reload may have replaced. [default: `trust` stays]
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
        legs: Keeper | None = None,
        rules: Rules | None = None,
    ) -> None:
        self._plan = plan
        self._rule = AccessRule(trust, rules, record)
        self._targets = targets
        self._engine = engine
        self._plain = LegStream(plain)
        reset_on_close(plain)
        self._record = record
        self._legs: Keeper = NoKeeper() if legs is None or not engine.keeps_legs else legs
        self._early = b""
        asked = opening or Opening(service=plan.service)
        self._opening = Opening(asked.service, endpoint_of(plain), asked.original)
        self._heard = False
        """Whether this peer may have passed on bytes of the application."""

    async def run(self) -> None:
        """Bring the connection to its handover, from one endpoint of the peer to the next.

        Raises:
            StcpError: no endpoint served the connection; the application got a TCP RST.
        """
        try:
            if self._plan.accept_proxy is not None:
                await in_task()
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
                lambda: self._dial(lambda: attempt.dial_or_take(self._take)),
                lambda found: self._carry(found, attempt),
                heard=lambda: self._heard,
            )
            self._record.endpoint = attempt.reached()

    async def _dial(self, dial: Callable[[], Awaitable[T]]) -> T:
        """Run `dial`. Where it does dial, count it and measure its duration."""
        steps, started = self._record.ledger.dials, time.monotonic()
        try:
            found = await dial()
        except BaseException as exc:
            steps.end(time.monotonic() - started, exc)
            if isinstance(exc, TargetError):
                raise peer_unreachable(exc) from None
            raise
        finally:
            self._start_over()
        if not isinstance(found, PeerLeg):
            steps.end(time.monotonic() - started, None)
        return found

    def _start_over(self) -> None:
        """Forget the peer that was tried before. It must not appear in this connection's log line."""
        self._record.unproved()
        self._heard = False

    def _take(self, address: str) -> PeerLeg | None:
        """A kept leg to an address, if its peer's certificate has not expired; None without one."""
        while (leg := self._legs.take((self._rule.trust.choice, address))) is not None:
            if not self._rule.trust.peer(leg.channel.established).has_expired:
                return leg
            leg.stream.close()
        return None

    async def _carry(self, found: Dialled | PeerLeg, attempt: Attempt) -> None:
        """Do all steps from the wire leg to the handover."""
        try:
            leg = await (self._reopen(found, attempt) if isinstance(found, PeerLeg) else self._open(found, attempt))
        except PeerRejected as exc:
            if exc.reason != Code.KEY_REVOKED:
                raise
            leg = await self._open_after_revocation(exc, attempt)
        try:
            if self._early and not self._record.early:
                await self._send_held(leg)
            hand_over(
                self._plan,
                self._engine,
                leg.channel,
                plain=self._plain.socket,
                wire=leg.stream.socket,
                record=self._record,
                give_back=give_back(leg, self._legs),
            )
        except BaseException:
            leg.stream.close()
            raise

    # -- a new leg ---------------------------------------------------------------------------------------------------------

    async def _open(self, dialled: Dialled, attempt: Attempt, *, hold: bool = False) -> PeerLeg:
        """Open the connection on a new leg. Returns the leg after ACCEPT.

        Args:
            dialled: the connected wire leg.
            attempt: connects to the same endpoint again.
            hold: send no byte of the application, because a different leg may still be accepted.
        """
        leg = await self._authenticate(dialled, attempt)
        try:
            self._note(leg)
            await self._ask(leg, bytes if hold else self._first_bytes)
        except BaseException:
            if hold:
                leg.give_up()
            leg.stream.close()
            raise
        return leg

    async def _open_after_revocation(self, rejected: PeerRejected, attempt: Attempt) -> PeerLeg:
        """Open the connection once more after the peer has refused a key of its handshake: a reload may have replaced this key.

        The peer has dialled nothing. Where a second handshake fails too, the first refusal says more.
        """
        self._rule.renew()
        dialled = await self._dial(attempt.again)
        try:
            return await self._open(dialled, attempt)
        except (HandshakeError, PeerRejected):
            raise rejected from None

    async def _authenticate(self, dialled: Dialled, attempt: Attempt) -> PeerLeg:
        """Do the handshake, on a new connection to the same endpoint where the first one does not succeed."""
        sockets = [dialled.sock]

        async def connect() -> socket.socket:
            sock = sockets.pop() if sockets else (await self._dial(attempt.again)).sock
            self._record.target = dialled.name
            return sock

        return await new_leg(connect, self._plan, self._rule, self._legs, dialled.name, step=self._record.ledger.handshakes.step)

    def _note(self, leg: PeerLeg) -> None:
        """Write the leg and its peer into the record."""
        record = self._record
        record.channel, record.target, record.leg = leg.channel.leg.channel_id, leg.name, leg.kind
        record.proved(self._rule.trust.peer(leg.channel.established))
        record.suite = leg.channel.established.suite

    async def _ask(self, leg: PeerLeg, early: Callable[[], bytes]) -> None:
        """Send OPEN and wait for the peer's answer."""
        self._heard = True
        steps = exchange.open_channel(leg.stream, leg.channel, self._offering(leg), early)
        try:
            self._record.early = await until(trio.current_time() + self._plan.handshake_timeout, steps)
        except trio.TooSlowError:
            raise HandshakeTimedOut("the peer stopped reading during the opening") from None
        self._heard = self._record.early > 0
        try:
            await until(trio.current_time() + self._patience, exchange.read_answer(leg.stream, leg.channel))
        except trio.TooSlowError:
            raise self._no_answer() from None

    @property
    def _patience(self) -> float:
        """Seconds for the peer's answer to OPEN."""
        return self._plan.dial_timeout + self._plan.handshake_timeout

    def _no_answer(self) -> NoAnswer:
        return NoAnswer(f"the peer did not answer OPEN within {self._patience:g} s")

    def _offering(self, leg: PeerLeg) -> Opening:
        """The contents of OPEN, with the time for which this side can keep the leg."""
        keep = self._legs.offer(leg.made) if leg.era is self._legs.era and not leg.channel.leg.exhausted else None
        asked = self._opening
        return Opening(asked.service, asked.client, asked.original, keep)

    def _first_bytes(self) -> bytes:
        """The bytes that the application has sent already. They are kept for the next peer."""
        if not self._early:
            try:
                self._early = self._plain.receive_nowait(MAX_PLAINTEXT)
            except trio.BrokenResourceError:
                raise ClientGone("the application reset its connection before the peer was ready") from None
        return self._early

    async def _send_held(self, leg: PeerLeg) -> None:
        """Send the application's bytes that were held back until ACCEPT."""
        self._heard, self._record.early = True, len(self._early)
        frame = leg.channel.seal(FrameType.DATA, self._early)
        await in_task()
        with trio.move_on_after(self._plan.handshake_timeout):
            try:
                await leg.stream.send_all(frame)
            except trio.BrokenResourceError:
                raise Truncated("the wire leg broke right after the opening") from None
            return
        raise HandshakeTimedOut("the peer stopped reading right after the opening")

    # -- kept legs ---------------------------------------------------------------------------------------------------------

    async def _reopen(self, kept: PeerLeg, attempt: Attempt) -> PeerLeg:
        """Open the connection on a kept leg. Where the leg has ended, try the next kept leg, and then a new one.

        Returns:
            The leg that was accepted.
        """
        leg: PeerLeg | None = kept
        while leg is not None:
            try:
                accepted = await self._ask_kept(leg)
            except BaseException:
                leg.stream.close()
                raise
            if accepted:
                return leg
            if accepted is None:
                return await self._ask_both(leg, attempt)
            leg.stream.close()
            self._start_over()
            leg = self._take(leg.name)
        return await self._open(await self._dial(attempt.again), attempt)

    async def _ask_kept(self, leg: PeerLeg) -> bool | None:
        """Send OPEN on a kept leg, and the application's first bytes with it if the leg came to rest a moment ago.

        Returns:
            True after ACCEPT. False when a different leg has to serve the connection and may get the same bytes. None when no
            answer came within `SILENCE` and no byte of the application was sent.

        Raises:
            StcpError: the peer refused the connection, or may have acted on bytes of the application.
        """
        is_young = leg.is_young
        early = self._first_bytes() if is_young else b""
        frames = leg.channel.seal(FrameType.OPEN, self._offering(leg).encode())
        if early:
            frames += leg.channel.seal(FrameType.DATA, early)
        try:
            sent = leg.stream.send_nowait(frames)
        except trio.BrokenResourceError:
            return False
        self._note(leg)
        self._heard, self._record.early = bool(early), len(early)
        asked = trio.current_time()
        try:
            unsent = frames[sent:]
            if is_young and not early and not unsent:
                unsent = await self._send_first_bytes(leg)
            accepted = await self._answer(leg, unsent, asked + (self._patience if self._heard else SILENCE))
        except (Truncated, trio.BrokenResourceError):
            if self._heard:
                raise Truncated("the kept wire leg ended without an answer to OPEN and the bytes behind it") from None
            accepted = False
        if accepted is None and self._heard:
            raise self._no_answer()
        if accepted is False:
            self._record.early = 0
        return accepted

    async def _send_first_bytes(self, leg: PeerLeg) -> bytes:
        """Send the application's first bytes behind OPEN if they come within a moment, and before the answer.

        An application connects first and sends then. So its bytes often arrive a few microseconds after the accept.

        Returns:
            The remainder of their frame after a short write.

        Raises:
            ClientGone: the application has reset its connection.
            trio.BrokenResourceError: the wire leg broke.
        """
        if not await soon_readable(leg.stream.socket, self._plain.socket) or leg.stream.has_news:
            return b""
        if not (early := self._first_bytes()):
            return b""
        self._heard, self._record.early = True, len(early)
        frame = leg.channel.seal(FrameType.DATA, early)
        return frame[leg.stream.send_nowait(frame) :]

    async def _answer(self, leg: PeerLeg, unsent: bytes, deadline: float) -> bool | None:
        """Wait for the answer to OPEN on a kept leg.

        Args:
            leg: the leg.
            unsent: the remainder of OPEN and of the bytes behind it.
            deadline: on Trio's clock.

        Returns:
            As `read_answer`; None where no answer came before the deadline.
        """
        if not unsent and (accepted := await exchange.answer_soon(leg.stream, leg.channel)) is not None:
            return accepted
        await in_task()
        with trio.move_on_at(deadline):
            if unsent:
                await leg.stream.send_all(unsent)
            return await exchange.read_answer(leg.stream, leg.channel)
        return None

    async def _ask_both(self, kept: PeerLeg, attempt: Attempt) -> PeerLeg:
        """Ask on a new leg too, because a kept leg is silent. Returns the leg that is accepted first.

        Where a NAT has forgotten the kept leg, no answer comes. A slow target answers late. This side cannot tell the two cases
        apart. No byte of the application was sent on either leg, so the leg that is accepted second can be given up.
        """
        await in_task()
        leg: PeerLeg | None = None
        try:
            leg = await first_accepted(kept, lambda: self._open_beside(attempt))
        finally:
            if leg is not kept:
                self._legs.lost(kept)
                kept.give_up()
        if leg is kept:
            self._note(kept)
        self._record.early, self._heard = 0, False
        return leg

    async def _open_beside(self, attempt: Attempt) -> PeerLeg:
        return await self._open(await self._dial(attempt.again), attempt, hold=True)
