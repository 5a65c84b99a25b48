"""The admin address, served inside the proxy's own loop.

Hypercorn speaks HTTP, with one of its TCP servers for each connection. This module accepts the connections itself, because
unauthenticated clients may reach the address. It allows few connections: beyond the limit, a new one ends the oldest connection
of the source with the most connections, and a new one of a source that is far beyond its rate is closed at once. A client that
does not read its answer is disconnected after a deadline. A failure ends its own connection only. Only HTTP/1.1 is spoken:
HTTP/2 gives one connection too many ways to keep a server busy.

Between requests one task waits for the listening socket, and one takes a report every ten seconds: `history` and `fault_log` keep
what somebody on call will ask for.
"""

from __future__ import annotations

import collections
import functools
import socket
from collections.abc import Callable, Collection
from typing import Any, Final, cast

import structlog
import trio
from hypercorn.app_wrappers import ASGIWrapper
from hypercorn.config import Config
from hypercorn.trio.tcp_server import TCPServer
from hypercorn.trio.worker_context import WorkerContext
from hypercorn.typing import ConnectionState
from starlette.types import ASGIApp

from stcp_proxy.admin import http_app, worker_reports
from stcp_proxy.admin.access import AccessControl, RequestDropped
from stcp_proxy.admin.client_stream import LAST_WORDS, ClientStream
from stcp_proxy.admin.cooperate import Steps
from stcp_proxy.admin.fault_log import FaultLog
from stcp_proxy.admin.faults import find_faults_in_steps
from stcp_proxy.admin.history import SERIES, STEP, History, Past
from stcp_proxy.admin.interface import Host
from stcp_proxy.admin.live_bytes import Meter
from stcp_proxy.admin.loop_delay import LoopDelay
from stcp_proxy.admin.probe_request import KEPT, answer_probe, read_probe
from stcp_proxy.admin.rate_limit import RateLimit
from stcp_proxy.admin.readiness import Readiness
from stcp_proxy.admin.report import Report, status_of
from stcp_proxy.admin.shared_report import SharedReport
from stcp_proxy.admin.snapshot import snapshot
from stcp_proxy.admin.snapshot_request import SnapshotRequest
from stcp_proxy.admin.source_limit import BACKLOG, SourceLimit, source_of
from stcp_proxy.admin.status_schema import Status
from stcp_proxy.config import AdminPlan
from stcp_proxy.errors import ConfigError, StcpError
from stcp_proxy.net.address import describe_sockaddr
from stcp_proxy.net.listen import close_listeners, listening_on, open_listeners
from stcp_proxy.net.peer_credentials import peer_credentials
from stcp_proxy.net.shortage import EXHAUSTED
from stcp_proxy.net.unix_socket import forget_file, in_place

_log = structlog.get_logger("stcp_proxy.admin")

PLACES: Final = 64
ACCEPTED_AT_ONCE: Final = 64
"""Connections that are accepted before the relays have the loop."""
_MAX_HEAD: Final = 16 * 1024


_Pairs = dict[int, tuple[socket.socket, socket.socket]]


def _config() -> Config:
    config = Config()
    config.errorlog = config.accesslog = None
    config.include_server_header = False
    config.h11_max_incomplete_size = config.h2_max_header_list_size = _MAX_HEAD
    config.h2_max_concurrent_streams = 4
    config.keep_alive_timeout = 30.0
    return config


class AdminServer:
    """The admin address of one process. A reload may move it or take it away.

    Args:
        plan: the address and its token.
        listeners: the listening sockets, owned by this object; empty in a worker process other than the first.
        pairs: for each worker process except the first: the socket for requests, and the socket for answers.
    """

    def __init__(self, plan: AdminPlan, listeners: list[socket.socket], pairs: _Pairs | None = None) -> None:
        self._plan = plan
        self._pairs = pairs or {}
        self._listeners = listeners
        self._places: dict[ClientStream, None] = {}
        """Open connections, the oldest first."""
        self._sources = SourceLimit()
        self._accepting: dict[socket.socket, trio.CancelScope] = {}
        self._access: AccessControl | None = None
        self._begin: Callable[[], None] = _nothing
        """Starts to accept from new listening sockets."""
        self._end: Callable[[list[ClientStream]], None] = _nothing
        """Ends connections after their last answer."""

    @property
    def listeners(self) -> list[socket.socket]:
        """See `stcp_proxy.process.companion.Companion`; without unix sockets whose file was removed or replaced."""
        return [listener for listener in self._listeners if in_place(listener)]

    def hand_over(self, taken: Collection[socket.socket]) -> None:
        """See `stcp_proxy.process.companion.Companion`."""
        forget_file(listener for listener in self._listeners if listener in taken)
        self._stop_listening()

    def change(self, plan: AdminPlan | None, listeners: list[socket.socket] | None) -> None:
        """Serve a new plan from now on. Clients of an address that is left have the time of an answer.

        Args:
            plan: the new plan; None for no admin address.
            listeners: new listening sockets, owned by this object from now on; None to keep the present ones.
        """
        if plan is not None:
            self._plan = plan
        if listeners is None:
            if self._access is not None and plan is not None:
                self._access.change_token(plan)
            return
        if plan is None and self._listeners:
            _log.info("admin address closed", addresses=listening_on(self._listeners))
        self._stop_listening()
        self._end(list(self._places))
        self._listeners = listeners
        if listeners:
            self._begin()

    def _stop_listening(self) -> None:
        leaving, self._listeners = self._listeners, []
        for listener in leaving:
            if (scope := self._accepting.pop(listener, None)) is not None:
                scope.cancel()
        close_listeners(leaving)

    async def serve(self, host: Host) -> None:
        """Answer until cancelled."""
        loop_delay, meter, rate_limit = LoopDelay(), Meter(), RateLimit()

        one_at_a_time = trio.Lock()

        async def take(wanted: SnapshotRequest) -> Report:
            async with one_at_a_time:
                steps = Steps()
                report = await snapshot(host, wanted, meter, loop_delay.ask() if wanted.metrics else loop_delay.durations, steps)
                if not wanted.probe:  # probes skip the rate limit, so they must not use it up for other requests
                    rate_limit.charge(steps.worked)
                return report

        async with trio.open_nursery() as nursery:
            nursery.start_soon(loop_delay.measure)
            if host.worker == 0:
                others = [worker_reports.WorkerClient(number, asker) for number, (asker, _) in self._pairs.items()]
                await self._serve(_Backend(host, take, others), rate_limit)
            else:
                await worker_reports.answer(self._pairs[host.worker][1], take)

    async def _serve(self, backend: _Backend, rate_limit: RateLimit) -> None:
        app = http_app.build(backend)
        config = _config()
        async with trio.open_nursery() as connections, trio.open_nursery() as nursery:
            nursery.start_soon(self._clear_at_end)
            nursery.start_soon(backend.remember)

            access = self._access = AccessControl(app, self._plan, rate_limit)

            async def accept(listener: socket.socket, access: AccessControl) -> None:
                with trio.CancelScope() as self._accepting[listener]:
                    await self._accept(listener, connections, access, config)

            def start(listener: socket.socket) -> None:
                nursery.start_soon(accept, listener, access)

            def begin() -> None:
                """Accept from the present listening sockets. Clients of an earlier address keep the access control of it."""
                nonlocal access
                access = self._access = AccessControl(app, self._plan, rate_limit)
                _log.info("admin address", addresses=listening_on(self._listeners), token=self._plan.token is not None)
                for listener in self._listeners:
                    start(listener)

            self._begin = begin
            self._end = lambda streams: nursery.start_soon(_end_soon, streams)
            if self._listeners:
                begin()
            backend.after_reload(functools.partial(self._bind_lost, start))

    def _bind_lost(self, accept: Callable[[socket.socket], None]) -> None:
        """Bind the address again after its socket file was removed or replaced."""
        lost = [listener for listener in self._listeners if not in_place(listener)]
        if not lost:
            return
        try:
            found = open_listeners(self._plan.address, backlog=BACKLOG)
        except ConfigError as exc:
            _log.error("admin address lost: its socket file was removed or replaced", why=exc.what, remedy=exc.remedy)
            return
        for listener in lost:
            self._listeners.remove(listener)
            self._accepting.pop(listener).cancel()
            close_listeners([listener])
        self._listeners += found
        for listener in found:
            accept(listener)
        _log.info("admin address", addresses=listening_on(found), token=self._plan.token is not None)

    async def _clear_at_end(self) -> None:
        """At the end, close every connection: a slow client does not delay the stop."""
        try:
            await trio.sleep_forever()
        finally:
            for stream in list(self._places):
                stream.abort()

    async def _accept(self, listener: socket.socket, connections: trio.Nursery, app: ASGIApp, config: Config) -> None:
        while True:
            await trio.lowlevel.wait_readable(listener)
            try:
                for _ in range(ACCEPTED_AT_ONCE):
                    sock, address = listener.accept()
                    if (stream := self._admit(sock, address)) is not None:
                        connections.start_soon(self._converse, stream, app, config)
            except OSError as exc:
                await trio.lowlevel.checkpoint_if_cancelled()  # closed by `hand_over`
                if exc.errno in EXHAUSTED:
                    await trio.sleep(1.0)

    def _admit(self, sock: socket.socket, address: Any) -> ClientStream | None:
        """Give a new connection a place. Returns None for a connection that is closed at once."""
        sock.setblocking(False)
        full = len(self._places) >= PLACES
        try:
            if full and self._sources.is_far_behind(source_of(address)):
                raise ConnectionRefusedError
            stream = ClientStream(sock, address, _who(sock, address))
        except OSError:
            sock.close()
            return None
        if full:
            self._give_up_place()
        self._places[stream] = None
        return stream

    def _give_up_place(self) -> None:
        """End the oldest connection of the source with the most connections. Connections of this host come behind those of the
        network, for they may be probes; connections with the token come last."""
        untrusted = [stream for stream in self._places if not stream.trusted] or list(self._places)
        found = [stream for stream in untrusted if not stream.local] or untrusted
        most, _ = collections.Counter(stream.source for stream in found).most_common(1)[0]
        oldest = next(stream for stream in found if stream.source == most)
        del self._places[oldest]
        oldest.abort()

    async def _converse(self, stream: ClientStream, app: ASGIApp, config: Config) -> None:
        """Serve all requests of one connection. A failure ends this connection only."""

        async def answer(scope: Any, receive: Any, send: Any) -> None:
            stream.request = scope
            scope[http_app.WHO] = stream.who
            try:
                await app(scope, receive, send)
            except RequestDropped:
                stream.abort()

        with stream.scope:
            try:
                await self._sources.turn(stream.source)
                await _serve_client(stream, answer, config)
            except Exception as exc:
                _log.debug("a connection to the admin address failed", why=f"{type(exc).__name__}: {exc}")
            finally:
                stream.abort()
        self._places.pop(stream, None)


async def _serve_client(stream: ClientStream, app: ASGIApp, config: Config) -> None:
    """Serve the requests of one connection. The web server is set up for the first request that is no simple probe."""
    while True:
        first = b""
        with trio.move_on_after(config.keep_alive_timeout):
            first = await stream.receive_some()
        if not first:
            return
        probe = read_probe(first, stream.address)
        if probe is None:
            break
        await stream.send_all(await answer_probe(probe, app, config.response_headers("h11")))
        if not probe[KEPT]:
            return
    stream.unread(first)
    await TCPServer(ASGIWrapper(cast("Any", app)), config, WorkerContext(None), ConnectionState({}), cast("Any", stream)).run()


async def _end_soon(streams: list[ClientStream]) -> None:
    await trio.sleep(LAST_WORDS)
    for stream in streams:
        stream.abort()


def _nothing(*_: object) -> None: ...


def _who(sock: socket.socket, address: Any) -> str:
    """The client, for the log: on a unix socket the process and its user, which the kernel names; else the address."""
    if sock.family != socket.AF_UNIX:
        return describe_sockaddr(sock.family, address)
    peer = peer_credentials(sock)
    return "a process of an unknown user" if peer is None else str(peer)


class _Backend:
    """The source of all answers: this process, and through it all worker processes."""

    def __init__(self, host: Host, take: worker_reports.TakeSnapshot, others: list[worker_reports.WorkerClient]) -> None:
        self._host = host
        self._take = take
        self._others = others
        self._readiness = Readiness(host)
        self._probed = SharedReport(self._gather, lambda: (host.state, host.rules, host.egress_filter, id(host.plan)))
        self._history = History(host.started)
        self._faults = FaultLog()

    async def report(self, wanted: SnapshotRequest) -> Report:
        return await self._probed.get() if wanted.probe else await self._gather(wanted)

    async def _gather(self, wanted: SnapshotRequest) -> Report:
        report = await worker_reports.gather(self._take, self._others, wanted)
        self._faults.update(await find_faults_in_steps(report, Steps()), report.time)
        return report

    async def status(self, wanted: SnapshotRequest) -> Status:
        report = await self.report(wanted)
        return status_of(report, self._faults.verdict(len(report.tunnels)), self._faults.states())

    def past(self, tunnel: str, points: int) -> Past:
        names = [each.plan.name for each in self._host.tunnels]
        return self._history.past([name for name in names if name == tunnel] if tunnel else names[:SERIES], points)

    async def remember(self) -> None:
        """Take a report from time to time, for the history and for the times of faults."""
        while True:
            await trio.sleep(STEP)
            report = await self.report(SnapshotRequest(count=0, probe=True))
            await self._history.add(report, Steps())

    async def reload(self, *, check: bool, force: bool) -> dict[str, Any]:
        return await self._host.reload(check=check, force=force)

    def after_reload(self, call: Callable[[], None]) -> None:
        """See `Host.after_reload`."""
        self._host.after_reload(call)

    async def failures(self) -> dict[str, StcpError]:
        return await self._readiness.failures()

    def quit(self) -> None:
        self._host.quit()
