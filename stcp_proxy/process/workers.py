"""Several processes on one port: `workers: N`.

The parent binds every address once for each worker (SO_REUSEPORT: the kernel spreads connections by their address) and forks.
After that it forwards signals, leads reloads (``reload_parent``) and waits. A unix socket, and a socket of a service manager, is
bound once and shared. When a worker dies, the parent stops the others in order: half a service that looks whole is worse than
none. Workers die with the parent.
"""

from __future__ import annotations

import contextlib
import ctypes
import dataclasses
import itertools
import json
import os
import signal
import socket
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, TypeAlias

import structlog

from stcp_proxy.config import Plan, TunnelPlan
from stcp_proxy.errors import StcpError
from stcp_proxy.logs import log
from stcp_proxy.net.listen import close_listeners
from stcp_proxy.net.unix_socket import close_unix, forget_file
from stcp_proxy.process import reload_messages, resting_memory, sd_notify, signals, successor
from stcp_proxy.process.companion import Companion
from stcp_proxy.process.reload import Read, workers_status
from stcp_proxy.process.reload_parent import ReloadParent
from stcp_proxy.process.takeover_client import Takeover, takeover_socket
from stcp_proxy.process.takeover_server import TakeoverServer
from stcp_proxy.process.takeover_workers import InWorkers
from stcp_proxy.process.terminal import Terminal
from stcp_proxy.process.worker_sockets import WorkerListeners
from stcp_proxy.session.record import Totals

_log = structlog.get_logger("stcp_proxy.workers")

_PR_SET_PDEATHSIG: Final = 1


@dataclasses.dataclass(frozen=True, slots=True)
class WorkerSetup:
    """Everything that one worker needs.

    Attributes:
        number: its number.
        plan: its share of the whole plan.
        listeners: the listening sockets of each tunnel.
        tell: takes its totals when it ends.
        link: its end towards the parent; see ``reload_messages``.
    """

    number: int
    plan: Plan
    listeners: list[list[socket.socket]]
    tell: Callable[[Totals], None]
    link: socket.socket


Serve: TypeAlias = Callable[[WorkerSetup], int]
"""Serves in one process. Returns its exit status."""


def run(
    plan: Plan,
    serve: Serve,
    *,
    read: Read | None = None,
    given: Sequence[list[socket.socket] | None] | None = None,
    beside: Companion | None = None,
    takeover: Takeover | None = None,
) -> int:
    """Serve `plan` by `plan.workers` processes until SIGTERM or SIGINT.

    Args:
        plan: limits are for the whole; each worker gets its part of them.
        serve: serves in one process.
        read: reads the configuration again; None where it cannot be read again.
        given: listening sockets of a service manager for each tunnel, None for a tunnel without; all workers share them.
        beside: what is served beside the tunnels; it is told of each fork.
        takeover: the takeover from an old process; None without one.

    Returns:
        0 when every worker stopped in order, otherwise 1.

    Raises:
        StcpError: an address cannot be bound; nothing was started.
    """
    server = None if plan.takeover is None else takeover_socket(plan.takeover, takeover)
    try:
        listeners_of = _bind(plan, given or [None] * len(plan.tunnels))
    except BaseException:
        if server is not None:
            close_unix(server)
        raise
    children: dict[int, int] = {}
    parent = os.getpid()
    links = [reload_messages.pair() for _ in range(plan.workers)]
    leader: ReloadParent | None = None
    served: list[TakeoverServer] = []

    def first() -> None:
        """All workers are ready: only now this process takes over, and can itself be replaced."""
        try:
            if takeover is not None:
                takeover.complete()
        except StcpError as exc:
            _log.error("stopping: the old process goes on", why=exc.what, remedy=exc.remedy)
            failed.append(exc)
            os.kill(parent, signal.SIGTERM)
            return
        if server is not None and plan.takeover is not None and leader is not None:
            served.append(TakeoverServer(plan.takeover, server, InWorkers(leader, beside)))
            served[0].start()

    failed: list[StcpError] = []
    together = sd_notify.WorkerNotifications(plan.workers, workers_status(plan), first=first)
    resting_memory.settle()
    for number in range(plan.workers):
        reader, writer = os.pipe()
        pid = os.fork()
        if pid == 0:
            for inherited in (reader, *children.values()):  # only the parent reads, so that a worker notices its end
                os.close(inherited)
            together.send_for_worker(number)
            if server is not None:
                forget_file([server])
                server.close()
            if takeover is not None:
                takeover.forked()
            if beside is not None:
                beside.forked(number)
            _work(plan, serve, number, list(listeners_of.values()), links, report=writer, parent=parent)
        os.close(writer)
        children[pid] = reader
    if beside is not None:
        beside.forked(None)
    for _, link in links:
        link.close()
    for each in listeners_of.values():
        each.close_tcp_sockets()
    leader = ReloadParent(plan, read, [link for link, _ in links], listeners_of, beside)
    leader.start()
    together.listen()
    code, totals = _supervise(children, leader, served)
    for serving in served:
        serving.close()
    if server is not None:
        close_unix(server)
    leader.close()
    if failed:
        raise failed[0]
    _log.info("all workers stopped", workers=plan.workers, **dataclasses.asdict(totals))
    return code


def share(plan: Plan) -> Plan:
    """The share of one worker: limits divided by the number of workers, rounded up."""

    def of(limit: int) -> int:
        return -(-limit // plan.workers)

    def part(tunnel: TunnelPlan) -> TunnelPlan:
        per_peer, rate = tunnel.max_connections_per_peer, tunnel.rate_per_peer
        return dataclasses.replace(
            tunnel,
            max_connections=of(tunnel.max_connections),
            max_handshakes=of(tunnel.max_handshakes),
            max_connections_per_peer=None if per_peer is None else of(per_peer),
            rate_per_peer=None if rate is None else of(rate),
        )

    return dataclasses.replace(
        plan, tunnels=tuple(part(tunnel) for tunnel in plan.tunnels), workers=1, stalled_mib=of(plan.stalled_mib)
    )


def _bind(plan: Plan, given: Sequence[list[socket.socket] | None]) -> dict[str, WorkerListeners]:
    """Listening sockets for every worker, by tunnel."""
    listeners_of: dict[str, WorkerListeners] = {}
    try:
        for tunnel, sockets in zip(plan.tunnels, given, strict=True):
            there = None if sockets is None else WorkerListeners.shared(sockets, plan.workers)
            listeners_of[tunnel.name] = there or WorkerListeners.open(tunnel, plan.workers)
    except BaseException:
        for each in listeners_of.values():
            each.close()
        raise
    return listeners_of


def _work(
    plan: Plan,
    serve: Serve,
    number: int,
    listeners_of: Sequence[WorkerListeners],
    links: Sequence[tuple[socket.socket, socket.socket]],
    *,
    report: int,
    parent: int,
) -> None:
    """Run a worker. Does not return."""
    status = 1
    try:
        os.setpgid(0, 0)  # the parent forwards the terminal's Ctrl-C, once
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:
            os._exit(status)
        for other, (theirs, mine) in enumerate(links):
            theirs.close()
            if other != number:
                mine.close()
        for each in listeners_of:
            own = set(each.sets[number])
            forget_file(own)
            close_listeners(sock for sock in itertools.chain.from_iterable(each.sets) if sock not in own)
        log.configure(plan.log, worker=number)
        listeners = [each.sets[number] for each in listeners_of]
        status = serve(
            WorkerSetup(number, share(plan), listeners, lambda totals: _report_totals(report, totals, parent), links[number][1])
        )
    except BaseException as exc:
        with contextlib.suppress(Exception):
            _log.error("the worker failed", why=f"{type(exc).__name__}: {exc}", remedy="tell the authors", exc_info=exc)
    finally:
        os._exit(status)


def _report_totals(report: int, totals: Totals, parent: int) -> None:
    """Send the totals to the parent; say so where it has ended."""
    with contextlib.suppress(BrokenPipeError):
        os.write(report, json.dumps(dataclasses.asdict(totals)).encode())
    if _has_ended(parent):
        _log.warning(
            "stopped: the parent process has ended",
            why="its workers stop with it",
            remedy="find in the system's log what ended it: a kill -9, or a lack of memory",
        )


def _has_ended(parent: int) -> bool:
    """Whether the parent process has ended.

    The kernel tells its children as soon as its first thread has ended. Its other threads may still hold its pipes open then, and
    this process is still its child.
    """
    if os.getppid() != parent:
        return True
    try:
        return Path(f"/proc/{parent}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
    except (OSError, IndexError):
        return False


def _supervise(children: dict[int, int], leader: ReloadParent, served: Sequence[TakeoverServer]) -> tuple[int, Totals]:
    """Forward signals until every child has ended. Returns the exit status and the totals of all workers."""
    stopping = False

    def forward(number: int, _frame: object) -> None:
        nonlocal stopping
        stopping = True
        leader.stop()
        for server in served:
            server.stop()
        for pid in children:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    terminal = Terminal()

    def reload(_number: int, _frame: object) -> None:
        if terminal.gone:
            forward(signal.SIGTERM, None)
        elif stopping or leader.was_replaced:
            _log.warning("the file is not read again: this proxy is stopping")
        else:
            leader.reload()

    def ignore(number: int, _frame: object) -> None:
        _log.info("signal ignored", signal=signals.name(number), remedy=signals.REMEDY)

    def replace(_number: int, _frame: object) -> None:
        if stopping or leader.was_replaced:
            _log.warning("no new process is started: this proxy is stopping")
        else:
            successor.start(leader.plan)

    known = dict.fromkeys(signals.STOP, forward) | {signals.RELOAD: reload, signals.REPLACE: replace}
    handlers = dict.fromkeys(signals.WITHOUT_MEANING, ignore) | known
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    signals.release()
    status, totals = 0, Totals()
    try:
        while children:
            pid, code = os.wait()
            reader = children.pop(pid, None)
            if reader is None:
                successor.ended(pid, os.waitstatus_to_exitcode(code))
                continue
            with open(reader, "rb") as pipe:
                told = pipe.read()
            if told:
                totals.add(Totals(**json.loads(told)))
            expected = stopping or leader.was_replaced
            if code != 0 or not expected:
                status = 1
            if not expected:
                ended = os.waitstatus_to_exitcode(code)
                remedy = "look for its last words above, or for the kernel's about memory; the service manager starts all again"
                _log.error("a worker died: stopping the others", pid=pid, status=ended, remedy=remedy)
                forward(signal.SIGTERM, None)
    finally:
        signals.hold()
        for number, handler in before.items():
            signal.signal(number, handler)
    return status, totals
