"""All tunnels of a process: those that accept, those that drain, and the step from one plan to the next.

A change of plan has two halves. `prepare` does everything that can fail (an engine is missing, an address is taken) and leaves
everything that serves as it is. `commit` cannot fail: plans are exchanged, listening sockets change hands or are closed, and
removed tunnels drain. A listening socket stays with the tunnel that has its address in the new plan, so that no connection is
refused in between; connections of that moment wait in its backlog.
"""

from __future__ import annotations

import socket
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from typing import Final

import structlog
import trio

from stcp_proxy.config import Mode, Plan, PskAuth, TunnelPlan
from stcp_proxy.counters import Ledger
from stcp_proxy.errors import StcpError
from stcp_proxy.handshake.trust import Trust
from stcp_proxy.net import name_cache
from stcp_proxy.net.listen import close_listeners, open_in_place_of
from stcp_proxy.net.unix_socket import forget_file
from stcp_proxy.session.handover import removed, stopping
from stcp_proxy.session.intercept import check
from stcp_proxy.session.record import Totals
from stcp_proxy.tunnel.acceptor import BACKLOG
from stcp_proxy.tunnel.descriptors import EACH, Descriptors
from stcp_proxy.tunnel.engines import Engines
from stcp_proxy.tunnel.listener_handover import Listeners, Prepared, inherit
from stcp_proxy.tunnel.revocation import revoke
from stcp_proxy.tunnel.tunnel import Tunnel

_MIB: Final = 1 << 20
_log = structlog.get_logger("stcp_proxy.supervisor")


class Tunnels:
    """Every tunnel of a process.

    Args:
        plan: the first plan.

    Attributes:
        plan: the plan in force.
        serving: the tunnels of the plan, in its order.
        draining: tunnels that were removed and still have connections.
        engines: the engines that carry connections.
        descriptors: the limit that all tunnels share.
    """

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.serving: list[Tunnel] = []
        self.draining: list[Tunnel] = []
        self.engines: Final = Engines()
        self.descriptors: Final = Descriptors()
        self._ledgers: Final[dict[str, Ledger]] = {}
        self.ending = False
        """Whether listening sockets are being given up for good: no further plan is committed."""
        self._changing: Final = trio.Lock()
        """Held while tunnels change: by a commit, by a stop, by a takeover."""
        self._accepting: trio.Nursery | None = None
        self._connections: trio.Nursery | None = None

    # -- life --------------------------------------------------------------------------------------------------------------

    def open(self, listeners: Sequence[list[socket.socket] | None] | None = None) -> None:
        """Start the engines and listen.

        Args:
            listeners: listening sockets for each tunnel, None for a tunnel that binds its own.

        Raises:
            StcpError: an engine is missing, or an address cannot be bound.
        """
        name_cache.configure(self.plan.dns)
        self.engines.want(plan.engine for plan in self.plan.tunnels)
        self.engines.limit_held(self.plan.stalled_mib * _MIB)
        self.serving = [
            Tunnel(plan, self.engines[plan.engine], self._ledger(plan.name), self.descriptors) for plan in self.plan.tunnels
        ]
        for number, tunnel in enumerate(self.serving):
            tunnel.open(listeners[number] if listeners is not None else None)

    def start(self, accepting: trio.Nursery, connections: trio.Nursery) -> None:
        """Accept.

        Args:
            accepting: for the tasks that accept.
            connections: for everything that outlives them.
        """
        self._accepting, self._connections = accepting, connections
        self.descriptors.measure(self._listening)
        self._check_descriptors()
        for tunnel in self.serving:
            accepting.start_soon(tunnel.accept, connections)

    @property
    def _listening(self) -> int:
        return sum(len(tunnel.listeners) for tunnel in self.all)

    def _check_descriptors(self) -> None:
        """Log when the descriptors do for fewer connections than the file allows; warn when one tunnel lacks half."""
        limits = [tunnel.plan.max_connections for tunnel in self.serving]
        wanted = sum(limits)
        if wanted > self.descriptors.places:
            scarce = 2 * self.descriptors.places < max(limits)
            (_log.warning if scarce else _log.info)(
                "fewer descriptors than connections: new connections will wait",
                connections=self.descriptors.places,
                max_connections=wanted,
                why=f"each connection needs {EACH} of the open files that this process may have",
                remedy=f"raise the limit of open files (LimitNOFILE, ulimit -n) to {self.descriptors.needed(wanted)}, "
                "or lower max_connections",
            )

    def spawn(self, work: Callable[[], Awaitable[None]]) -> None:
        """Run something for as long as the tunnels accept; a stop cancels it."""
        assert self._accepting is not None  # noqa: S101
        self._accepting.start_soon(work)

    async def stop_accepting(self, mode: Mode) -> None:
        """Close the listening sockets of all tunnels of one role."""
        self.ending = True
        async with self._changing:
            for tunnel in self.serving:
                if tunnel.plan.mode is mode:
                    close_listeners(await tunnel.release())

    async def hand_over(self, taken: Collection[socket.socket]) -> None:
        """Stop accepting: another process serves from now on.

        Args:
            taken: the listening sockets that it has. What waits in the backlogs of the others is accepted here.
        """
        assert self._connections is not None  # noqa: S101
        self.ending = True
        async with self._changing:
            for tunnel in self.serving:
                leaving = await tunnel.release()
                for listener in leaving:
                    if listener in taken:
                        forget_file([listener])
                    else:
                        tunnel.accept_waiting([listener], self._connections)
                close_listeners(leaving)

    async def wait_until_inbound_is_idle(self) -> None:
        """Return when no listen tunnel has a connection; never return where there is no listen tunnel."""
        inbound = [tunnel for tunnel in self.all if tunnel.plan.mode is Mode.LISTEN]
        if not inbound:
            await trio.sleep_forever()
        async with trio.open_nursery() as nursery:
            for tunnel in inbound:
                nursery.start_soon(tunnel.drain)

    def stop_listening(self) -> None:
        """Close every listening socket; the tasks that accept have ended."""
        for tunnel in self.all:
            tunnel.close()

    def close(self) -> None:
        """Close everything."""
        self.stop_listening()
        self.engines.close()

    @property
    def status(self) -> str:
        """One line for the service manager."""
        return f"{len(self.serving)} tunnels listen"

    # -- all of them -------------------------------------------------------------------------------------------------------

    @property
    def all(self) -> list[Tunnel]:
        """Every tunnel, draining ones last."""
        return [*self.serving, *self.draining]

    @property
    def open_connections(self) -> int:
        """The number of connections that have not ended."""
        return sum(len(tunnel.live) for tunnel in self.all)

    @property
    def unfinished(self) -> int:
        """The number of connections whose end now would cut an application off."""
        return sum(tunnel.live.unfinished for tunnel in self.all)

    @property
    def totals(self) -> Totals:
        """The sums over all tunnels since the start."""
        done = Totals()
        for ledger in self._ledgers.values():
            done.add(Totals.of(ledger))
        return done

    def _ledger(self, name: str) -> Ledger:
        """The counters of all tunnels that have had this name."""
        return self._ledgers.setdefault(name, Ledger())

    async def wait_idle(self) -> None:
        """Return when no connection is left, and no peer that has just been told that its legs are not kept any more."""
        async with trio.open_nursery() as nursery:
            for tunnel in self.all:
                nursery.start_soon(tunnel.drain)
        for tunnel in self.all:
            await tunnel.legs.wait_all_left()

    def abort(self, why: StcpError) -> None:
        """End every connection."""
        for tunnel in self.all:
            tunnel.live.abort(why)

    # -- another plan ------------------------------------------------------------------------------------------------------

    async def prepare(self, plan: Plan, given: Listeners | None = None) -> Prepared:
        """Do everything of the step to `plan` that may fail; what serves stays as it is.

        Args:
            plan: the new plan.
            given: listening sockets for tunnels that inherit none, or whose socket file is lost; owned by the result.

        Raises:
            StcpError: an engine is missing, an address cannot be bound, or this process ends; nothing is left of the attempt.
        """
        lost = {tunnel.plan.name for tunnel in self.serving if tunnel.lost} if given is None else set()
        change = Prepared(plan, dict(given or {}), inherit(self.plan, plan, without=lost))
        for name in change.opened:  # the leader has bound it anew
            change.inherited.pop(name, None)
        try:
            self.engines.want(tunnel.engine for tunnel in plan.tunnels)
            for tunnel in plan.tunnels:
                check(tunnel)
                if tunnel.name not in change.inherited and tunnel.name not in change.opened:
                    change.opened[tunnel.name] = await trio.to_thread.run_sync(self._open, tunnel, change.inherited)
            if self.ending:  # meanwhile: a draining process must not listen again
                raise stopping()
        except BaseException:
            change.abandon()
            raise
        return change

    def _open(self, plan: TunnelPlan, inherited: Mapping[str, str]) -> list[socket.socket]:
        """Listen for a new tunnel; in a thread, because a name may have to be looked up."""
        kept = set(inherited.values())
        leaving = [sock for tunnel in self.serving if tunnel.plan.name not in kept for sock in tunnel.listeners]
        return open_in_place_of(leaving, plan.bind, backlog=BACKLOG, mode=plan.bind_mode, freebind=plan.freebind)

    async def commit(self, change: Prepared) -> None:
        """Make a prepared change. It cannot fail and is not cancelled half-way. Do not call it where `ending` is set."""
        assert self._accepting is not None  # noqa: S101
        assert self._connections is not None  # noqa: S101
        with trio.CancelScope(shield=True):
            async with self._changing:
                old = {tunnel.plan.name: tunnel for tunnel in self.serving}
                rules = {tunnel: tunnel.live.trust for tunnel in self.all}
                modes = {plan.name: plan.mode for plan in change.plan.tunnels}
                stay = {name for name, giver in change.inherited.items() if name == giver and old[name].plan.mode is modes[name]}
                released = {name: await tunnel.release() for name, tunnel in old.items() if name not in stay}
                listeners = {name: released.pop(giver) for name, giver in change.inherited.items() if name not in stay}
                for name, leaving in released.items():  # a client that has connected already is served, by the plan that goes
                    old[name].accept_waiting(leaving, self._connections)
                    close_listeners(leaving)
                self.serving = [self._placed(plan, old.get(plan.name), listeners | change.opened) for plan in change.plan.tunnels]
                self.plan = change.plan
                name_cache.configure(change.plan.dns)
                self.engines.limit_held(change.plan.stalled_mib * _MIB)
                for tunnel in old.values():
                    if tunnel not in self.serving:
                        self.draining.append(tunnel)
                        self._connections.start_soon(self._drain, tunnel, change.plan.drain)
                self.descriptors.set_listeners(self._listening)
                self._revoke(self.plan, self.draining, rules, self._connections)

    def admit_no_more_than(self, plan: Plan) -> None:
        """End the connections that `plan` no longer admits, and change nothing else. For a process that was replaced."""
        assert self._connections is not None  # noqa: S101
        rules = {tunnel: tunnel.live.trust for tunnel in self.all}
        found = {(each.name, each.mode): each.auth for each in plan.tunnels}
        gone = list(self.draining)
        for tunnel in self.serving:
            auth = found.get((tunnel.plan.name, tunnel.plan.mode))
            if auth is None:
                gone.append(tunnel)
            else:
                tunnel.live.trust = Trust.of(auth)
        self._revoke(plan, gone, rules, self._connections)

    def _revoke(self, plan: Plan, gone: Collection[Tunnel], rules: Mapping[Tunnel, Trust], nursery: trio.Nursery) -> None:
        """End the connections whose key was taken out of their tunnel's rule; of a removed tunnel, out of the whole file.

        Args:
            plan: the file as it is now.
            gone: the tunnels that it no longer has.
            rules: the rule of each tunnel before.
            nursery: for what waits until the connections end.
        """
        auths = plan.auths
        secrets = [auth.secret if isinstance(auth, PskAuth) else auth.psk for auth in auths]
        for tunnel, before in rules.items():
            live = tunnel.live
            if tunnel in gone:
                live.trust = live.trust.remains(plan.known, secrets, plan.trusted)
            if live.trust is not before or live.trust.audit is not None:  # an audit may have ended by its date
                live.grace_until = trio.current_time() + plan.revoke_grace
                nursery.start_soon(revoke, tunnel.plan.name, live, before, plan.revoke_grace)

    def _placed(self, plan: TunnelPlan, tunnel: Tunnel | None, listeners: Listeners) -> Tunnel:
        """The tunnel that serves `plan` from now on, accepting."""
        assert self._accepting is not None  # noqa: S101
        assert self._connections is not None  # noqa: S101
        engine = self.engines[plan.engine]
        if tunnel is None or tunnel.plan.mode is not plan.mode:
            tunnel = Tunnel(plan, engine, self._ledger(plan.name), self.descriptors)
        elif tunnel.plan != plan:
            tunnel.replace(plan, engine)
        tunnel.upstreams.forget_key_order()
        if plan.name in listeners:
            tunnel.open(listeners[plan.name])
            self._accepting.start_soon(tunnel.accept, self._connections)
        return tunnel

    async def _drain(self, tunnel: Tunnel, deadline: float) -> None:
        """Let the connections of a removed tunnel finish, for at most `deadline` seconds."""
        _log.info("tunnel removed", tunnel=tunnel.plan.name, open=len(tunnel.live), drain_seconds=deadline)
        with trio.move_on_after(deadline):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(tunnel.live.dismiss_unauthenticated)
                await tunnel.drain()
                nursery.cancel_scope.cancel()
        if len(tunnel.live):
            tunnel.live.abort(removed())
            await tunnel.live.wait_idle()
        self.draining.remove(tunnel)
