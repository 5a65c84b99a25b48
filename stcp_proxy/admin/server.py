"""The admin address, served inside the proxy's own loop.

Hypercorn speaks HTTP, one of its TCP servers for each connection. Accepting is done here, because the address may be reached by
strangers: there are few places, the one taken longest ago is given up for a newcomer, whoever does not read its answer is cut
off after a while, and whatever goes wrong on one connection ends that one alone.

Between requests nothing here wakes up: a task waits for the listening socket, and that is all.
"""

from __future__ import annotations

import errno
import socket
from types import TracebackType
from typing import Any, Final, cast

import structlog
import trio
from hypercorn.app_wrappers import ASGIWrapper
from hypercorn.config import Config
from hypercorn.trio.tcp_server import TCPServer
from hypercorn.trio.worker_context import WorkerContext
from hypercorn.typing import ASGIFramework, ConnectionState

from stcp_proxy.admin import pages
from stcp_proxy.admin.guard import Guard
from stcp_proxy.admin.host import Host
from stcp_proxy.admin.look import Wanted, look
from stcp_proxy.admin.status import Status
from stcp_proxy.config import AdminPlan
from stcp_proxy.net.listen import close_listeners, leave_file, listening_on, open_listeners

_log = structlog.get_logger("stcp_proxy.admin")

PLACES: Final = 64
_BACKLOG: Final = 64
_MAX_HEAD: Final = 16 * 1024
_PATIENCE: Final = 10.0
"""Seconds that a client may take to read what it has asked for, or to say all of its request."""
_EXHAUSTED: Final = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}


def _config() -> Config:
    config = Config()
    config.errorlog = config.accesslog = None
    config.include_server_header = False
    config.h11_max_incomplete_size = config.h2_max_header_list_size = _MAX_HEAD
    config.h2_max_concurrent_streams = 4
    config.keep_alive_timeout = 30.0
    return config


class AdminServer:
    """The admin address of one proxy, from before its start to behind its end; a context manager.

    Args:
        plan: where, and with what token.
        workers: processes that the proxy is going to have.

    Raises:
        ConfigError: the address cannot be listened on.
    """

    def __init__(self, plan: AdminPlan, *, workers: int = 1) -> None:
        self._plan = plan
        self._workers = workers
        self._listeners = open_listeners(plan.address, backlog=_BACKLOG)
        self._places: dict[socket.socket, trio.CancelScope] = {}

    def __enter__(self) -> AdminServer:
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None) -> None:
        close_listeners(self._listeners)

    def forked(self, worker: int | None) -> None:
        """See `stcp_proxy.tunnel.running.Companion`: the first worker answers for all."""
        if worker == 0:
            leave_file(self._listeners)  # the parent removes it
            return
        if worker is not None:
            leave_file(self._listeners)
        elif any(listener.family == socket.AF_UNIX for listener in self._listeners):
            return
        close_listeners(self._listeners)
        self._listeners = []

    async def serve(self, host: Host) -> None:
        """Answer until cancelled."""
        app = ASGIWrapper(cast("ASGIFramework", Guard(pages.build(_Desk(host)), self._plan)))
        config = _config()
        _log.info("admin address", addresses=listening_on(self._listeners), token=self._plan.token is not None)
        async with trio.open_nursery() as connections, trio.open_nursery() as nursery:
            for listener in self._listeners:
                nursery.start_soon(self._accept, listener, connections, app, config)

    async def _accept(self, listener: socket.socket, connections: trio.Nursery, app: ASGIWrapper, config: Config) -> None:
        while True:
            await trio.lowlevel.wait_readable(listener)
            try:
                sock, _ = listener.accept()
            except OSError as exc:
                if exc.errno in _EXHAUSTED:
                    await trio.sleep(1.0)
                continue
            sock.setblocking(False)
            if len(self._places) >= PLACES:
                self._places.pop(next(iter(self._places))).cancel()
            self._places[sock] = scope = trio.CancelScope()
            connections.start_soon(self._converse, sock, scope, app, config)

    async def _converse(self, sock: socket.socket, scope: trio.CancelScope, app: ASGIWrapper, config: Config) -> None:
        """All requests of one connection; nothing that happens here reaches another."""
        with scope:
            try:
                stream = _Impatient(trio.SocketStream(trio.socket.from_stdlib_socket(sock)))
                server = TCPServer(app, config, WorkerContext(None), ConnectionState({}), cast("Any", stream))
                await server.run()
            except Exception as exc:
                _log.debug("a connection to the admin address failed", why=f"{type(exc).__name__}: {exc}")
            finally:
                sock.close()
        self._places.pop(sock, None)


class _Impatient:
    """A socket stream that does not wait for ever for its other end to read. Hypercorn sends behind a shield, so that nothing
    else would end it.

    Args:
        stream: the connection.
    """

    def __init__(self, stream: trio.SocketStream) -> None:
        self._stream = stream
        self.socket: Final = stream.socket

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        return bytes(await self._stream.receive_some(max_bytes))

    async def send_all(self, data: bytes) -> None:
        with trio.move_on_after(_PATIENCE):
            await self._stream.send_all(data)
            return
        await trio.aclose_forcefully(self._stream)
        raise trio.BrokenResourceError("the client does not read")

    async def send_eof(self) -> None:
        await self._stream.send_eof()

    async def aclose(self) -> None:
        await self._stream.aclose()


class _Desk:
    """Where the pages of a single process ask."""

    def __init__(self, host: Host) -> None:
        self._host = host

    async def status(self, wanted: Wanted) -> Status:
        return look(self._host, wanted)

    def quit(self) -> None:
        self._host.quit()
