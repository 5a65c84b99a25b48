"""A process that serves: start, signals, drain.

Nurseries mirror lifetimes: listeners in one, connections in another. A stop cancels the first, gives the second its deadline,
tells what is left "shutting down", and only then closes the engines.
"""

from __future__ import annotations

import contextlib
import dataclasses
import resource
import signal
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Final

import structlog
import trio

from stcp_proxy.config import Plan
from stcp_proxy.errors import StcpError
from stcp_proxy.logs import log, rate_limit
from stcp_proxy.net import socket_activation
from stcp_proxy.net.address import UnixAddress
from stcp_proxy.net.unix_socket import close_unix
from stcp_proxy.process import resting_memory, sandbox, sd_notify, signals, successor
from stcp_proxy.process.companion import Companion
from stcp_proxy.process.drain import GRACE, drain, drain_replaced
from stcp_proxy.process.kernel_agent import KernelAgent
from stcp_proxy.process.own_listeners import InThisProcess, OwnListeners
from stcp_proxy.process.reload import Read, Reloader
from stcp_proxy.process.replaced import ReplacedReloader
from stcp_proxy.process.running import Running, State
from stcp_proxy.process.running_clock import RunningClock
from stcp_proxy.process.terminal import Terminal
from stcp_proxy.process.watch import Watcher
from stcp_proxy.session.handover import stopping
from stcp_proxy.session.record import Totals
from stcp_proxy.tunnel.tunnels import Tunnels

if TYPE_CHECKING:  # loaded only by those who need them
    from stcp_proxy.process.takeover_client import Takeover
    from stcp_proxy.process.takeover_server import TakeoverServer

_log = structlog.get_logger("stcp_proxy.supervisor")

_RULES_PATIENCE: Final = 2.0
"""Seconds to look at the rules of interception before the proxy is ready."""


def run(
    plan: Plan,
    read: Read | None = None,
    beside: Companion | None = None,
    takeover: Takeover | None = None,
) -> int:
    """Serve `plan` until SIGTERM or SIGINT; see `stcp_proxy.process.run`.

    Raises:
        StcpError: it could not start.
    """
    signals.hold()
    log.configure(plan.log)
    sandbox.report()
    sd_notify.attach()
    given = socket_activation.assign(socket_activation.take(), [(tunnel.name, tunnel.bind) for tunnel in plan.tunnels])
    if takeover is not None:
        sd_notify.expect(takeover.manager)
        given = takeover.listeners(plan, given)
    if plan.workers > 1:
        from stcp_proxy.process import workers
        from stcp_proxy.process.reload_worker import ReloadWorker

        def work(setup: workers.WorkerSetup) -> int:
            def follow(tunnels: Tunnels, own: OwnListeners) -> ReloadWorker:
                return ReloadWorker(tunnels, read, plan, setup.link, setup.number, own)

            share = partial(serve, setup.plan, None, setup.listeners, setup.tell, worker=setup.number, workers=plan.workers)
            return _run(partial(share, beside=beside, follow=follow))

        return workers.run(plan, work, read=read, given=given, beside=beside, takeover=takeover)
    return _run(partial(serve, plan, read, given, beside=beside, takeover=takeover))


def _run(work: Callable[[], Awaitable[int]]) -> int:
    """Run Trio by a clock that leaves out the time in which this process does not run."""
    clock = RunningClock()
    return trio.run(work, clock=clock, instruments=[clock])


async def serve(
    plan: Plan,
    read: Read | None = None,
    listeners: Sequence[list[socket.socket] | None] | None = None,
    totals: Callable[[Totals], None] | None = None,
    *,
    beside: Companion | None = None,
    worker: int = 0,
    workers: int = 1,
    follow: Callable[[Tunnels, OwnListeners], Reloader] | None = None,
    takeover: Takeover | None = None,
) -> int:
    """The same inside a running Trio, in this process.

    Args:
        plan: what to serve.
        read: reads the configuration again; without it, SIGHUP has no meaning here.
        listeners: listening sockets for each tunnel of the plan, None for one that binds its own; owned by this call.
        totals: told at the end what has been done.
        beside: what is served in the same loop, from start to end.
        worker: number of this process among several.
        workers: how many they are.
        follow: makes what reloads this process together with the others; None where it is alone.
        takeover: the takeover from an old process; None without one.

    Returns:
        The exit status: 0 when every connection could finish, 1 when some were cut off.

    Raises:
        StcpError: it could not start.
    """
    _raise_descriptor_limit()
    tunnels = Tunnels(plan)
    own = OwnListeners(tunnels, beside, lambda: running.state is State.READY)
    reloader = Reloader(tunnels, read, beside) if follow is None else follow(tunnels, own)
    running = Running(tunnels, reloader, worker=worker, workers=workers)
    change = _Change(own, None if follow is not None else plan.takeover, takeover)
    agent = KernelAgent(plan, worker)
    reloader.after.append(lambda: agent.change(tunnels.plan))
    try:
        change.open()
        tunnels.open(listeners)
        async with sd_notify.watchdog(), rate_limit.telling(log.REPEATS), trio.open_nursery() as companions:
            if beside is not None:
                companions.start_soon(_accompany, beside, running)
            cut_off = await _serve(tunnels, reloader, running, change, agent)
            companions.cancel_scope.cancel()
    finally:
        change.close()
        agent.close()
        tunnels.close()
        if totals is not None:
            totals(tunnels.totals)
    if change.failure is not None:
        raise change.failure
    return 1 if cut_off else 0


async def _accompany(beside: Companion, running: Running) -> None:
    """Serve what is beside the tunnels; its failure is not theirs."""
    try:
        await beside.serve(running)
    except Exception as exc:
        _log.error("admin server failed", why=f"{type(exc).__name__}: {exc}", exc_info=exc)


async def _serve(tunnels: Tunnels, reloader: Reloader, running: Running, change: _Change, agent: KernelAgent) -> int:
    """Serve until a signal says stop, or a new process serves. Returns how many connections were cut off."""
    terminal = Terminal()
    with _signal_receiver() as received:
        async with trio.open_nursery() as connections:
            async with trio.open_nursery() as accepting:
                tunnels.start(accepting, connections)
                accepting.start_soon(reloader.serve)
                with trio.move_on_after(_RULES_PATIENCE):
                    await running.rules_check.look()  # before "ready" is logged, notified or answered
                accepting.start_soon(running.rules_check.serve)
                if running.worker == 0:
                    accepting.start_soon(running.lifetimes_check.serve)
                    accepting.start_soon(Watcher(reloader).serve)
                resting_memory.settle()
                if await change.take_over():
                    agent.start(connections)
                    running.state = State.READY
                    _log.info("ready", tunnels=len(tunnels.serving))
                    sd_notify.ready(tunnels.status)
                    change.start()
                number: int | None = signal.SIGTERM
                if change.failure is None:
                    number = await _until_stopped(received, reloader, running, change, accepting, terminal)
                running.state = State.DRAINING
                reloader.stopping = True
                agent.stop()
                await change.stop()
                if number is None:
                    replaced = ReplacedReloader(tunnels, reloader.read, reloader.now)
                    number = await drain_replaced(tunnels, received, Watcher(replaced).serve)
                if number is not None:
                    await drain(tunnels, received, signals.name(number), agent.wait_ended)
                else:
                    with trio.move_on_after(tunnels.plan.drain):
                        await agent.wait_ended()
                accepting.cancel_scope.cancel()
            tunnels.stop_listening()
            cut_off = tunnels.unfinished
            tunnels.abort(stopping())
            connections.cancel_scope.cancel()
        with trio.move_on_after(GRACE):
            await tunnels.wait_idle()
        _log.info("stopped", cut_off=cut_off, **dataclasses.asdict(tunnels.totals))
    return cut_off


async def _until_stopped(
    received: AsyncIterator[int],
    reloader: Reloader,
    running: Running,
    change: _Change,
    accepting: trio.Nursery,
    terminal: Terminal,
) -> int | None:
    """Handle reloads and replacements. Returns the signal that stops this process; None when a new process serves."""

    async def end_when_replaced(scope: trio.CancelScope) -> None:
        await change.own.replaced.wait()
        scope.cancel()

    with trio.CancelScope() as scope:
        accepting.start_soon(end_when_replaced, scope)
        while True:
            number = await anext(received)
            if number == signals.RELOAD and not terminal.gone:
                accepting.start_soon(reloader.hear)
            elif number == signals.REPLACE:
                if running.workers > 1:
                    _log.info("signal ignored", signal=signals.name(number), remedy="send it to the parent of the workers")
                    continue
                successor.start(running.plan)
                accepting.start_soon(successor.watch)
            else:
                return number
    return None


class _Change:
    """From an old process to this one, and from this one to a new one. The parent of workers does both for them.

    Args:
        own: the listening sockets of this process.
        address: where a new process asks; None where none can.
        takeover: from the old process; None without one.

    Attributes:
        failure: why the old process keeps serving, and this one has to stop.
    """

    def __init__(self, own: OwnListeners, address: UnixAddress | None, takeover: Takeover | None) -> None:
        self.own: Final = own
        self.failure: StcpError | None = None
        self._address = address
        self._takeover = takeover
        self._socket: socket.socket | None = None
        self._server: TakeoverServer | None = None

    def open(self) -> None:
        """Open the socket at which a new process asks. Raises StcpError."""
        if self._address is not None:
            from stcp_proxy.process.takeover_client import takeover_socket

            self._socket = takeover_socket(self._address, self._takeover)

    async def take_over(self) -> bool:
        """Tell the old process that this one serves. Returns False where it refuses."""
        if self._takeover is not None:
            try:
                await trio.to_thread.run_sync(self._takeover.complete)
            except StcpError as exc:
                _log.error("stopping: the old process goes on", why=exc.what, remedy=exc.remedy)
                self.failure = exc
        return self.failure is None

    def start(self) -> None:
        """Let a new process ask from now on."""
        if self._address is not None and self._socket is not None:
            from stcp_proxy.process.takeover_server import TakeoverServer

            self._server = TakeoverServer(self._address, self._socket, InThisProcess(self.own))
            self._server.start()

    async def stop(self) -> None:
        """Let no new process take over any more."""
        if self._server is not None:
            await trio.to_thread.run_sync(self._server.close)

    def close(self) -> None:
        """Close what is still open."""
        if self._socket is not None and self._server is None:
            close_unix(self._socket)


@contextlib.contextmanager
def _signal_receiver() -> Iterator[AsyncIterator[int]]:
    """Receive stops and reloads. A signal that comes after the end must not spoil the exit status: it is held back again."""
    with trio.open_signal_receiver(*signals.HANDLED) as received:
        signals.release()
        try:
            yield _Meaningful(received)
        finally:
            signals.hold()


class _Meaningful:
    """Stops and reloads among the signals that arrive; other signals are logged and ignored."""

    def __init__(self, received: AsyncIterator[int]) -> None:
        self._received = received

    def __aiter__(self) -> _Meaningful:
        return self

    async def __anext__(self) -> int:
        while (number := await anext(self._received)) in signals.WITHOUT_MEANING:
            _log.info("signal ignored", signal=signals.name(number), remedy=signals.REMEDY)
        return number


def _raise_descriptor_limit() -> None:
    """Take as many descriptors as the process may: a connection needs two."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
