"""What a random caller acts on: system calls by number, memory for their arguments, and a pool of descriptors in every state."""

from __future__ import annotations

import ctypes
import mmap
import os
import random
import socket
import struct
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final

from .peer import Cipher

LIBC: Final = ctypes.CDLL(None, use_errno=True)
LIBC.syscall.restype = ctypes.c_long
PAGE: Final = 4096
SIZE: Final = 1 << 20
WORD: Final = (1 << 64) - 1
KERNEL_ADDRESS: Final = 0xFFFF_8880_0000_0000
PROT_NONE: Final = 0
CLOSE: Final = 3
MOST: Final = 40
"""Descriptors of a pool."""


def system_call(number: int, *arguments: int) -> int:
    """A system call of x86-64 with any arguments. Returns what the kernel returns: a negative errno for a failure."""
    result: int = LIBC.syscall(ctypes.c_long(number), *(ctypes.c_ulong(argument & WORD) for argument in arguments))
    return -ctypes.get_errno() if result == -1 else result


class Memory:
    """Arguments of system calls. The last page of the mapping is not accessible, so that an argument can end there too early."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.pages = mmap.mmap(-1, SIZE)
        self.base = ctypes.addressof(ctypes.c_char.from_buffer(self.pages))
        self.end = SIZE - PAGE
        self.pages[: 1 << 16] = os.urandom(1 << 16)
        if LIBC.mprotect(ctypes.c_void_p(self.base + self.end), ctypes.c_size_t(PAGE), PROT_NONE):
            raise OSError(ctypes.get_errno(), "mprotect")

    def put(self, data: bytes) -> int:
        """Write an argument. Returns its address, which is wrong in a few of a hundred cases."""
        choice = self.rng.random()
        if choice < 0.02:
            return self.rng.choice((0, 1, KERNEL_ADDRESS, self.base + self.end))
        at = self.rng.randrange(self.end - len(data))
        if choice < 0.1:
            at = self.end - len(data)
        if choice < 0.04 and data:
            at += self.rng.randrange(len(data))
        data = data[: self.end - at]
        self.pages[at : at + len(data)] = data
        return self.base + at

    def room(self, size: int) -> int:
        """An address where the kernel may write `size` bytes, mostly."""
        choice = self.rng.random()
        if choice < 0.02:
            return self.rng.choice((0, KERNEL_ADDRESS, self.base + self.end))
        size = min(size, self.end)
        return self.base + (self.end - self.rng.randrange(size + 1) if choice < 0.05 else self.rng.randrange(self.end - size + 1))


@dataclass(eq=False)
class Entry:
    """A descriptor.

    Attributes:
        fd: its number. Another thread may have closed it, so the number may mean something else by now.
        kind: "tcp", "leg" (the protocol is on), "wire" (a relay's), "stcp" (protocol 253), "listener", "netlink", "pipe",
            "file", "epoll".
        seal: makes the frames of a peer that speaks them on this TCP connection.
        family: number of the generic netlink family of the module.
    """

    fd: int
    kind: str
    seal: Cipher | None = None
    family: int = 0


@dataclass
class Pool:
    """The descriptors of one process, and where its listeners listen."""

    rng: random.Random
    entries: list[Entry] = field(default_factory=list)
    addresses: list[bytes] = field(default_factory=list)

    def add(self, fd: int, kind: str, seal: Cipher | None = None, family: int = 0) -> int:
        """Take a descriptor, and close others when there are too many. Returns `fd`."""
        if fd >= 0:
            self.entries.append(Entry(fd, kind, seal, family))
        while len(self.entries) > MOST:
            self.drop()
        return fd

    def take(self, sock: socket.socket, kind: str, seal: Cipher | None = None) -> None:
        """Take a socket. It rarely blocks, and never for long, unless an option is changed at random."""
        for option in (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO):
            with suppress(OSError):  # from Linux 6.4 on a leg that relays refuses it
                sock.setsockopt(socket.SOL_SOCKET, option, struct.pack("ll", 0, 50_000))
        sock.setblocking(self.rng.random() < 0.2)
        self.add(sock.detach(), kind, seal)

    def heard(self, listener: socket.socket) -> None:
        """Remember where a listener listens."""
        self.addresses = [*self.addresses[-7:], address(listener.family, listener.getsockname()[1])]

    def pick(self, *kinds: str) -> Entry:
        """One of these kinds, if there is one; one of any kind in a few of a hundred cases."""
        entries = list(self.entries)
        fitting = [entry for entry in entries if entry.kind in kinds] if self.rng.random() < 0.97 else []
        choice = fitting or entries
        return self.rng.choice(choice) if choice else Entry(-1, "none")

    def drop(self, entry: Entry | None = None) -> int:
        """Close a descriptor. Another thread may be faster."""
        entries = list(self.entries)
        if not entries:
            return -1
        entry = entry or self.rng.choice(entries)
        try:
            self.entries.remove(entry)
        except ValueError:
            return -1
        return system_call(CLOSE, entry.fd)


def address(family: int, port: int) -> bytes:
    """struct sockaddr_in or sockaddr_in6 of the loopback."""
    if family == socket.AF_INET6:
        return struct.pack("=HHI16sI", family, socket.htons(port), 0, socket.inet_pton(socket.AF_INET6, "::1"), 0)
    return struct.pack("=HH4s8s", family, socket.htons(port), socket.inet_aton("127.0.0.1"), bytes(8))
