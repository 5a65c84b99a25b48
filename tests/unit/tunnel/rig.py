"""A tunnel whose listener and sessions are the test's own."""

from __future__ import annotations

import collections
import contextlib
import errno
import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio

from stcp_proxy.config import KeyAuth, Mode, TunnelPlan
from stcp_proxy.keys import PrivateKey, PublicKey
from stcp_proxy.net.address import TcpAddress
from stcp_proxy.protocol.prologue import framed, prologue
from stcp_proxy.protocol.secret import Secret
from stcp_proxy.protocol.wire import MESSAGE_1_LEN, Suite
from stcp_proxy.relay.engine import Handover, Relay, RelayEnd
from stcp_proxy.session.record import Connection
from stcp_proxy.tunnel.descriptors import Descriptors
from stcp_proxy.tunnel.tunnel import Tunnel

IDENTITY = PrivateKey(Secret(bytes(range(32))))
PEER = PublicKey(bytes(range(1, 33)))


FIRST = prologue(Suite.CLASSIC_KEYS) + framed(bytes(MESSAGE_1_LEN[Suite.CLASSIC_KEYS]))
"""A first message of the right form."""


def make_plan(mode: Mode = Mode.LISTEN, *, connections: int = 100, handshakes: int = 100) -> TunnelPlan:
    return TunnelPlan(
        name="tunnel",
        mode=mode,
        bind=TcpAddress("127.0.0.1", 0),
        to=(TcpAddress("127.0.0.1", 1),),
        auth=KeyAuth(IDENTITY, {PEER: "peer"}),
        suites=(Suite.CLASSIC_KEYS,),
        max_connections=connections,
        max_handshakes=handshakes,
    )


class FakeListener:
    """Accepts what `queue` holds: sockets, or errors to raise. Readable as long as there is something."""

    family = socket.AF_UNIX

    def __init__(self) -> None:
        self.queue: collections.deque[OSError | None] = collections.deque()
        self.calls = 0
        self._fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_SEMAPHORE)
        self.callers: list[socket.socket] = []
        """The other ends of the accepted sockets."""
        self.says = FIRST
        """What each caller has said when it is accepted."""

    def fileno(self) -> int:
        return self._fd

    def getsockname(self) -> str:
        return "/listener"

    def add(self, *what: OSError | None) -> None:
        """Errors, or None for a connection; an error stays at the head of the queue until `recover`."""
        self.queue.extend(what)
        os.eventfd_write(self._fd, len(what))

    def recover(self) -> None:
        while self.queue and self.queue[0] is not None:
            self.queue.popleft()
            os.eventfd_read(self._fd)

    def accept(self) -> tuple[socket.socket, str]:
        self.calls += 1
        if not self.queue:
            raise BlockingIOError
        head = self.queue[0]
        if head is not None:
            if head.errno == errno.ECONNABORTED:
                self.recover()
            raise head
        self.queue.popleft()
        os.eventfd_read(self._fd)
        ours, theirs = socket.socketpair()
        self.callers.append(theirs)
        if self.says:
            theirs.send(self.says)
        return ours, ""

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
        for sock in self.callers:
            sock.close()


class FakeEngine:
    name = "fake"
    keeps_legs = False

    def start(self) -> None: ...

    def adopt(self, handover: Handover, on_end: Callable[[RelayEnd], None]) -> Relay:
        raise NotImplementedError

    def close(self) -> None: ...


class FakeSession:
    """A session that does what the test says, and tells when it began."""

    def __init__(self, rig: Rig, connection: Connection, sock: socket.socket) -> None:
        self.rig, self.connection, self.sock = rig, connection, sock

    async def run(self) -> None:
        self.rig.began.append((trio.current_time() - self.rig.start, self.connection))
        with contextlib.suppress(BlockingIOError):
            self.sock.recv(65536)
        try:
            await self.rig.behave(self)
        finally:
            self.sock.close()


async def forever(_session: FakeSession) -> None:
    await trio.sleep_forever()


async def handed_over(session: FakeSession) -> None:
    await trio.lowlevel.checkpoint()


class Rig:
    """A tunnel that accepts from a `FakeListener`.

    Attributes:
        behave: what every new session does.
        began: when sessions began, in seconds, and their connections.
    """

    def __init__(self, tunnel: Tunnel, listener: FakeListener) -> None:
        self.tunnel = tunnel
        self.listener = listener
        self.behave: Callable[[FakeSession], Awaitable[None]] = forever
        self.began: list[tuple[float, Connection]] = []
        self.start = trio.current_time()

    @property
    def times(self) -> list[float]:
        return [round(when, 3) for when, _ in self.began]


@asynccontextmanager
async def serving(
    plan: TunnelPlan, monkeypatch: pytest.MonkeyPatch, descriptors: Descriptors | None = None
) -> AsyncIterator[Rig]:
    tunnel = Tunnel(plan, FakeEngine(), descriptors=descriptors)
    listener = FakeListener()
    rig = Rig(tunnel, listener)
    tunnel.open([listener])  # type: ignore[list-item]
    monkeypatch.setattr(tunnel, "_session", lambda connection, sock: FakeSession(rig, connection, sock))
    try:
        async with trio.open_nursery() as connections:
            connections.start_soon(tunnel.accept, connections)
            yield rig
            connections.cancel_scope.cancel()
    finally:
        tunnel.close()


def of(logs: list[dict[str, Any]], event: str, **fields: Any) -> list[dict[str, Any]]:
    return [line for line in logs if {"event": event, **fields}.items() <= line.items()]
