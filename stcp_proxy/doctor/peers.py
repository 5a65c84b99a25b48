"""Checks of the peers and targets of a plan: names, connections, and the keys on both sides.

The peer of a connect tunnel is asked for a connection in the same way as for an application: handshake, OPEN, ACCEPT or
REJECT. So the peer dials its own target once, and the connection ends in order without a byte. The target of a listen tunnel
gets a health check. Every failure is a finding.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import trio

from stcp_proxy.config import KeyAuth, Mode, Plan, PskAuth, TunnelPlan
from stcp_proxy.doctor.finding import Finding, Level
from stcp_proxy.errors import PeerRejected, StcpError, describe
from stcp_proxy.handshake.authenticate import authenticate
from stcp_proxy.handshake.trust import Trust
from stcp_proxy.net.address import Destination
from stcp_proxy.net.dial import Failure, SocketAddress, connect
from stcp_proxy.net.name_cache import NameCache
from stcp_proxy.net.own_connections import OwnConnections
from stcp_proxy.net.proxy_header import Version
from stcp_proxy.protocol.opening import Opening
from stcp_proxy.session import readiness
from stcp_proxy.upstream.health_check import greet
from stcp_proxy.upstream.targets import REPAIR_NAME

_PATIENCE: Final = 5.0
"""Seconds for a name, for a connection, and for a handshake; less where the tunnel's own deadline is shorter."""
_ANSWER: Final = 12.0
"""Seconds for the peer's answer to OPEN. The peer dials its target first, within its dial_timeout. [default there: 10 s]"""
_AT_ONCE: Final = 16
"""Targets that are checked at a time."""
_IN_ITS_LOG: Final = "look in the peer's log for the reason"


@dataclass(frozen=True, slots=True)
class _Question:
    """One target of a tunnel.

    Attributes:
        tunnel: its tunnel.
        auth: the access rule for the peer there.
        target: its address as configured.
        service: the service to ask for; None for none.
        header: the version of the PROXY header that it expects; None for none.
    """

    tunnel: TunnelPlan
    auth: KeyAuth | PskAuth
    target: Destination
    service: str | None
    header: Version | None


async def look(plan: Plan) -> list[Finding]:
    """Check every target of every tunnel, in the order of the file."""
    names, limit = NameCache(plan.dns), trio.CapacityLimiter(_AT_ONCE)
    questions = [question for tunnel in plan.tunnels for question in _questions(tunnel)]
    found: list[list[Finding]] = [[] for _ in questions]

    async def ask(index: int, question: _Question) -> None:
        async with limit:
            found[index] = await _target(names, question)

    async with trio.open_nursery() as nursery:
        for index, question in enumerate(questions):
            nursery.start_soon(ask, index, question)
    return [finding for findings in found for finding in findings]


def _questions(tunnel: TunnelPlan) -> Iterator[_Question]:
    """Each target once, although several routes or services may lead to it."""
    if tunnel.intercept is None:
        asked = [_Question(tunnel, tunnel.auth, target, tunnel.service, tunnel.hand_on.proxy_protocol) for target in tunnel.to]
        for offer in tunnel.services.values():
            asked += [_Question(tunnel, tunnel.auth, target, None, offer.hand_on.proxy_protocol) for target in offer.to]
    else:
        routes = tunnel.intercept.routes
        asked = [_Question(tunnel, route.auth, target, route.service, None) for route in routes for target in route.to]
    for index, each in enumerate(asked):
        if each not in asked[:index]:
            yield each


async def _target(names: NameCache, question: _Question) -> list[Finding]:
    tunnel, service = question.tunnel, f", service {question.service}" if question.service else ""
    subject = f"{tunnel.name}: to {question.target}"
    patience = min(_PATIENCE, tunnel.dial_timeout)
    options = await names.options(question.target, trio.current_time() + patience)
    if isinstance(options, Failure):
        return [Finding(Level.FAIL, subject + service, options.words, REPAIR_NAME)]
    several = len(options) > 1 or str(options[0].address) != str(question.target)
    return [
        await _place(question, f"{subject} ({option.address}){service}" if several else subject + service, option.address)
        for option in options
    ]


async def _place(question: _Question, subject: str, place: SocketAddress) -> Finding:
    """Check one address. No answer of a stranger there ends the examination."""
    try:
        return Finding(Level.OK, subject, await _by_each_key(question, place))
    except _NotThere as exc:
        if question.tunnel.mode is Mode.CONNECT:
            remedy = "check that `stcp-proxy listen` runs there, and that no firewall is between"
        else:
            remedy = "check that the program runs and listens there"
        return Finding(Level.FAIL, subject, str(exc), remedy)
    except PeerRejected as exc:
        what = f"the key is accepted, and the peer refuses the connection: {describe(exc.reason, exc.text)}"
        return Finding(Level.FAIL, subject, what, exc.remedy or _IN_ITS_LOG)
    except StcpError as exc:
        return Finding(Level.FAIL, subject, exc.what, exc.remedy or _IN_ITS_LOG)
    except Exception as exc:
        what = f"unexpected failure: {type(exc).__name__}: {exc}"
        return Finding(Level.FAIL, subject, what, f"{_IN_ITS_LOG}; if it has none, report this to the authors of stcp-proxy")


class _NotThere(Exception):
    """No connection came about."""


async def _by_each_key(question: _Question, address: SocketAddress) -> str:
    """Ask as a session does, with each pair of keys on a connection of its own. Returns words for the finding."""
    tunnel = question.tunnel
    if tunnel.mode is Mode.LISTEN:
        await greet(await _dial(tunnel, address), question.header)
        return "answers"
    trust = Trust.of(question.auth)
    first = trust.choice.order(str(address), trio.current_time())[0]
    stream, channel, pair = await authenticate(
        lambda: _dial(tunnel, address), tunnel, trust, address=str(address), timeout=min(_PATIENCE, tunnel.handshake_timeout)
    )
    try:
        with trio.move_on_after(_ANSWER):
            await readiness.ask(stream, channel, Opening(service=question.service))
            ring = "" if pair == first else ", though not by the first key of the file"
            return f"{trust.peer(channel.established).name} accepts{ring}; its target answers"
        raise StcpError(f"the key is accepted, and then the peer said nothing for {_ANSWER:g} s", remedy=_IN_ITS_LOG)
    finally:
        stream.close()


async def _dial(tunnel: TunnelPlan, address: SocketAddress) -> socket.socket:
    mark = None if tunnel.intercept is None else tunnel.intercept.capture.mark
    own = None if mark is None else OwnConnections(mark)
    try:
        made = await connect(address, trio.current_time() + min(_PATIENCE, tunnel.dial_timeout), own=own)
    except PermissionError:
        made = await connect(address, trio.current_time() + min(_PATIENCE, tunnel.dial_timeout))
    if isinstance(made, Failure):
        raise _NotThere(made.words)
    return made
