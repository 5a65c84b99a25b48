"""A worker's part of a reload with several workers; ``reload_parent`` leads it."""

from __future__ import annotations

import dataclasses
import socket
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final

import structlog
import trio

from stcp_proxy.config import Plan, plan_bytes
from stcp_proxy.config.diff import PlanDiff
from stcp_proxy.errors import ConfigError, StcpError
from stcp_proxy.logs import log
from stcp_proxy.process import reload_messages
from stcp_proxy.process.companion_change import Change
from stcp_proxy.process.own_listeners import OwnListeners
from stcp_proxy.process.reload import Read, Reloader, compared
from stcp_proxy.process.workers import share
from stcp_proxy.session.handover import stopping
from stcp_proxy.tunnel.listener_handover import Prepared
from stcp_proxy.tunnel.tunnels import Tunnels

_log = structlog.get_logger("stcp_proxy.reload")

_Step = Callable[[reload_messages.Message], Awaitable[bool]]
"""Takes one step for a message. Returns whether the step is complete."""


class ReloadWorker(Reloader):
    """Follows the parent in reloads. A reload that is requested here is requested of the parent.

    Args:
        tunnels: what runs in this process.
        read: reads the file again.
        plan: what all workers together run.
        link: this worker's end towards the parent; owned by this object.
        number: which worker this is.
        own: its listening sockets, for a new process; `own.beside` is what it serves beside them.
    """

    def __init__(
        self, tunnels: Tunnels, read: Read | None, plan: Plan, link: socket.socket, number: int, own: OwnListeners
    ) -> None:
        super().__init__(tunnels, read, own.beside)
        self._own: Final = own
        self._plan_of_all = plan
        self._link: Final = link
        self._number: Final = number
        self._round = 0
        self._candidate: tuple[Plan, PlanDiff] | None = None
        self._sockets: dict[str, list[socket.socket]] = {}
        self._change: Prepared | None = None
        self._admin: Change | None = None
        self._asking: trio.Event | None = None
        self._outcome: PlanDiff | StcpError | None = None

    @property
    def now(self) -> Plan:
        """See `Reloader.now`."""
        return self._plan_of_all

    async def reload(self, *, force: bool = False) -> PlanDiff:
        """See `Reloader.reload`; it applies to all workers."""
        async with self._one_at_a_time:
            self._waiting = False
            self._asking, self._outcome = trio.Event(), None
            try:
                await self._send("ask", force=force)
                await self._asking.wait()
            finally:
                self._asking = None
            if isinstance(self._outcome, PlanDiff):
                return self._outcome
            raise self._outcome or stopping()

    async def serve(self) -> None:
        """Handle messages of the parent until it ends or this is cancelled."""
        try:
            while True:
                await trio.lowlevel.wait_readable(self._link)
                heard = reload_messages.receive(self._link)
                if heard is None:
                    return
                await self._handle(heard)
        finally:
            self._abandon()

    async def _handle(self, heard: reload_messages.Message) -> None:
        if heard.verb == "plan":
            self._abandon()
            self._round = heard.round
            await self._try(heard, self._agree)
        elif heard.verb == "give":
            self._abandon()
            self._round = heard.round
            await self._try(heard, self._give)
        elif heard.verb == "replaced":  # of whatever round: the parent has committed itself
            await self._own.give_up(heard.rest["taken"])
            await self._send("yes")
        elif heard.round != self._round:
            for listener in heard.sockets:
                listener.close()
            if heard.verb == "refused":  # before anything was asked of this worker
                self._refused(heard)
        elif heard.verb == "listeners":
            await self._try(heard, self._prepare)
        elif heard.verb == "commit":
            await self._commit(heard)
        elif heard.verb == "refused":
            self._refused(heard)

    async def _try(self, heard: reload_messages.Message, work: _Step) -> None:
        """Take a step, and answer the parent."""
        try:
            done = await work(heard)
        except StcpError as exc:
            self._abandon()
            await self._send("no", why=exc.what, remedy=exc.remedy)
        except Exception as exc:
            self._abandon()
            _log.error("a reload cannot be prepared", why=f"{type(exc).__name__}: {exc}", exc_info=exc)
            await self._send("no", why=f"{type(exc).__name__}: {exc}", remedy="tell the authors")
        else:
            if done:
                await self._send("yes")

    async def _agree(self, heard: reload_messages.Message) -> bool:
        if not heard.complete:
            raise ConfigError("no descriptor is left to receive the plan", remedy="raise LimitNOFILE, or ulimit -n")
        plan = plan_bytes.load(await _everything(heard.sockets[0]))
        self._candidate = plan, compared(self.now, plan, force=heard.rest.get("force", False))
        return True

    async def _prepare(self, heard: reload_messages.Message) -> bool:
        for name, listener in zip(heard.rest["names"], heard.sockets, strict=False):
            self._sockets.setdefault(name, []).append(listener)
        if not heard.complete:
            raise ConfigError("no descriptor is left for the new listening sockets", remedy="raise LimitNOFILE, or ulimit -n")
        if not heard.rest["last"] or self._candidate is None:
            return False
        given, self._sockets = self._sockets, {}
        self._admin = await self._prepared_admin(self._candidate[0], given.pop(reload_messages.ADMIN, None))
        self._change = await self._tunnels.prepare(share(self._candidate[0]), given)
        return True

    async def _give(self, _heard: reload_messages.Message) -> bool:
        """Send the listening sockets to the parent; this process keeps them, too."""
        offer = self._own.offer()
        for first in range(0, max(len(offer), 1), reload_messages.MAX_SOCKETS):
            part = offer[first : first + reload_messages.MAX_SOCKETS]
            handed = [dataclasses.asdict(each) for each, _ in part]
            last = first + reload_messages.MAX_SOCKETS >= len(offer)
            await self._send("sockets", sockets=[sock for _, sock in part], handed=handed, last=last)
        return False

    async def _commit(self, heard: reload_messages.Message) -> None:
        if self._candidate is None or self._change is None:
            return
        if self._tunnels.ending:  # a stop came after this worker had said yes
            self._abandon()
            await self._send("yes")
            return
        (plan, diff), change, admin = self._candidate, self._change, self._admin
        self._candidate = self._change = self._admin = None  # from here on, its sockets are the tunnels'
        await self._tunnels.commit(change)
        if admin is not None:
            admin.commit()
        self._plan_of_all = plan
        log.change(plan.log)
        self.done("\n".join(diff.lines()))
        self._answer_asker(heard, diff)
        await self._send("yes")

    def _refused(self, heard: reload_messages.Message) -> None:
        self._abandon()
        why = ConfigError(heard.rest["why"], remedy=heard.rest["remedy"])
        self.count.add(ok=False, what=why.what)
        self._answer_asker(heard, why)

    def _answer_asker(self, heard: reload_messages.Message, outcome: PlanDiff | StcpError) -> None:
        if self._asking is not None and self._number in heard.rest["asked"]:
            self._outcome = outcome
            self._asking.set()

    def _abandon(self) -> None:
        """Abandon what was prepared."""
        for listeners in self._sockets.values():
            for listener in listeners:
                listener.close()
        self._sockets.clear()
        if self._change is not None:
            self._change.abandon()
        if self._admin is not None:
            self._admin.close()
        self._candidate = self._change = self._admin = None

    async def _send(self, verb: str, *, sockets: Sequence[socket.socket] = (), **rest: Any) -> None:
        while True:
            try:
                reload_messages.send(self._link, verb, self._round, sockets=sockets, **rest)
                return
            except BlockingIOError:
                await trio.lowlevel.wait_writable(self._link)
            except ConnectionError:
                return  # the parent has ended, and this process follows


async def _everything(sock: socket.socket) -> bytes:
    """Receive all bytes up to the end of the stream, and close the socket."""
    async with trio.SocketStream(trio.socket.from_stdlib_socket(sock)) as stream:
        return b"".join([part async for part in stream])
