"""Several processes on one port: `workers: N`.

The parent binds every address, once for each worker (SO_REUSEPORT: the kernel spreads connections by their address), forks, and
then only hands signals on and waits. A unix socket, and one that came from a service manager, is bound once and shared. A worker
that dies takes the others with it, orderly: half a service that looks whole is worse than none. Workers die with the parent.
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
from collections.abc import Callable, Iterator, Sequence
from typing import Final, TypeAlias

import structlog

from stcp_proxy.config import Plan, TunnelPlan
from stcp_proxy.net.address import UnixAddress
from stcp_proxy.net.listen import close_listeners, leave_file, open_listeners
from stcp_proxy.tunnel import log, notify
from stcp_proxy.tunnel.record import Totals
from stcp_proxy.tunnel.service import BACKLOG
from stcp_proxy.tunnel.terminal import Terminal

_log = structlog.get_logger("stcp_proxy.workers")

_PR_SET_PDEATHSIG: Final = 1
_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)

Listeners: TypeAlias = list[list[socket.socket]]
"""The listening sockets of each tunnel of a plan."""
Serve: TypeAlias = Callable[[Plan, Listeners, Callable[[Totals], None], int], int]


def run(
    plan: Plan,
    serve: Serve,
    *,
    given: Sequence[list[socket.socket] | None] | None = None,
    forked: Callable[[int | None], None] | None = None,
) -> int:
    """Serve `plan` by `plan.workers` processes until SIGTERM or SIGINT.

    Args:
        plan: limits are for the whole; each worker gets its part of them.
        serve: serves in one process, given its part of the plan, its listeners, where to report its totals, and its number.
        given: listening sockets of each tunnel that are there already, None for a tunnel that has none; all workers share them.
        forked: called in each worker with its number, and in the parent with None, once there is nothing more to share.

    Returns:
        0 when every worker stopped orderly, otherwise 1.

    Raises:
        StcpError: an address cannot be listened on; nothing has been started.
    """
    sets = _bind(plan, given or [None] * len(plan.tunnels))
    children: dict[int, int] = {}
    parent = os.getpid()
    together = notify.Gathered(plan.workers, f"{len(plan.tunnels)} tunnels listen, {plan.workers} workers")
    for number in range(plan.workers):
        reader, writer = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.close(reader)
            together.speak_for(number)
            if forked is not None:
                forked(number)
            _work(plan, serve, number, sets, report=writer, parent=parent)
        os.close(writer)
        children[pid] = reader
    together.listen()
    if forked is not None:
        forked(None)
    for sockets in _each(sets):
        if sockets[0].family != socket.AF_UNIX:  # a port that nobody serves any more must not go on taking connections
            close_listeners(sockets)
    status, totals = _supervise(children)
    for sockets in sets[0]:
        close_listeners(sockets)
    _log.info("all workers stopped", workers=plan.workers, **dataclasses.asdict(totals))
    return status


def share(plan: Plan) -> Plan:
    """One worker's part of a plan: limits divided, rounded up."""

    def part(tunnel: TunnelPlan) -> TunnelPlan:
        return dataclasses.replace(
            tunnel,
            max_connections=-(-tunnel.max_connections // plan.workers),
            max_handshakes=-(-tunnel.max_handshakes // plan.workers),
        )

    return dataclasses.replace(plan, tunnels=tuple(part(tunnel) for tunnel in plan.tunnels), workers=1)


def _bind(plan: Plan, given: Sequence[list[socket.socket] | None]) -> list[Listeners]:
    """Listening sockets for every worker."""
    sets: list[Listeners] = [[] for _ in range(plan.workers)]
    try:
        for tunnel, sockets in zip(plan.tunnels, given, strict=True):
            if sockets is not None or isinstance(tunnel.bind, UnixAddress):
                if sockets is None:
                    sockets = open_listeners(tunnel.bind, backlog=BACKLOG, mode=tunnel.bind_mode)
                for listeners in sets:
                    listeners.append(sockets)
                continue
            # Bound alone first: SO_REUSEPORT would let a second proxy in beside a running one without a word.
            alone = open_listeners(tunnel.bind, backlog=1)
            port = alone[0].getsockname()[1]
            close_listeners(alone)
            address = dataclasses.replace(tunnel.bind, port=port)
            for listeners in sets:
                listeners.append(open_listeners(address, backlog=BACKLOG, shared=True))
    except BaseException:
        for sockets in _each(sets):
            close_listeners(sockets)
        raise
    return sets


def _each(sets: list[Listeners]) -> Iterator[list[socket.socket]]:
    return itertools.chain.from_iterable(sets)


def _work(plan: Plan, serve: Serve, number: int, sets: list[Listeners], *, report: int, parent: int) -> None:
    """The life of a worker; does not return."""
    status = 1
    try:
        os.setpgid(0, 0)  # the terminal's Ctrl-C is the parent's to hand on, once
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:
            os._exit(status)
        for sockets in _each(sets):
            if sockets[0].family == socket.AF_UNIX:
                leave_file(sockets)
            elif sockets not in sets[number]:
                close_listeners(sockets)
        log.configure(plan.log, worker=number)
        status = serve(share(plan), sets[number], lambda totals: _tell(report, totals), number)
    except BaseException as exc:
        with contextlib.suppress(Exception):
            _log.error("the worker failed", why=f"{type(exc).__name__}: {exc}", remedy="tell the authors", exc_info=exc)
    finally:
        os._exit(status)


def _tell(report: int, totals: Totals) -> None:
    os.write(report, json.dumps(dataclasses.asdict(totals)).encode())


def _supervise(children: dict[int, int]) -> tuple[int, Totals]:
    """Hand signals on until every child has gone. Returns the exit status and what all have done."""
    stopping = False

    def hand_on(number: int, _frame: object) -> None:
        nonlocal stopping
        stopping = True
        for pid in children:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    terminal = Terminal()

    def refuse(_number: int, _frame: object) -> None:
        if terminal.gone:
            hand_on(signal.SIGTERM, None)
            return
        why = "several workers read the file at their start only"
        _log.error("reload refused: everything goes on as before", why=why, remedy="restart the proxy")

    before = {number: signal.signal(number, hand_on) for number in _SIGNALS}
    before[signal.SIGHUP] = signal.signal(signal.SIGHUP, refuse)
    status, totals = 0, Totals()
    try:
        while children:
            pid, code = os.wait()
            reader = children.pop(pid, None)
            if reader is None:
                continue
            with open(reader, "rb") as pipe:
                told = pipe.read()
            if told:
                totals.add(Totals(**json.loads(told)))
            if code != 0 or not stopping:
                status = 1
            if not stopping:
                ended = os.waitstatus_to_exitcode(code)
                remedy = "look for its last words above, or for the kernel's about memory; the service manager starts all again"
                _log.error("a worker died: stopping the others", pid=pid, status=ended, remedy=remedy)
                hand_on(signal.SIGTERM, None)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    return status, totals
