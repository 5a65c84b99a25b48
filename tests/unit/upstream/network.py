"""A network that is a table, and connections through it for tests of targets."""

from __future__ import annotations

import errno
import random
import socket
from typing import Any

import structlog
import trio

from stcp_proxy.config import Balance
from stcp_proxy.counters import Ledger
from stcp_proxy.errors import (
    ClientGone,
)
from stcp_proxy.net.address import Destination, parse_destination
from stcp_proxy.net.dial import Failure, SocketAddress
from stcp_proxy.session.record import Connection
from stcp_proxy.upstream.attempt import Attempt
from stcp_proxy.upstream.targets import Targets

A, B, C = "10.0.0.1:1", "10.0.0.2:1", "10.0.0.3:1"


class Network:
    """What dialling leads to: `down` refuses, `black` is silent, and the rest answers."""

    def __init__(self) -> None:
        self.down: set[str] = set()
        self.black: set[str] = set()
        self.dials: list[str] = []
        self.owners: list[object] = []
        """Who keeps each of them in mind."""
        self.hosts: dict[str, list[str]] = {}
        self.asked = 0

    async def connect(
        self, place: SocketAddress, deadline: float, *, own: object = None, source: object = None
    ) -> socket.socket | Failure:
        self.dials.append(str(place))
        self.owners.append(own)
        await trio.lowlevel.checkpoint()
        if str(place) in self.black:
            await trio.sleep_until(deadline)
            return Failure(str(place), errno.ETIMEDOUT, "no answer in time")
        if str(place) in self.down:
            return Failure(str(place), errno.ECONNREFUSED, "connection refused")
        return socket.socket()

    def take(self) -> list[str]:
        """The dials since the last time."""
        dials, self.dials = self.dials, []
        return dials

    async def getaddrinfo(self, host: str, port: Any, *_: Any, **__: Any) -> list[Any]:
        self.asked += 1
        found = self.hosts.get(host)
        if found is None:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in found]


class NoOwner:
    ledger = Ledger()

    def settle(self, *_: object) -> None: ...

    def forget(self, *_: object) -> None: ...


def targets(*to: str, balance: Balance = Balance.FAILOVER) -> Targets:
    lines: list[Destination] = [parse_destination(text) for text in to]
    return Targets(lines, tunnel="tunnel", balance=balance, rng=random.Random(1))


async def dial(known: Targets, timeout: float = 10.0) -> Connection:
    """A connection that comes through with whoever answers first."""
    record = Connection("tunnel", "client", NoOwner())
    with Attempt(known, timeout) as attempt:
        dialled = await attempt.dial()
        dialled.sock.close()
        record.target = dialled.name
        record.endpoint = attempt.reached()
    return record


def end(record: Connection) -> None:
    with structlog.testing.capture_logs():
        record.failed(ClientGone("gone"))
