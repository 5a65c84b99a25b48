"""The relay of intercepted connections that the file lets pass unencrypted: to the destination that the application dialled.

This is not an engine: each connection has two tasks that copy bytes. The application sees the same as without interception: each
direction ends by itself, and a reset stays a reset.
"""

from __future__ import annotations

from typing import Final

import trio

from stcp_proxy.config import TunnelPlan
from stcp_proxy.errors import Code, OverLimit
from stcp_proxy.net.dial import Failure, connect, socket_address, summary
from stcp_proxy.net.leg_stream import LegStream
from stcp_proxy.net.own_connections import OwnConnections
from stcp_proxy.net.socket_options import tune_leg
from stcp_proxy.protocol.opening import Endpoint
from stcp_proxy.relay.engine import EndReason, RelayEnd
from stcp_proxy.relay.plain_leg import finish_on_close, reset_on_close
from stcp_proxy.relay.zero_window import set_user_timeout
from stcp_proxy.session.record import Connection

ENGINE: Final = "none: unencrypted"
_CHUNK: Final = 65536


async def pass_on(plan: TunnelPlan, plain: LegStream, original: Endpoint, own: OwnConnections, record: Connection) -> None:
    """Connect to the destination that the application dialled, and relay until the end. Both sockets are closed then.

    Raises:
        TargetError: the destination cannot be reached; the application got a TCP RST.
    """
    place = socket_address(original)
    try:
        made = await connect(place, trio.current_time() + plan.dial_timeout, own=own)
        if isinstance(made, Failure):
            raise summary([original], [made])
    except BaseException:
        plain.reset()
        raise
    name = made.getsockname()
    try:
        tune_leg(made)
        for leg in (plain.socket, made):
            reset_on_close(leg)
            set_user_timeout(leg, 0)  # as on a direct connection: a reader that pauses stays connected
        record.target = str(place)
        relay = _Relay(plain, LegStream(made), idle=plan.idle_timeout, half_close=plan.half_close_timeout)
        record.served_by(relay)
        record.relay_ended(await relay.run())
    finally:
        own.forget(name)
        made.close()
        plain.close()


class _Relay:
    """One connection that is passed on. Implements `Relay`."""

    engine = ENGINE
    why_engine = "no route covers its destination, and the file lets such connections pass"

    def __init__(self, plain: LegStream, far: LegStream, *, idle: float | None, half_close: float) -> None:
        self._plain = plain
        self._far = far
        self._limits = [idle if idle is not None else float("inf"), half_close]
        self._scope = trio.CancelScope()
        self._deadline = float("inf")
        self._wait = trio.CancelScope()
        """Ends the wait for the deadline."""
        self._forth = self._back = 0
        self._code: Code | None = None
        self._broken: EndReason | None = None
        self._ended = 0

    def counts(self) -> tuple[int, int]:
        """See `Relay.counts`."""
        return self._forth, self._back

    def abort(self, code: Code, text: str) -> None:
        """See `Relay.abort`."""
        if self._code is None:
            self._code = code
            self._scope.cancel()

    async def run(self) -> RelayEnd:
        """Relay until the connection ends. The end is returned, never raised."""
        self._rest()
        with self._scope:
            async with trio.open_nursery() as watching:
                watching.start_soon(self._watch_deadline)
                async with trio.open_nursery() as copying:
                    copying.start_soon(self._copy, self._plain, self._far)
                    copying.start_soon(self._copy, self._far, self._plain)
                watching.cancel_scope.cancel()
        if self._ended == 2:
            for leg in (self._plain, self._far):
                finish_on_close(leg.socket)
            self._plain.close()
            return self._end(EndReason.FINISHED)
        self._plain.reset()
        self._far.reset()
        return self._end(self._broken or (EndReason.ABORTED if self._code is not None else self._timed_out()))

    def _end(self, reason: EndReason) -> RelayEnd:
        return RelayEnd(reason, self._forth, self._back, self._code)

    def _timed_out(self) -> EndReason:
        return EndReason.HALF_CLOSE_TIMEOUT if self._ended else EndReason.IDLE_TIMEOUT

    def _rest(self) -> None:
        """Start the idle deadline again."""
        self._deadline = self._wait.deadline = trio.current_time() + min(self._limits[: 1 + bool(self._ended)])

    async def _watch_deadline(self) -> None:
        """Cancel the relay at its deadline, unless bytes came while this process was paused."""
        while True:
            with trio.CancelScope(deadline=self._deadline) as self._wait:
                await trio.sleep_forever()
            await trio.lowlevel.checkpoint()  # tasks whose sockets have news run first
            if trio.current_time() >= self._deadline:
                self._scope.cancel()
                return

    async def _copy(self, source: LegStream, sink: LegStream) -> None:
        at_fault = source
        try:
            while data := await source.receive_some(_CHUNK):
                at_fault = sink
                await sink.send_all(data)
                at_fault = source
                if source is self._plain:
                    self._forth += len(data)
                else:
                    self._back += len(data)
                self._rest()
                await trio.lowlevel.checkpoint()
            if self._broken is not None:
                return  # the system reports a reset once, to the other task here, and EOF from then on
            await sink.send_eof()
            self._ended += 1
            self._rest()
        except (trio.BrokenResourceError, OverLimit):
            if self._broken is None:
                self._broken = EndReason.PLAIN_RESET if at_fault is self._plain else EndReason.PEER_RESET
            self._scope.cancel()
