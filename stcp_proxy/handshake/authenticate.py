"""The connecting side's handshake, key by key: for sessions, readiness checks, health checks and the doctor."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Awaitable, Callable
from typing import NamedTuple, Protocol

import trio

from stcp_proxy.errors import HandshakeClosed, HandshakeTimedOut, KeyRevoked
from stcp_proxy.handshake import exchange
from stcp_proxy.handshake.key_order import Pair
from stcp_proxy.handshake.trust import Trust
from stcp_proxy.net import path_mtu
from stcp_proxy.net.first_steps import until
from stcp_proxy.net.leg_stream import LegStream
from stcp_proxy.net.socket_options import tune_leg
from stcp_proxy.protocol.certified_handshake import CertifiedInitiator
from stcp_proxy.protocol.handshake import Credentials, Initiator
from stcp_proxy.protocol.wire import Suite


class Terms(Protocol):
    """What a handshake needs of a plan: of a tunnel, or of a socket of the kernel."""

    @property
    def suites(self) -> tuple[Suite, ...]:
        """The suite to send, alone."""

    @property
    def handshake_timeout(self) -> float:
        """Seconds for each handshake."""


class Authenticated(NamedTuple):
    """A wire leg whose peer has authenticated.

    Attributes:
        stream: the wire leg; owned by whoever receives it.
        channel: its keys and counters.
        pair: the pair of keys that the peer accepted.
    """

    stream: LegStream
    channel: exchange.Channel
    pair: Pair


def _nothing() -> None:
    """No log line for the next key."""


async def authenticate(
    connect: Callable[[], Awaitable[socket.socket]],
    plan: Terms,
    trust: Trust,
    *,
    address: str,
    timeout: float | None = None,
    step: Callable[[], contextlib.AbstractContextManager[None]] = contextlib.nullcontext,
    on_next_key: Callable[[], None] = _nothing,
    opens_at_once: bool = False,
) -> Authenticated:
    """Complete a handshake with the peer at one address: with each pair of keys in turn, as long as the peer closes.

    Args:
        connect: connects to the address; called once for each pair of keys.
        plan: suite and deadline.
        trust: the access rule.
        address: text of the address, under which the pair that worked is remembered.
        timeout: seconds for each handshake. [default: the plan's handshake_timeout]
        step: counts and times each handshake.
        on_next_key: called before each pair of keys but the first.
        opens_at_once: whether OPEN follows at once; see `exchange.initiate`.

    Raises:
        HandshakeError: no pair of keys led to a handshake; every socket is closed.
        KeyRevoked: the peer has no key that is not revoked.
        StcpError: `connect` failed.
    """
    pairs = trust.choice.order(address, trio.current_time())
    if not pairs:
        raise KeyRevoked(
            "every key of the peer is revoked on this side", remedy="give the peer a new key, and name it in 'peers'"
        )
    while True:
        pair = pairs.pop(0)
        stream = LegStream(await connect())
        try:
            tune_leg(stream.socket)
            seconds = plan.handshake_timeout if timeout is None else timeout
            with step():
                channel = await _handshake(stream, plan, trust, pair, seconds, opens_at_once=opens_at_once)
            trust.choice.worked(address, pair, trio.current_time())
            return Authenticated(stream, channel, pair)
        except HandshakeClosed as exc:
            is_lost = path_mtu.is_unacknowledged(stream.socket)
            stream.close()
            if is_lost:  # its own deadline ended it: no other key would arrive either
                raise _lost(exc.what) from None
            if not pairs:
                raise
        except BaseException:
            stream.close()
            raise
        on_next_key()


def initiator(suite: Suite, trust: Trust, pair: Pair) -> Initiator | CertifiedInitiator:
    """The connecting side of one handshake.

    Args:
        suite: the suite to send.
        trust: the access rule.
        pair: the keys to use; without meaning where the peer has a certificate.
    """
    if trust.certified is not None:
        return trust.certified.initiator()
    return Initiator(suite, Credentials(pair.own, trust.credentials.psk), remote_static=pair.peer)


async def _handshake(
    stream: LegStream, plan: Terms, trust: Trust, pair: Pair, timeout: float, *, opens_at_once: bool
) -> exchange.Channel:
    try:
        steps = exchange.initiate(stream, initiator(plan.suites[0], trust, pair), opens_at_once=opens_at_once)
        return await until(trio.current_time() + timeout, steps)
    except trio.TooSlowError:
        raise _too_slow(stream, timeout) from None


def _too_slow(stream: LegStream, timeout: float) -> HandshakeTimedOut:
    """The error for a handshake that the peer did not answer in time."""
    what = f"the peer did not answer the handshake within {timeout:g} s"
    if path_mtu.is_unacknowledged(stream.socket):
        return _lost(what)
    return HandshakeTimedOut(
        what,
        remedy="check that `stcp-proxy listen` of the same version runs at that address; if it does, its log says whether its "
        "answer was lost on the way, as where the MTU of the path is too small",
    )


def _lost(what: str) -> HandshakeTimedOut:
    """The error for a handshake whose first message does not arrive."""
    return HandshakeTimedOut(f"{what}: its first packets were never acknowledged, although sent again", remedy=path_mtu.REMEDY)
