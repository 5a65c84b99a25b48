"""The agent of kernel sockets: takes pending handshakes from the module, does each in a task, and answers with keys or an errno.

Invariants:
- Each handshake that was taken is ended by exactly one DONE, whatever happens to its task. Only a description without a number
  gets none: the kernel ends that handshake when its time is over.
- The descriptor of a connection is closed after DONE.
- No content of one handshake ends the agent or fails another handshake. Users choose part of that content.
- At most `max_handshakes` are under way. A newcomer takes the place of a stranger, or waits. The kernel hands out only so many
  handshakes of one user's connecting sockets that places are left for other users.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import time
from collections.abc import Callable
from typing import Final

import structlog
import trio

from stcp_proxy.agent import handshakes
from stcp_proxy.agent.handshakes import Record
from stcp_proxy.agent.messages import Opened, Pending, UnreadableHandshake
from stcp_proxy.agent.netlink import Netlink, NetlinkError, open_netlink
from stcp_proxy.agent.netlink_abi import SocketRole
from stcp_proxy.agent.places import Places
from stcp_proxy.agent.policy import Policy, Rule
from stcp_proxy.agent.results import OTHER, errno_of
from stcp_proxy.config.agent_plan import AgentPlan
from stcp_proxy.errors import AgentUnavailable, HandshakeTimedOut, LogClass, OverLimit, StcpError, UnknownPeer
from stcp_proxy.handshake.trust import Peer
from stcp_proxy.keys import PublicKey
from stcp_proxy.net.leg_stream import LegStream

_log = structlog.get_logger("stcp_proxy.agent")

_AGAIN: Final = 0.5
"""Seconds between two attempts: to register while another agent is registered, and after a failure that passes."""
_LOOK: Final = 1.0
"""Seconds after which ACCEPT is asked without READY, which is lost where the kernel has no memory for it."""
_PASSING: Final = (errno.EAGAIN, errno.EMFILE, errno.EMSGSIZE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
"""Failures of ACCEPT that leave the handshake with the kernel, or end it, and say nothing about the connection to the module."""
_REMEDIES: Final = {
    errno.EMFILE: "raise the limit of open files (LimitNOFILE=); the agent tries again",
    errno.ENFILE: "raise fs.file-max; the agent tries again",
}
_NOT_WANTED: Final = (errno.ENOENT, errno.EBADF)
"""Answers to DONE for a handshake that has ended in the kernel. EBADF: the module was unloaded."""
_ONE_RELEASE: Final = "install stcp.ko and stcp-proxy of one release"
_WHY: Final = {
    errno.ENOENT: (
        "the kernel has no sockets of this protocol",
        "install stcp.ko and load it with `modprobe stcp protocol=253` (docs/KERNEL.md)",
    ),
    errno.ENODEV: ("the module was unloaded", "load it again with `modprobe stcp protocol=253`: this agent waits for it"),
    errno.EPERM: ("this process may not register as agent", "give it CAP_NET_ADMIN"),
    errno.EPROTONOSUPPORT: ("the kernel module speaks a different interface", _ONE_RELEASE),
}


class Agent:
    """The agent of this network namespace.

    Args:
        plan: the identities.
        netlink: the connection to the module; owned by this object.
        reopen: makes a new connection after the module was unloaded.

    Attributes:
        ended: is set when no handshake is under way any more, after `stop`.
    """

    def __init__(self, plan: AgentPlan, netlink: Netlink, reopen: Callable[[], Netlink] = open_netlink) -> None:
        self.ended: Final = trio.Event()
        self._policy = Policy(plan)
        self._netlink = netlink
        self._open: Final = reopen
        self._registered = False
        self._places: Final = Places(plan.max_handshakes)
        self._taking: Final = trio.CancelScope()

    def change(self, plan: AgentPlan) -> None:
        """Use other rules from now on. A handshake under way that they do not cover fails."""
        self._policy = Policy(plan, self._policy)
        self._places.most = plan.max_handshakes

    def close(self) -> None:
        """Give up an agent that does not serve."""
        self._netlink.close()

    def stop(self) -> None:
        """Take no further handshake. Those that wait in the kernel are for the next agent."""
        self._taking.cancel()

    def register(self) -> bool:
        """Become the agent. Returns whether this process is it; False while another one is.

        Raises:
            AgentUnavailable: the module does not accept this agent.
        """
        try:
            self._netlink.register()
        except NetlinkError as exc:
            if exc.errno == errno.EBUSY:
                return False
            raise unavailable(exc) from None
        self._registered = True
        _log.info("agent registered", identities=sorted(self._policy.plan.identities))
        return True

    async def serve(self) -> None:
        """Serve until `stop`. Handshakes under way then end; cancel this to cut them off.

        A module that was unloaded is waited for.
        """
        try:
            async with trio.open_nursery() as nursery:
                with self._taking:
                    while True:
                        try:
                            await self._wait_registered()
                            await self._take_all(nursery)
                        except (NetlinkError, AgentUnavailable) as exc:
                            await self._find_again(exc if isinstance(exc, AgentUnavailable) else unavailable(exc))
        finally:
            self._netlink.close()
            self.ended.set()

    async def _wait_registered(self) -> None:
        """Return when this process is the agent."""
        if self._registered or self.register():
            return
        _log.warning(
            "another agent is registered",
            why="a network namespace has one agent",
            remedy="stop the other agent; this one waits for its end",
        )
        while not self.register():  # noqa: ASYNC110  (the module does not tell)
            await trio.sleep(_AGAIN)

    async def _find_again(self, why: AgentUnavailable) -> None:
        """Wait for a module that accepts this agent."""
        _log.error("agent stopped", why=why.what, remedy=why.remedy)
        while True:
            self._netlink.close()
            self._registered = False
            await trio.sleep(_AGAIN)
            try:
                self._netlink = self._open()
                self.register()
            except (OSError, AgentUnavailable):
                continue
            return

    async def _next(self) -> Pending:
        """Wait for a pending handshake, and take it."""
        failed = False
        while True:
            try:
                pending = self._netlink.accept(self._places.most)
            except UnreadableHandshake as exc:
                await self._end_unreadable(exc)
                continue
            except NetlinkError as exc:
                if exc.errno not in _PASSING:
                    raise
                if not failed:
                    _log.warning(
                        "handshake was not taken", why=exc.strerror, remedy=_REMEDIES.get(exc.errno or 0, "the agent tries again")
                    )
                failed = True
                await trio.sleep(_AGAIN)
                continue
            if pending is not None:
                return pending
            with trio.move_on_after(_LOOK):
                await self._netlink.wait_ready()

    async def _end_unreadable(self, exc: UnreadableHandshake) -> None:
        """End a handshake whose description is malformed. Its descriptor is closed already."""
        _log.error("handshake failed", why=str(exc), remedy=_ONE_RELEASE, handshake=exc.number)
        if exc.number is None:
            await trio.sleep(_AGAIN)  # the next answer may be no better
        else:
            self._done(exc.number, OTHER)
            await trio.lowlevel.checkpoint()

    async def _take_all(self, nursery: trio.Nursery) -> None:
        while True:
            pending = await self._next()
            sock = self._socket(pending)
            if sock is not None:
                await self._start(nursery, sock, Record.of(pending, sock))
            await trio.lowlevel.checkpoint()

    def _socket(self, pending: Pending) -> socket.socket | None:
        """Make a socket of the descriptor of a handshake. Where that fails, end the handshake."""
        try:
            return socket.socket(fileno=pending.fd)
        except OSError as exc:
            why = f"the descriptor of the connection is no socket: {exc.strerror}"
            _log.error("handshake failed", why=why, remedy=_ONE_RELEASE, user=pending.uid, handshake=pending.id)
            self._done(pending.id, OTHER)
            with contextlib.suppress(OSError):
                os.close(pending.fd)
            return None

    async def _start(self, nursery: trio.Nursery, sock: socket.socket, record: Record) -> None:
        """Start a handshake when it has a place. Where its time is over before, or this is cancelled, end it."""
        number, has_started = OTHER, False
        try:
            with trio.move_on_at(record.deadline):
                place = await self._places.take(record)
                nursery.start_soon(self._serve_one, sock, record, place)
                has_started = True
            if not has_started:
                number = errno.ETIMEDOUT
                what = f"no place was free for the handshake within {record.pending.timeout:g} s"
                _say_failed(record, OverLimit(what, remedy="raise max_handshakes if this load is expected"), number)
        finally:
            if not has_started:
                self._end(sock, record, number)

    async def _serve_one(self, sock: socket.socket, record: Record, place: trio.CancelScope) -> None:
        """Bring one handshake to its end."""
        result: Opened | int = OTHER
        try:
            with place:
                result = await self._do_handshake(LegStream(sock), record)
            if place.cancelled_caught:
                raise record.refusal or OverLimit(
                    "more handshakes are under way than max_handshakes, and this stranger lost its place to a newcomer"
                )
            _say(record)
        except StcpError as exc:
            result = errno_of(exc)
            _say_failed(record, exc, result)
        except Exception as exc:
            _log.error("handshake failed", **_facts(record), why=f"{type(exc).__name__}: {exc}", exc_info=exc)
        finally:
            record.refusal = None  # it would be part of its own traceback
            self._end(sock, record, result)

    def _end(self, sock: socket.socket, record: Record, result: Opened | int) -> None:
        """End a handshake for the module, and free what it had."""
        self._done(record.pending.id, result, **_facts(record))
        with contextlib.suppress(OSError):
            sock.close()
        self._places.leave(record)
        if record.pending.role is SocketRole.INITIATOR:
            self._netlink.look_again()

    async def _do_handshake(self, stream: LegStream, record: Record) -> Opened:
        pending = record.pending
        stream.socket.setblocking(False)
        rule = self._policy.rule(pending, record.remote)
        record.identity = rule.identity
        with trio.move_on_at(record.deadline):
            if pending.role is SocketRole.INITIATOR:
                return await handshakes.connect(stream, rule, record, self._still(record))
            return await handshakes.listen(stream, rule, record, self._still(record))
        raise HandshakeTimedOut(f"the peer did not complete the handshake within {pending.timeout:g} s")

    def _still(self, record: Record) -> Callable[[Rule, Peer], bool]:
        """Make the check whether the rules in force admit a peer that authenticated by `rule`."""

        def check(rule: Rule, peer: Peer) -> bool:
            try:
                now = self._policy.rule(record.pending, record.remote)
            except StcpError:
                return False
            return now.trust.covers(rule.trust, peer)

        return check

    def _done(self, number: int, result: Opened | int, **facts: object) -> None:
        """Send DONE. Whatever becomes of it, the other handshakes go on."""
        try:
            self._netlink.done(number, result)
        except NetlinkError as exc:
            if exc.errno in _NOT_WANTED:
                _log.debug("handshake is not wanted any more", why=exc.strerror, handshake=number)
                return
            if exc.errno == errno.ECONNRESET:  # the module has ended the handshake
                why = "the TCP connection ended before the module had its keys"
                _log.info("connection ended", **facts, why=why, handshake=number, log_class=LogClass.CONNECTIONS)
                return
            _log.error("the module refused the end of a handshake", **facts, why=exc.strerror, handshake=number)
        except Exception as exc:
            why = f"{type(exc).__name__}: {exc}"
            _log.error("the end of a handshake was not sent to the module", **facts, why=why, handshake=number, exc_info=exc)
        else:
            return
        if isinstance(result, Opened):
            self._done(number, OTHER, **facts)


def open_agent(plan: AgentPlan) -> Agent:
    """Make the agent of this network namespace, and register it unless there is one already.

    Raises:
        AgentUnavailable: there is no module with sockets, or it does not accept this agent.
    """
    try:
        agent = Agent(plan, open_netlink())
    except OSError as exc:
        raise unavailable(exc) from None
    try:
        agent.register()
    except BaseException:
        agent.close()
        raise
    return agent


def unavailable(exc: OSError) -> AgentUnavailable:
    """The failure of an agent that the kernel refuses."""
    what, remedy = _WHY.get(exc.errno or 0, (f"generic netlink: {exc.strerror or exc}", "see the kernel's log"))
    return AgentUnavailable(what, remedy=remedy)


# -- log lines -----------------------------------------------------------------------------------------------------------------


def _facts(record: Record) -> dict[str, object]:
    """The known facts about a handshake, for a log line."""
    facts = {
        "identity": record.identity or record.pending.identity,
        "peer": record.peer,
        "address": None if record.remote is None else str(record.remote),
        "role": record.pending.role.name.lower(),
        "user": record.pending.uid,
        "channel": record.channel,
        "service": record.service,
    }
    return {name: value for name, value in facts.items() if value not in (None, "")}


def _say(record: Record) -> None:
    seconds = round(time.monotonic() - record.started, 3)
    _log.info("socket authenticated", **_facts(record), seconds=seconds, log_class=LogClass.CONNECTIONS)


def _say_failed(record: Record, exc: StcpError, number: int) -> None:
    seconds = round(time.monotonic() - record.started, 3)
    remedy = {"remedy": exc.remedy} if exc.remedy else {}
    key = {"key": str(PublicKey(exc.peer))} if isinstance(exc, UnknownPeer) else {}
    getattr(_log, exc.judgement.severity.value)(
        "handshake failed",
        **_facts(record),
        why=exc.what,
        **remedy,
        **key,
        reason=exc.label,
        cause=exc.cause.value,
        errno=errno.errorcode.get(number, str(number)),
        seconds=seconds,
        log_class=exc.judgement.log_class,
    )
