"""Collect the reports of all worker processes.

The first worker process serves the admin address. A pair of connected sockets, made before the fork, leads to each further worker
process. A request is a line of JSON; the answer is a length and a report. Nothing is in the file system, and no worker process
wakes up without a request.

A worker process that does not answer in time is reported as silent. A late answer is read before the next request.
"""

from __future__ import annotations

import socket
from collections.abc import Awaitable, Callable
from typing import Final

import structlog
import trio

from stcp_proxy.admin.codec import decode, encode
from stcp_proxy.admin.report import Report, merge_reports
from stcp_proxy.admin.snapshot_request import SnapshotRequest

_log = structlog.get_logger("stcp_proxy.admin")

PATIENCE: Final = 2.0
"""Seconds that a worker process has for its answer."""
_LENGTH: Final = 8
_CHUNK: Final = 65536

TakeSnapshot = Callable[[SnapshotRequest], Awaitable[Report]]


class _Reader:
    """Reads parts of known size, or up to the end of a line. Cancellation loses no bytes."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self._stream = stream
        self._held = bytearray()

    async def exactly(self, size: int) -> bytes:
        while len(self._held) < size:
            await self._more()
        return self._take(size)

    async def line(self) -> bytes:
        while (end := self._held.find(b"\n")) < 0:
            await self._more()
        return self._take(end + 1)

    async def _more(self) -> None:
        data = await self._stream.receive_some(_CHUNK)
        if not data:
            raise EOFError
        self._held += data

    def _take(self, size: int) -> bytes:
        taken = bytes(self._held[:size])
        del self._held[:size]
        return taken


async def answer(sock: socket.socket, take: TakeSnapshot) -> None:
    """In a worker process: answer the requests of the first worker process until it has ended or this task is cancelled.

    Args:
        sock: the socket for answers.
        take: takes a snapshot of this process.
    """
    stream = trio.SocketStream(trio.socket.from_stdlib_socket(sock))
    reader = _Reader(stream)
    try:
        while True:
            wanted = decode(SnapshotRequest, await reader.line())
            body = encode(await take(wanted))
            await stream.send_all(len(body).to_bytes(_LENGTH, "big") + body)
    except (EOFError, trio.BrokenResourceError):
        return


class WorkerClient:
    """The connection of the first worker process to a further one.

    Args:
        number: the number of the further worker process.
        sock: the socket for requests.
    """

    def __init__(self, number: int, sock: socket.socket) -> None:
        self.number: Final = number
        self._stream = trio.SocketStream(trio.socket.from_stdlib_socket(sock))
        self._reader = _Reader(self._stream)
        self._turn = trio.Lock()
        self._owed = 0
        """The number of answers that have not arrived yet."""
        self._length: bytes | None = None
        """The length of the answer that is being read, once it is known."""

    async def ask(self, wanted: SnapshotRequest) -> Report | None:
        """Return the report of the worker process, or None when it did not answer in time."""
        with trio.move_on_after(PATIENCE):
            async with self._turn:
                try:
                    return await self._ask(wanted)
                except (EOFError, trio.BrokenResourceError):
                    return None  # the worker process has ended, and this process will end, too
                except ValueError as exc:
                    _log.error("a worker's report cannot be read", worker_asked=self.number, why=str(exc))
        return None

    async def _ask(self, wanted: SnapshotRequest) -> Report:
        while self._owed:
            await self._receive()
        with trio.CancelScope(shield=True):  # no other request is outstanding, so the socket has room for a line
            await self._stream.send_all(encode(wanted) + b"\n")
        self._owed += 1
        return decode(Report, await self._receive())

    async def _receive(self) -> bytes:
        """The next answer. Cancellation loses no bytes."""
        if self._length is None:
            self._length = await self._reader.exactly(_LENGTH)
        body = await self._reader.exactly(int.from_bytes(self._length, "big"))
        self._length = None
        self._owed -= 1
        return body


async def gather(own: TakeSnapshot, others: list[WorkerClient], wanted: SnapshotRequest) -> Report:
    """Collect the reports of all worker processes, and merge them.

    Args:
        own: takes a snapshot of this process.
        others: the other worker processes.
        wanted: the connections to list.
    """
    answers: dict[int, Report | None] = {}

    async def ask(worker: WorkerClient) -> None:
        answers[worker.number] = await worker.ask(wanted)

    async with trio.open_nursery() as nursery:
        for worker in others:
            nursery.start_soon(ask, worker)
    reports = [await own(wanted), *(report for _, report in sorted(answers.items()) if report is not None)]
    return merge_reports(reports, wanted, silent=[number for number, report in answers.items() if report is None])
