"""Whom the tunnels of a plan would talk to: names, ways, and the keys on both sides.

A connect tunnel's peer is asked for a connection as for any application, with the code that serves: handshake, OPEN, ACCEPT or
REJECT. So the peer dials its own target once; the connection ends in order without a byte. A listen tunnel's target is only
dialled. Whatever else goes wrong on the way is a finding like any other.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import trio

from stcp_proxy.config import KeyAuth, Mode, Plan, PskAuth, TunnelPlan
from stcp_proxy.doctor.finding import Finding, Level
from stcp_proxy.errors import HandshakeClosed, PeerRejected, StcpError, describe
from stcp_proxy.handshake.authenticate import authenticate
from stcp_proxy.handshake.key_order import Pair
from stcp_proxy.handshake.trust import Trust
from stcp_proxy.net.address import Destination
from stcp_proxy.net.dial import Failure, SocketAddress, connect
from stcp_proxy.net.leg_stream import LegStream
from stcp_proxy.net.name_cache import NameCache
from stcp_proxy.net.own_connections import OwnConnections
from stcp_proxy.protocol.opening import Opening
from stcp_proxy.session import readiness

_PATIENCE: Final = 5.0
"""Seconds for a name, for a connection, and for a handshake; less where the tunnel's own deadline is shorter."""
_ANSWER: Final = 12.0
"""Seconds for the peer's answer to OPEN: it dials its target first, and has ten seconds for that unless its file says else."""
_AT_ONCE: Final = 16
"""Targets that are asked at a time."""
_IN_ITS_LOG: Final = "look in the peer's log for the reason"


@dataclass(frozen=True, slots=True)
class _Question:
    """One target of a tunnel.

    Attributes:
        tunnel: whose.
        auth: who is to be there.
        target: where.
        service: what it is asked for.
    """

    tunnel: TunnelPlan
    auth: KeyAuth | PskAuth
    target: Destination
    service: str | None


async def look(plan: Plan) -> list[Finding]:
    """Every target of every tunnel, in the order of the file."""
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
    """Each target once, whichever routes or services lead to it."""
    if tunnel.intercept is None:
        asked = [(tunnel.auth, target, tunnel.service) for target in tunnel.to]
        asked += [(tunnel.auth, target, None) for offer in tunnel.services.values() for target in offer.to]
    else:
        asked = [(route.auth, target, route.service) for route in tunnel.intercept.routes for target in route.to]
    known: list[tuple[KeyAuth | PskAuth, Destination, str | None]] = []
    for each in asked:
        if each not in known:
            known.append(each)
            yield _Question(tunnel, *each)


async def _target(names: NameCache, question: _Question) -> list[Finding]:
    tunnel, service = question.tunnel, f", service {question.service}" if question.service else ""
    subject = f"{tunnel.name}: to {question.target}"
    patience = min(_PATIENCE, tunnel.dial_timeout)
    options = await names.options(question.target, trio.current_time() + patience)
    if isinstance(options, Failure):
        remedy = "correct the name in 'to', or mend name resolution (getent hosts NAME)"
        return [Finding(Level.FAIL, subject + service, options.words, remedy)]
    several = len(options) > 1 or str(options[0].address) != str(question.target)
    return [
        await _place(question, f"{subject} ({option.address}){service}" if several else subject + service, option.address)
        for option in options
    ]


async def _place(question: _Question, subject: str, place: SocketAddress) -> Finding:
    """What is found at one address. Nothing that a stranger there does may end the examination."""
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
        what = f"this was not to be expected: {type(exc).__name__}: {exc}"
        return Finding(Level.FAIL, subject, what, f"{_IN_ITS_LOG}; if it has none, report this as a mistake in stcp-proxy")


class _NotThere(Exception):
    """No connection could be made."""


async def _by_each_key(question: _Question, place: SocketAddress) -> str:
    """Ask with each pair of keys, as a session does, each on a connection of its own. Returns words for what was found."""
    tunnel = question.tunnel
    if tunnel.mode is Mode.LISTEN:
        (await _dial(tunnel, place)).close()
        return "answers"
    trust = Trust.of(question.auth)
    *others, last = pairs = trust.choice.order(str(place), trio.current_time())
    for pair in others:
        try:
            return await _ask(question, trust, pair, place, first=pair is pairs[0])
        except HandshakeClosed:
            continue
    return await _ask(question, trust, last, place, first=last is pairs[0])


async def _dial(tunnel: TunnelPlan, place: SocketAddress) -> LegStream:
    mark = None if tunnel.intercept is None else tunnel.intercept.capture.mark
    own = None if mark is None else OwnConnections(mark)
    try:
        made = await connect(place, trio.current_time() + min(_PATIENCE, tunnel.dial_timeout), own=own)
    except PermissionError:
        made = await connect(place, trio.current_time() + min(_PATIENCE, tunnel.dial_timeout))
    if isinstance(made, Failure):
        raise _NotThere(made.words)
    return LegStream(made)


async def _ask(question: _Question, trust: Trust, pair: Pair, place: SocketAddress, *, first: bool) -> str:
    """Come as far as an application's connection does."""
    tunnel = question.tunnel
    hasty = dataclasses.replace(tunnel, handshake_timeout=min(_PATIENCE, tunnel.handshake_timeout))
    stream = await _dial(tunnel, place)
    try:
        channel = await authenticate(stream, hasty, trust, pair)
        with trio.move_on_after(_ANSWER):
            await readiness.ask(stream, channel, Opening(service=question.service))
            ring = "" if first else ", though not by the first key of the file"
            return f"{trust.name(channel.established.peer)} accepts{ring}; its target answers"
        raise StcpError(f"the key is accepted, and then the peer said nothing for {_ANSWER:g} s", remedy=_IN_ITS_LOG)
    finally:
        stream.close()
