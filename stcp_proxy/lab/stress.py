"""The stress client: many connections in one epoll loop. It compares every received byte with the sent byte.

It works as the engine does: one epoll set, one read and one write for a request, and no task. So the client is not the bottleneck
of a measurement.
"""

from __future__ import annotations

import resource
import select
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from stcp_proxy.lab.link import LENGTH_LEN, Link, Owner, check_protocol, messages
from stcp_proxy.lab.loadgen import LabError
from stcp_proxy.lab.mode import Mode as Mode
from stcp_proxy.lab.tally import Summary, Tally

TICK: Final = 0.2
"""Seconds between checks of deadlines and reports."""
RETRY: Final = 0.1
"""Seconds before a failed connection is dialled again."""
GOODBYE: Final = 1.0
"""Seconds in which connections may end in order."""
_EVENTS: Final = 1024


@dataclass(frozen=True, slots=True)
class Options:
    """The options of a run.

    Attributes:
        host, port: the server or proxy.
        mode: what happens with a connection after some messages.
        clients: connections at a time, one request under way on each.
        duration: seconds during which requests are made.
        size: bytes of a message, without its length prefix.
        messages: in `churn`, the number of requests after which a new connection is opened.
        timeout: seconds that a request or a connection attempt may take.
        raw: send messages without their length prefix, for a server that echoes bytes without framing.
        protocol: the protocol number of the sockets; 0 is TCP.
    """

    host: str = "127.0.0.1"
    port: int = 6667
    mode: Mode = Mode.STEADY
    clients: int = 50
    duration: float = 70.0
    size: int = 256
    messages: int = 500
    timeout: float = 10.0
    raw: bool = False
    protocol: int = 0

    @property
    def message_bytes(self) -> int:
        """Bytes of one message on its connection."""
        return self.size + (0 if self.raw else LENGTH_LEN)


MakeLink = Callable[[Owner, tuple[bytes, ...], int], Link]
"""Makes a connection: a `Link`, or a `channel.SecureLink`. Args: the run, its messages, and the index of the first."""


class Run:
    """One run, from the first connection to the summary.

    Args:
        options: what to do.
        make_link: makes each connection.
    """

    def __init__(self, options: Options, make_link: MakeLink = Link) -> None:
        self.options = options
        self.tally = Tally()
        self.links: dict[int, Link] = {}
        self.sending = True
        self.protocol = options.protocol
        self.per_connection = options.messages if options.mode is Mode.CHURN else 0
        self.epoll: select.epoll
        self._make_link = make_link
        self._queue = messages(options.size, raw=options.raw)
        self._retry: list[tuple[float, int]] = []

    def execute(self, on_tick: Callable[[float], None] = lambda elapsed: None) -> Summary:
        """Make requests for the duration, then wait for the outstanding answers.

        Args:
            on_tick: called about five times a second with the seconds since the start.

        Raises:
            LabError: the host has no address, or the kernel has no such sockets.
        """
        self._family, self._address = _resolve(self.options)
        check_protocol(self._family, self.protocol)
        _allow_descriptors(self.options.clients)
        with select.epoll() as self.epoll:
            began = time.monotonic()
            for index in range(self.options.clients):
                self._dial(index)
            self._requests(began, on_tick)
            seconds = time.monotonic() - began
            self._drain()
            self._end_connections()
        return self.tally.summary(seconds, self.options.message_bytes)

    def _requests(self, began: float, on_tick: Callable[[float], None]) -> None:
        until, tick = began + self.options.duration, began + TICK
        while (now := time.monotonic()) < until:
            if now >= tick:
                tick = now + TICK
                self._look_at_deadlines()
                on_tick(now - began)
            self._turn(min(tick, until) - now)
        on_tick(self.options.duration)

    def _drain(self) -> None:
        """Send no new request. Outstanding requests get their answer or time out."""
        self.sending = False
        self._retry.clear()
        until = time.monotonic() + self.options.timeout + TICK
        while any(link.busy for link in self.links.values()) and time.monotonic() < until:
            self._turn(TICK / 4)
            self._look_at_deadlines()

    def _end_connections(self) -> None:
        """Let connections end in order, then close the rest."""
        for link in list(self.links.values()):
            link.leave()
        until = time.monotonic() + GOODBYE
        while self.links and time.monotonic() < until:
            self._turn(TICK / 4)
        for link in list(self.links.values()):
            link.close()

    def _turn(self, timeout: float) -> None:
        links = self.links
        for fd, mask in self.epoll.poll(max(0.0, timeout), _EVENTS):
            link = links.get(fd)
            if link is not None:
                link.on_event(mask)
        while self._retry and self._retry[0][0] <= time.monotonic():
            self._dial(self._retry.pop(0)[1])

    def _look_at_deadlines(self) -> None:
        limit = time.perf_counter_ns() - int(self.options.timeout * 1e9)
        for link in list(self.links.values()):
            if link.busy and link.started < limit:
                link.time_out()

    def _dial(self, index: int) -> None:
        link = self._make_link(self, self._queue, index)
        try:
            link.connect(self._family, self._address)
        except OSError as exc:
            self.tally.connection_errors += 1
            self.tally.note(f"connect: {exc.strerror}")
            self._retry.append((time.monotonic() + RETRY, index))

    # -- calls from links ------------------------------------------------------------------------------------------------------

    def ended(self, link: Link, *, failed: bool) -> None:
        """Replace a closed link: at once after an ordinary end, after a pause when it failed."""
        if not self.sending:
            return
        if failed:
            self._retry.append((time.monotonic() + RETRY, link.first))
        else:
            self._dial(link.first)


def _resolve(options: Options) -> tuple[socket.AddressFamily, object]:
    try:
        found = socket.getaddrinfo(options.host, options.port, type=socket.SOCK_STREAM)
    except OSError as exc:
        raise LabError(f"{options.host} has no address: {exc.strerror}") from exc
    family, _, _, _, address = found[0]
    return family, address


def _allow_descriptors(clients: int) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < clients + 64:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, clients + 1024), hard))
