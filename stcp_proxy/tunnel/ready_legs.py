"""Wire legs that a connect tunnel makes ahead, so that the first connections need no handshake (`keep: {ready: N}`).

For each address to which connections would go now, N legs wait among the tunnel's idle legs. Legs that came back from a
connection count too. A leg that was taken or has ended is replaced.

Invariants:
- A leg is kept only where the authenticated peer has agreed to keep it.
- A peer that ends unused legs early, because it has no room for them, is asked after longer and longer pauses.
"""

from __future__ import annotations

import socket
from typing import Final

import structlog
import trio

from stcp_proxy.config import Balance, TunnelPlan
from stcp_proxy.config.plan import KeepPlan
from stcp_proxy.counters import Ledger
from stcp_proxy.errors import Code, HandshakeTimedOut, PeerRejected, StcpError
from stcp_proxy.handshake.authenticate import authenticate
from stcp_proxy.handshake.trust import Trust
from stcp_proxy.net.dial import Failure, connect, summary
from stcp_proxy.session.peer_leg import NEVER, PeerLeg, now
from stcp_proxy.session.ready_leg import make_ready
from stcp_proxy.tunnel.idle_legs import IdleLegs
from stcp_proxy.upstream.balance import Candidate
from stcp_proxy.upstream.endpoint import Endpoint
from stcp_proxy.upstream.targets import Targets

_log = structlog.get_logger("stcp_proxy.tunnel")

_LOOK: Final = 5.0
"""Seconds between two checks of names and of the health of endpoints, while no leg is taken."""
_FIRST_PAUSE: Final = 1.0
"""Seconds of the pause after a first failure."""
_LONGEST_PAUSE: Final = 60.0
_REFUSED_PAUSE: Final = 600.0
"""Seconds until a peer that keeps no legs is asked again: it may have been updated."""


class _Peer:
    """The state of one endpoint.

    Attributes:
        made: legs that were made for it and that no connection has used.
        failures: failures in a row.
        until: time of the next attempt, on Trio's clock.
        is_refused: whether it was logged that the peer keeps no legs.
    """

    def __init__(self) -> None:
        self.made: list[PeerLeg] = []
        self.failures = 0
        self.until = float("-inf")
        self.is_refused = False

    def pause(self) -> None:
        """Wait before the next attempt, twice as long after each failure."""
        self.failures += 1
        self.until = trio.current_time() + min(_LONGEST_PAUSE, _FIRST_PAUSE * 2.0 ** min(self.failures - 1, 16))


class ReadyLegs:
    """Makes the legs of one plan of a connect tunnel.

    Args:
        plan: the tunnel.
        trust: the access rule: exactly one peer, or a shared secret.
        targets: the addresses of that peer.
        legs: holds the legs.
        ledger: where handshakes are counted.
    """

    def __init__(self, plan: TunnelPlan, trust: Trust, targets: Targets, legs: IdleLegs, ledger: Ledger) -> None:
        self._plan = plan
        self._trust = trust
        self._targets = targets
        self._legs = legs
        self._ledger = ledger
        self._peers: dict[str, _Peer] = {}

    async def run(self, keep: KeepPlan) -> None:
        """Make legs until cancelled.

        Args:
            keep: the plan's `keep`, with `ready` of at least 1.
        """
        while True:
            before = self._legs.removals
            wait = await self._fill(keep)
            if self._legs.removals == before:  # otherwise a leg was taken meanwhile
                with trio.move_on_after(wait):
                    await self._legs.changed.park()

    async def _fill(self, keep: KeepPlan) -> float:
        """Make the legs that are missing. Returns the seconds until the next look."""
        wait = _LOOK
        endpoints = await self._endpoints()
        self._peers = {name: self._peers.get(name) or _Peer() for name in map(str, endpoints)}
        for endpoint in endpoints:
            peer = self._peers[str(endpoint)]
            while self._lacks(endpoint, peer, keep):
                await self._make(endpoint, peer)
            if peer.failures:
                wait = min(wait, max(0.0, peer.until - trio.current_time()))
        return wait

    def _lacks(self, endpoint: Endpoint, peer: _Peer, keep: KeepPlan) -> bool:
        """Whether to make a leg now. The peer is judged before each leg, because it may end one for each new one."""
        self._judge(peer, keep)
        return self._legs.waiting(self._use(endpoint)) < keep.ready and peer.until <= trio.current_time()

    def _use(self, endpoint: Endpoint) -> object:
        return self._trust.choice, str(endpoint)

    async def _endpoints(self) -> list[Endpoint]:
        """The endpoints to which connections would go now. With failover: those of the first address with a healthy endpoint."""
        found: dict[Endpoint, None] = {}
        for address in self._targets.to:
            options = await self._targets.look_up(address, trio.current_time() + self._plan.dial_timeout)
            if isinstance(options, Failure):
                continue
            time = trio.current_time()
            healthy = [each for each in options if not each.endpoint.is_unhealthy(time)]
            if healthy and self._targets.balance is Balance.FAILOVER:
                return _first(healthy)
            found.update(dict.fromkeys(each.endpoint for each in healthy))
        return list(found)

    def _judge(self, peer: _Peer, keep: KeepPlan) -> None:
        """Pause if the peer has ended unused legs early."""
        unused = [leg for leg in peer.made if not leg.channel.leg.connection]
        peer.made = [leg for leg in unused if self._legs.holds(leg)]
        if any(now() - leg.at_rest < keep.idle / 2 for leg in unused if leg not in peer.made):
            peer.pause()

    async def _make(self, endpoint: Endpoint, peer: _Peer) -> None:
        started = trio.current_time()
        try:
            leg = await self._open(endpoint)
        except StcpError as exc:
            if isinstance(exc, PeerRejected) and exc.reason == Code.UNKNOWN_SERVICE:
                self._refused(endpoint, peer)
                return
            if exc.judgement.blames_endpoint:
                self._targets.note_failure(endpoint, exc, since=started)
            peer.pause()
            return
        self._targets.note_reached(endpoint)
        if leg is None:
            self._refused(endpoint, peer)
            return
        peer.failures, peer.is_refused = 0, False
        peer.made.append(leg)
        self._legs.put(leg)
        if not self._legs.holds(leg):
            peer.pause()  # no room on this side

    def _refused(self, endpoint: Endpoint, peer: _Peer) -> None:
        peer.failures, peer.until = 1, trio.current_time() + _REFUSED_PAUSE
        if not peer.is_refused:
            peer.is_refused = True
            _log.warning(
                "no wire legs are made ahead",
                tunnel=self._plan.name,
                why="the peer does not keep wire legs: 'keep' is off there, or its version is older",
                remedy="set 'keep' in the peer's tunnel, or 'keep: {ready: 0}' in this one",
                target=str(endpoint),
            )

    async def _open(self, endpoint: Endpoint) -> PeerLeg | None:
        """Make an idle leg. Returns None where one of the two sides does not keep it.

        Raises:
            StcpError: the endpoint does not answer, or refuses this side.
        """
        plan, era, name = self._plan, self._legs.era, str(endpoint)

        async def dial() -> socket.socket:
            made = await connect(endpoint.address, trio.current_time() + plan.dial_timeout)
            if isinstance(made, Failure):
                raise summary([endpoint.address], [made])
            return made

        step = self._ledger.handshakes.step
        stream, channel, pair = await authenticate(dial, plan, self._trust, address=name, step=step, opens_at_once=True)
        era = era if self._trust.choice.is_preferred(pair) else NEVER
        leg = PeerLeg(stream, channel, self._use(endpoint), name, era, now())
        try:
            keep = self._legs.offer(leg.made)
            with trio.move_on_after(plan.handshake_timeout):
                if keep is None or not await make_ready(stream, channel, keep):
                    stream.close()
                    return None
                leg.at_rest = now()
                return leg
            raise HandshakeTimedOut("the peer did not make a wire leg ready in time")
        except BaseException:
            stream.close()
            raise


def _first(healthy: list[Candidate]) -> list[Endpoint]:
    """The endpoint that failover chooses; with a random choice (SRV weights), all endpoints that it chooses from."""
    best = min(each.priority for each in healthy)
    same = [each for each in healthy if each.priority == best]
    return [each.endpoint for each in (same if same[0].drawn else same[:1])]
