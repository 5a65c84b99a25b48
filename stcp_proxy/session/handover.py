"""The end of a session: an engine takes both sockets, or a stop cancels the session."""

from __future__ import annotations

import functools
import socket
from collections.abc import Callable

import structlog

from stcp_proxy.config import TunnelPlan
from stcp_proxy.errors import ShuttingDown
from stcp_proxy.handshake import exchange
from stcp_proxy.relay.engine import Engine, Handover, RelayLimits, WireLeg
from stcp_proxy.session.record import Connection

_log = structlog.get_logger("stcp_proxy.session")


def hand_over(
    plan: TunnelPlan,
    engine: Engine,
    channel: exchange.Channel,
    *,
    plain: socket.socket,
    wire: socket.socket,
    record: Connection,
    give_back: Callable[[WireLeg], None] | None = None,
) -> None:
    """Hand both sockets to an engine.

    Args:
        plan: the tunnel.
        engine: carries the connection from now on.
        channel: keys, counters, and bytes that were read beyond ACCEPT.
        plain: the plain leg.
        wire: the wire leg.
        record: the record of the connection; takes its end.
        give_back: takes the wire leg back after both FINs; None where the engine closes it.
    """
    handover = Handover(
        plain=plain,
        wire=wire,
        send=channel.send,
        receive=channel.receive,
        wire_bytes=channel.rest,
        limits=_limits(plan.idle_timeout, plan.half_close_timeout),
        give_back=give_back,
    )
    record.ledger.legs[record.leg] += 1
    record.served_by(engine.adopt(handover, record.relay_ended))


@functools.lru_cache(maxsize=64)
def _limits(idle: float | None, half_close: float | None) -> RelayLimits:
    return RelayLimits(idle=idle, half_close=half_close)


def stopping() -> ShuttingDown:
    """The failure of a session that a stop cancels."""
    return ShuttingDown("this proxy is shutting down", remedy="connect again once it runs")


def removed() -> ShuttingDown:
    """The failure of a connection whose tunnel was removed from the file."""
    return ShuttingDown("this tunnel has been removed", remedy="put it back into the file and reload, if it was meant to stay")
