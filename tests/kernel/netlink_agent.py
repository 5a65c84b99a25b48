"""A small agent for tests of sockets of the protocol: it makes no handshake, but gives keys that the tests know.

It speaks generic netlink with nothing of the product, one request at a time.
"""

from __future__ import annotations

import errno
import os
import select
import socket
import struct
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Final

from .peer import KEY_DOWN, KEY_UP, PATIENCE

READY, ACCEPT, DONE, REGISTER = 1, 2, 3, 4
(ID, FD, ROLE, TIMEOUT_MS, UID, IDENTITY, SERVICE, ERROR, SEND_KEY, SEND_COUNTER, RECEIVE_KEY, RECEIVE_COUNTER, WIRE_BYTES,
 PEER, CHANNEL_ID, INTERFACE, PLACES) = range(1, 18)  # fmt: skip
CHANNEL: Final = bytes(range(32))
NAME: Final = b"peer of the tests"
INITIATOR, RESPONDER = 0, 1
_CONTROLLER: Final = 0x10


def attribute(kind: int, value: bytes | int, form: str = "=I") -> bytes:
    raw = value if isinstance(value, bytes) else struct.pack(form, value)
    return struct.pack("=HH", 4 + len(raw), kind) + raw + bytes(-len(raw) % 4)


def attributes(raw: bytes) -> dict[int, bytes]:
    found = {}
    while len(raw) >= 4:
        length, kind = struct.unpack_from("=HH", raw)
        found[kind & 0x3FFF] = raw[4:length]
        raw = raw[(length + 3) & ~3 :]
    return found


class Link:
    """A generic netlink socket. Answers are read at once; READY is counted.

    Attributes:
        during: entered for the system call that carries a request out.
    """

    def __init__(self) -> None:
        self.during: AbstractContextManager[None] = nullcontext()
        self.sock = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, 16)
        self.sock.bind((0, 0))
        self.sock.settimeout(PATIENCE)
        self.ready = 0
        self._lock = threading.Lock()
        found = self._ask(_CONTROLLER, 3, attribute(2, b"stcp\0"))
        self.family = struct.unpack("=H", found[1])[0]
        assert 7 not in found, "READY is for the agent alone"

    def _ask(self, family: int, command: int, body: bytes) -> dict[int, bytes]:
        with self._lock:
            body = struct.pack("=BBH", command, 1, 0) + body
            raw = struct.pack("=IHHII", 16 + len(body), family, 5, 7, 0) + body
            with self.during:
                self.sock.send(raw)
            answer: dict[int, bytes] = {}
            while True:
                raw = self.sock.recv(1 << 17)
                _, kind, _, sequence, _ = struct.unpack_from("=IHHII", raw)
                if kind == 2:  # NLMSG_ERROR, 0 is the acknowledgment
                    error = struct.unpack_from("=i", raw, 16)[0]
                    if error:
                        raise OSError(-error, os.strerror(-error))
                    return answer
                if sequence == 7:
                    answer = attributes(raw[20:])
                else:
                    self.ready += 1

    def ask(self, command: int, body: bytes = b"") -> dict[int, bytes]:
        return self._ask(self.family, command, body)

    def register(self, interface: int = 2) -> None:
        self.ask(REGISTER, attribute(INTERFACE, interface))

    def wait_ready(self, patience: float = PATIENCE) -> None:
        """Until READY came; takes it from the socket."""
        if not self.ready:
            assert select.select([self.sock], [], [], patience)[0], "nobody said READY"
            self.sock.recv(1 << 17)
        self.ready = 0

    def close(self) -> None:
        self.sock.close()


@dataclass
class Taken:
    """What ACCEPT says."""

    number: int
    fd: int
    role: int
    left_ms: int
    uid: int
    identity: bytes | None
    service: bytes | None


def take(link: Link, places: int | None = None) -> Taken | None:
    """ACCEPT, of an agent with so many places."""
    try:
        found = link.ask(ACCEPT, b"" if places is None else attribute(PLACES, places))
    except OSError as exc:
        if exc.errno != errno.ENOENT:
            raise
        return None
    number, fd = struct.unpack("=Q", found[ID])[0], struct.unpack("=i", found[FD])[0]
    role, left_ms, uid = (struct.unpack("=I", found[kind])[0] for kind in (ROLE, TIMEOUT_MS, UID))
    names = [found[kind].rstrip(b"\0") if kind in found else None for kind in (IDENTITY, SERVICE)]
    return Taken(number, fd, role, left_ms, uid, *names)


def wait_taken(link: Link) -> Taken:
    while (taken := take(link)) is None:
        link.wait_ready()
    return taken


def done(
    link: Link, number: int, error: int = 0, *, wire: bytes = b"", counters: tuple[int, int] = (0, 0), **changed: object
) -> None:
    """DONE. The initiator sends with KEY_UP; see `swapped` for a responder."""
    parts = {
        "number": attribute(ID, number, "=Q"),
        "error": attribute(ERROR, -error, "=i"),
    }
    swapped = changed.pop("swapped", False)
    if not error:
        up, down = (KEY_DOWN, KEY_UP) if swapped else (KEY_UP, KEY_DOWN)
        parts |= {
            "send_key": attribute(SEND_KEY, up),
            "send_counter": attribute(SEND_COUNTER, counters[0], "=Q"),
            "receive_key": attribute(RECEIVE_KEY, down),
            "receive_counter": attribute(RECEIVE_COUNTER, counters[1], "=Q"),
            "channel": attribute(CHANNEL_ID, CHANNEL),
            "peer": attribute(PEER, NAME),
            "wire": attribute(WIRE_BYTES, wire) if wire else b"",
        }
    for name, value in changed.items():
        assert name in parts
        parts[name] = value  # type: ignore[assignment]
    link.ask(DONE, b"".join(parts.values()))


class Agent:
    """An agent in a thread: each handshake is good, or ends as `answer` says (an errno).

    Attributes:
        taken: every handshake it has taken.
        without_memory: how many of them failed because their user had no memory.
    """

    def __init__(self, answer: int = 0, *, before: Callable[[Taken], None] | None = None, **changed: object) -> None:
        self.answer, self.before, self.changed = answer, before, changed
        self.taken: list[Taken] = []
        self.without_memory = 0
        self.link = Link()
        self.link.register()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._stop.is_set():
            while (taken := take(self.link)) is not None:
                self.taken.append(taken)
                if self.before:
                    self.before(taken)
                os.close(taken.fd)
                try:
                    done(self.link, taken.number, self.answer, swapped=taken.role == RESPONDER, **self.changed)  # type: ignore[arg-type]
                except OSError as exc:
                    if exc.errno not in (errno.ENOENT, errno.ENOMEM):  # its application may have closed meanwhile
                        raise
                    self.without_memory += exc.errno == errno.ENOMEM
            if select.select([self.link.sock], [], [], 0.05)[0]:
                self.link.sock.recv(1 << 17)

    def close(self) -> None:
        self._stop.set()
        self._thread.join()
        self.link.close()

    def __enter__(self) -> Agent:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
