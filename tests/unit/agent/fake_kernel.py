"""The kernel's end of generic netlink, for tests: it answers inside of `send`, as the kernel does.

It reads and writes netlink with `struct` alone, so that a mistake of the product's own functions is not repeated here.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections import deque
from dataclasses import dataclass, field
from typing import Any, cast

from harness.netlink import attribute

from stcp_proxy.agent.netlink import Netlink

FAMILY = 27
CTRL = 0x10
READY, ACCEPT, DONE, REGISTER = 1, 2, 3, 4
ID, FD, ROLE, TIMEOUT, UID, IDENTITY, SERVICE, ERROR = range(1, 9)
SEND_KEY, SEND_COUNTER, RECEIVE_KEY, RECEIVE_COUNTER, WIRE_BYTES, PEER, CHANNEL_ID, INTERFACE, PLACES = range(9, 18)


def split(data: bytes) -> dict[int, bytes]:
    found = {}
    while data:
        length, kind = struct.unpack_from("=HH", data)
        found[kind] = data[4:length]
        data = data[length + -length % 4 :]
    return found


def reply(family: int, sequence: int, command: int, body: bytes) -> bytes:
    return struct.pack("=IHHII BBH", 20 + len(body), family, 0, sequence, 0, command, 1, 0) + body


def acknowledgement(sequence: int, error: int) -> bytes:
    return struct.pack("=IHHII i", 36, 2, 0, sequence, 0, -error) + bytes(16)


def describe(fd: int, **more: Any) -> bytes:
    """The attributes of a pending handshake."""
    found = {"id": 1, "role": 0, "timeout": 5_000, "uid": 1000} | more
    body = attribute(ID, struct.pack("=Q", found["id"])) + attribute(FD, struct.pack("=i", fd))
    for name, kind in (("role", ROLE), ("timeout", TIMEOUT), ("uid", UID)):
        body += attribute(kind, struct.pack("=I", found[name]))
    for name, kind in (("identity", IDENTITY), ("service", SERVICE)):
        if name in found:
            body += attribute(kind, found[name].encode() + b"\0")
    return body


@dataclass
class FakeKernel:
    """A module that has handshakes for the agent.

    Attributes:
        busy: whether another agent is registered.
        registered: the interfaces with which agents registered.
        pending: attributes of handshakes, oldest first.
        done: attributes of each DONE.
        unknown: numbers of handshakes that have ended already.
        refused: errnos that answer a DONE with an errno, 0 for success.
        memberships: the groups that were joined.
        more: bytes behind the description of the family.
        accept_fails: errnos that answer the next ACCEPTs; -1 for no answer at all.
        places: the number of places in each ACCEPT.
        at_most: how many handshakes the agent may have at a time; the others are held back. None for no bound.
    """

    busy: bool = False
    registered: list[int] = field(default_factory=list)
    pending: deque[bytes] = field(default_factory=deque)
    done: list[dict[int, bytes]] = field(default_factory=list)
    unknown: set[int] = field(default_factory=set)
    refused: dict[int, int] = field(default_factory=dict)
    memberships: list[tuple[int, int, int]] = field(default_factory=list)
    sent: list[bytearray] = field(default_factory=list)
    more: bytes = b""
    accept_fails: list[int] = field(default_factory=list)
    places: list[int] = field(default_factory=list)
    at_most: int | None = None

    def __post_init__(self) -> None:
        self._near, self._far = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._near.setblocking(False)
        self.taken = 0

    # -- what the product sees of a socket ---------------------------------------------------------------------------------

    def fileno(self) -> int:
        return self._near.fileno()

    def close(self) -> None:
        self._near.close()
        self._far.close()

    def setsockopt(self, *option: int) -> None:
        self.memberships.append(cast("tuple[int, int, int]", option))

    def recvfrom(self, size: int) -> tuple[bytes, tuple[int, int]]:
        return self._near.recv(size), (0, 0)

    def send(self, request: bytearray) -> int:
        self.sent.append(request)
        length, kind, _, sequence, _, command, _, _ = struct.unpack_from("=IHHII BBH", request)
        assert length == len(request)
        error = self.answer(kind, sequence, command, split(bytes(request[20:])))
        if error >= 0:
            self.push(acknowledgement(sequence, error))
        return len(request)

    # -- the kernel --------------------------------------------------------------------------------------------------------

    def push(self, datagram: bytes) -> None:
        self._far.send(datagram)

    def notify(self) -> None:
        self.push(reply(FAMILY, 0, READY, b""))

    def unload(self, number: int = FAMILY) -> None:
        """Tell that a family is gone."""
        self.push(reply(CTRL, 0, 2, attribute(1, struct.pack("=H", number))))

    def offer(self, body: bytes) -> None:
        self.pending.append(body)
        self.notify()

    def answer(self, kind: int, sequence: int, command: int, found: dict[int, bytes]) -> int:
        """Handle a request. Returns an errno, 0 for success."""
        if kind == CTRL:
            assert (command, found) == (3, {2: b"stcp\0"})
            body = attribute(2, b"stcp\0") + attribute(1, struct.pack("=H", FAMILY)) + self.more
            self.push(reply(CTRL, sequence, 1, body))
            return 0
        assert kind == FAMILY
        if command == REGISTER:
            if self.busy:
                return errno.EBUSY
            self.registered.append(struct.unpack("=I", found[INTERFACE])[0])
        elif command == ACCEPT:
            if self.accept_fails:
                return self.accept_fails.pop(0)
            self.places.append(struct.unpack("=I", found[PLACES])[0])
            if not self.pending or self.taken - len(self.done) == self.at_most:
                return errno.ENOENT
            self.taken += 1
            self.push(reply(FAMILY, sequence, ACCEPT, self.pending.popleft()))
        else:
            assert command == DONE
            number = -struct.unpack("=i", found[ERROR])[0]
            if number in self.refused:
                return self.refused[number]
            if struct.unpack("=Q", found[ID])[0] in self.unknown:
                return errno.ENOENT
            self.done.append(found)
        return 0

    def errors(self) -> list[int]:
        """The errno of each DONE, 0 for success."""
        return [-struct.unpack("=i", found[ERROR])[0] for found in self.done]


def is_open(fd: int) -> bool:
    """Whether this process has the descriptor."""
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True


def connected(kernel: FakeKernel) -> Netlink:
    """A connection to the fake that has found its family."""
    netlink = Netlink(cast("socket.socket", kernel))
    netlink.find()
    return netlink
