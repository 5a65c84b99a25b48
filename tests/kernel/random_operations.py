"""The calls of a random caller: each is one system call, or a few, with random arguments on a random descriptor of the pool."""

from __future__ import annotations

import ctypes
import os
import random
import signal
import socket
import struct
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from stcp_proxy.relay import kernel_abi as abi

from .netlink_agent import ID, INTERFACE, PLACES, RECEIVE_KEY, SEND_KEY, attribute
from .peer import DATA, FIN, RESET, args
from .random_pool import Entry, Memory, Pool, address, system_call

READ, WRITE, POLL, MMAP, IOCTL, READV, WRITEV, DUP, SENDFILE, SOCKET = 0, 1, 7, 9, 16, 19, 20, 32, 40, 41
CONNECT, SENDTO, RECVFROM, SENDMSG, RECVMSG, SHUTDOWN, BIND, LISTEN, GETSOCKNAME, GETPEERNAME = 42, *range(44, 53)
SETSOCKOPT, GETSOCKOPT, FCNTL, EPOLL_WAIT, EPOLL_CTL = 54, 55, 72, 232, 233
SPLICE, TEE, ACCEPT4, RECVMMSG, SENDMMSG = 275, 276, 288, 299, 307
PROTOCOL: Final = 253
SOCKETS: Final = ("tcp", "leg", "wire", "stcp", "listener")
ULPS: Final = (b"stcp", b"tls", b"espintcp", b"smc", b"", b"stcp" * 10)
LEVELS: Final = {socket.SOL_SOCKET: 80, socket.SOL_TCP: 46, socket.SOL_IP: 60, socket.IPPROTO_IPV6: 80, abi.SOL_STCP: 24, 282: 5}
SIOCINQ, SIOCOUTQ, SIOCOUTQNSD, SIOCATMARK, FIONBIO, FIOASYNC = 0x541B, 0x5411, 0x894B, 0x8905, 0x5421, 0x5452
SYSCTLS: Final = Path("/proc/sys/net/stcp")


class Caller:
    """One thread's calls.

    Attributes:
        rng: decides everything that is called.
        memory: where the arguments are.
        pool: the descriptors of the process.
    """

    def __init__(self, rng: random.Random, pool: Pool) -> None:
        self.rng, self.pool = rng, pool
        self.memory = Memory(rng)

    def number(self) -> int:
        rng = self.rng
        return rng.choice(
            (0, 1, 1, 2, 4, 16, 100, 4096, 65_536, -1, (1 << 31) - 1, rng.randrange(-(1 << 31), 1 << 31), rng.getrandbits(63))
        )

    def size(self) -> int:
        return self.rng.choice((0, 1, 4, 100, 1000, 4096, 20_000, 65_516, 65_517, 120_000))

    def flags(self) -> int:
        """MSG_*: often none, sometimes some that belong together, sometimes any."""
        some = (
            socket.MSG_PEEK,
            socket.MSG_WAITALL,
            socket.MSG_TRUNC,
            socket.MSG_OOB,
            0x8000,
            socket.MSG_DONTWAIT,
            socket.MSG_ERRQUEUE,
        )
        choice = self.rng.random()
        if choice < 0.5:
            return socket.MSG_DONTWAIT
        if choice < 0.9:
            return self.rng.choice(some) | self.rng.choice(some) | socket.MSG_DONTWAIT
        return self.rng.getrandbits(30) & ~0x1000_0000  # the highest is the kernel's own

    def vector(self) -> tuple[int, int]:
        """struct iovec[]. Returns its address and its length."""
        count = self.rng.choice((0, 1, 1, 2, 5, 17))
        parts = [(self.memory.room(size), size) for size in (self.size() for _ in range(count))]
        return self.memory.put(b"".join(struct.pack("=QQ", *part) for part in parts)), count

    def message(self) -> int:
        """struct msghdr."""
        vector, count = self.vector()
        control = struct.pack(
            "=Qii", self.rng.choice((16, 20, 24, 0)), self.rng.choice((1, 0, 6, abi.SOL_STCP)), self.rng.randrange(40)
        )
        control = self.rng.choice((b"", b"", control, control + os.urandom(8)))
        name = self.rng.choice((b"", b"", self.address()))
        name_at, control_at = (self.memory.put(part) if part else 0 for part in (name, control))
        return self.memory.put(struct.pack("=QIIQQQQiI", name_at, len(name), 0, vector, count, control_at, len(control), 0, 0))

    def address(self) -> bytes:
        choice = self.rng.random()
        if choice < 0.7 and self.pool.addresses:
            return self.rng.choice(self.pool.addresses)
        if choice < 0.9:
            return address(
                self.rng.choice((socket.AF_INET, socket.AF_INET6)), self.rng.choice((0, 1, self.rng.randrange(65_536)))
            )
        return struct.pack("=H", self.rng.randrange(45)) + os.urandom(self.rng.choice((0, 4, 14, 26, 100)))

    def socket(self) -> Entry:
        return self.pool.pick(*SOCKETS)


# -- from a socket to a connection ---------------------------------------------------------------------------------------


def open_socket(c: Caller) -> int:
    family = c.rng.choice((2, 2, 10, c.rng.randrange(45)))
    protocol = c.rng.choice((PROTOCOL, PROTOCOL, PROTOCOL, 0, 254))
    kind = c.rng.choice((1, 1, 1, c.rng.randrange(7))) | c.rng.choice((0, 0o4000))
    return c.pool.add(system_call(SOCKET, family, kind, protocol), "stcp" if protocol == PROTOCOL else "tcp")


def connect(c: Caller) -> int:
    name = c.address()
    return system_call(CONNECT, c.pool.pick("stcp", "tcp").fd, c.memory.put(name), len(name) - c.rng.choice((0, 0, 0, 1)))


def disconnect(c: Caller) -> int:
    return system_call(CONNECT, c.socket().fd, c.memory.put(bytes(16)), c.rng.choice((2, 16, 1)))


def bind(c: Caller) -> int:
    name = address(c.rng.choice((socket.AF_INET, socket.AF_INET6)), 0) if c.rng.random() < 0.7 else c.address()
    return system_call(BIND, c.pool.pick("stcp", "tcp").fd, c.memory.put(name), len(name))


def listen(c: Caller) -> int:
    return system_call(LISTEN, c.pool.pick("stcp", "listener").fd, c.rng.choice((0, 1, 5, 100, c.number())))


def accept(c: Caller) -> int:
    entry = c.pool.pick("listener", "listener", "leg")
    length = c.memory.put(struct.pack("=i", c.rng.choice((0, 16, 28, 128))))
    return c.pool.add(
        system_call(ACCEPT4, entry.fd, c.memory.room(128), length, c.rng.choice((0, *[0o4000] * 5, c.number()))), "stcp"
    )


def names(c: Caller) -> int:
    length = c.memory.put(struct.pack("=i", c.rng.choice((0, 2, 16, 28, -1))))
    return system_call(c.rng.choice((GETSOCKNAME, GETPEERNAME)), c.socket().fd, c.memory.room(128), length)


def shutdown(c: Caller) -> int:
    return system_call(SHUTDOWN, c.socket().fd, c.rng.choice((0, 1, 1, 2, c.number())))


# -- bytes ---------------------------------------------------------------------------------------------------------------


def send(c: Caller) -> int:
    fd, size = c.socket().fd, c.size()
    number = c.rng.choice((WRITE, SENDTO, SENDTO, SENDMSG, SENDMMSG, WRITEV))
    if number in (SENDMSG, SENDMMSG):
        return _message(c, number, fd)
    if number == WRITEV:
        return system_call(WRITEV, fd, *c.vector())
    name = c.rng.choice((b"", b"", b"", c.address()))
    return system_call(number, fd, c.memory.room(size), size, c.flags(), c.memory.put(name) if name else 0, len(name))


def receive(c: Caller) -> int:
    fd, size = c.socket().fd, c.size()
    number = c.rng.choice((READ, RECVFROM, RECVFROM, RECVMSG, RECVMMSG, READV))
    if number in (RECVMSG, RECVMMSG):
        return _message(c, number, fd)
    if number == READV:
        return system_call(READV, fd, *c.vector())
    return system_call(number, fd, c.memory.room(size), size, c.flags(), 0, 0)


def _message(c: Caller, number: int, fd: int) -> int:
    return system_call(
        number, fd, c.message(), *((c.rng.choice((0, 1, 2)), c.flags(), 0) if number in (SENDMMSG, RECVMMSG) else (c.flags(),))
    )


def splice(c: Caller) -> int:
    pipe, sock = c.pool.pick("pipe").fd, c.socket().fd
    fds = c.rng.choice(((pipe, sock), (sock, pipe), (sock, sock)))
    number = c.rng.choice((SPLICE, SPLICE, TEE))
    if number == TEE:
        return system_call(TEE, pipe, c.pool.pick("pipe").fd, c.size(), 2)
    return system_call(SPLICE, fds[0], 0, fds[1], 0, c.size(), c.rng.choice((0, 2, 2, 6)))


def sendfile(c: Caller) -> int:
    offset = c.memory.put(struct.pack("=q", c.rng.choice((0, 0, 4000, c.number()))))
    return system_call(SENDFILE, c.socket().fd, c.pool.pick("file").fd, c.rng.choice((0, offset)), c.size())


def frame(c: Caller) -> int:
    """A frame of a peer that has the keys, good or not, whole or not."""
    entry = c.pool.pick("tcp")
    if entry.seal is None:
        return -1
    kind = c.rng.choice((DATA, DATA, DATA, DATA, FIN, RESET, c.rng.randrange(256)))
    size = c.rng.choice((0, 2, 2, 3, 100, 5000, 65_516)) if kind != FIN else c.rng.choice((0, 0, 0, 1))
    raw = bytearray(entry.seal.seal(kind, os.urandom(size)))
    if c.rng.random() < 0.05:
        raw[c.rng.randrange(len(raw))] ^= 1
    if c.rng.random() < 0.05:
        del raw[c.rng.randrange(len(raw)) :]
    view = (ctypes.c_char * len(raw)).from_buffer(raw)
    return system_call(SENDTO, entry.fd, ctypes.addressof(view), len(raw), socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL, 0, 0)


# -- options -------------------------------------------------------------------------------------------------------------


def set_option(c: Caller) -> int:
    level = c.rng.choice((*LEVELS, c.number()))
    name = c.rng.randrange(LEVELS.get(level, 100))
    number, pair = struct.pack("=q", c.number() & (1 << 62) - 1), struct.pack("=ii", c.rng.randrange(2), c.rng.randrange(2))
    value = c.rng.choice((number, pair, os.urandom(c.rng.choice((0, 1, 2, 4, 8, 12, 16, 100, 1025)))))
    length = c.rng.choice((len(value), 4, 4, c.number()))
    return system_call(SETSOCKOPT, c.socket().fd, level, name, c.memory.put(value), length)


def get_option(c: Caller) -> int:
    level = c.rng.choice((*LEVELS, abi.SOL_STCP, c.number()))
    length = c.memory.put(struct.pack("=i", c.rng.choice((0, 1, 4, 4, 32, 311, 312, 313, 4096, -1))))
    return system_call(GETSOCKOPT, c.socket().fd, level, c.rng.randrange(LEVELS.get(level, 100)), c.memory.room(4096), length)


def upper_layer(c: Caller) -> int:
    entry, name = c.pool.pick("tcp", "tcp", "stcp", "listener"), c.rng.choice((b"stcp", b"stcp", c.rng.choice(ULPS)))
    result = system_call(SETSOCKOPT, entry.fd, socket.SOL_TCP, abi.TCP_ULP, c.memory.put(name), len(name))
    if result == 0 and name == b"stcp":
        entry.kind = "leg"
    return result


def relay(c: Caller) -> int:
    """STCP_RELAY of any two legs, perhaps the same one, with arguments that are wrong somewhere or nowhere."""
    wire, plain = c.pool.pick("leg"), c.pool.pick("leg")
    queued = c.rng.choice((0, 0, 1, 100, 70_000, (256 << 10) + 1))
    raw = args(
        plain.fd,
        flags=c.rng.choice((0, abi.RELAY_KEEP, abi.RELAY_KEEP, 2)),
        idle_ms=c.rng.choice((0, 0, 20, 1000)),
        half_close_ms=c.rng.choice((0, 50)),
        linger_ms=c.rng.choice((0, 1, 500)),
        send_counter=c.rng.choice((0, (1 << 20) - 1, (1 << 64) - 1)),
        plain_bytes=c.memory.room(queued),
        plain_len=queued,
    )
    for _ in range(c.rng.choice((0, 0, 0, 1, 3))):
        raw[c.rng.randrange(len(raw))] = c.rng.randrange(256)
    length = c.rng.choice((len(raw), len(raw), len(raw), c.rng.randrange(300), c.number()))
    result = system_call(SETSOCKOPT, wire.fd, abi.SOL_STCP, abi.RELAY, c.memory.put(bytes(raw) + bytes(100)), length)
    if result == 0:
        wire.kind = "wire"
    return result


def give_back(c: Caller) -> int:
    entry = c.pool.pick("wire")
    length = c.rng.choice((0, 0, 0, 1, c.number()))
    result = system_call(SETSOCKOPT, entry.fd, abi.SOL_STCP, abi.GIVE_BACK, c.memory.put(b"1234"), length)
    if result == 0:
        entry.kind = "leg"
    return result


def abort(c: Caller) -> int:
    raw = abi.ABORT_ARGS.pack(abi.INTERFACE, c.rng.randrange(20), c.rng.choice((0, 2, 256, 257)), os.urandom(256))
    return system_call(
        SETSOCKOPT, c.pool.pick("wire").fd, abi.SOL_STCP, abi.ABORT, c.memory.put(raw), c.rng.choice((264, 264, 8, c.number()))
    )


def own_name(c: Caller) -> int:
    """STCP_SERVICE and STCP_IDENTITY."""
    name = os.urandom(c.rng.choice((0, 1, 10, 64, 65)))
    return system_call(SETSOCKOPT, c.pool.pick("stcp").fd, abi.SOL_STCP, c.rng.choice((18, 19)), c.memory.put(name), len(name))


def linger(c: Caller) -> int:
    value = struct.pack("=ii", c.rng.randrange(2), c.rng.choice((0, 0, 1)))
    return system_call(SETSOCKOPT, c.socket().fd, socket.SOL_SOCKET, socket.SO_LINGER, c.memory.put(value), 8)


# -- waiting, descriptors, and what is not a socket ----------------------------------------------------------------------


def poll(c: Caller) -> int:
    fds = [c.socket().fd for _ in range(4)]
    raw = b"".join(struct.pack("=ihh", fd, c.rng.choice((0, 1, 5, 0x7FFF)), 0) for fd in fds)
    return system_call(POLL, c.memory.put(raw), len(fds), c.rng.choice((0, 0, 1, 10)))


def epoll(c: Caller) -> int:
    entry = c.pool.pick("epoll")
    if c.rng.random() < 0.3:
        return system_call(EPOLL_WAIT, entry.fd, c.memory.room(1200), 100, 0)
    event = struct.pack("=IQ", c.rng.choice((0, 1, 5, 0x8000_0005, 0x1000_0001, 0x4000_0001)), 7)
    return system_call(
        EPOLL_CTL, entry.fd, c.rng.choice((1, 1, 2, 3)), c.rng.choice((c.socket(), c.pool.pick("epoll"))).fd, c.memory.put(event)
    )


def control(c: Caller) -> int:
    """ioctl(), fcntl(), mmap() of a socket."""
    fd = c.socket().fd
    choice = c.rng.randrange(8)
    if choice == 0:
        return system_call(FCNTL, fd, 4, c.rng.choice((0, 0o4000, 0o24000)))  # O_NONBLOCK, O_ASYNC
    if choice == 1:
        return system_call(FCNTL, fd, 8, os.getpid())  # F_SETOWN
    if choice == 2:
        return min(system_call(MMAP, 0, 4096, 1, 1, fd, 0), 0)
    code = c.rng.choice((SIOCINQ, SIOCOUTQ, SIOCOUTQNSD, SIOCATMARK, FIONBIO, FIOASYNC, c.rng.randrange(0x8900, 0x89F0)))
    return system_call(IOCTL, fd, code, c.memory.put(struct.pack("=i", c.rng.randrange(2)) + bytes(60)))


def duplicate(c: Caller) -> int:
    entry = c.socket()
    return c.pool.add(system_call(DUP, entry.fd), entry.kind, entry.seal)


def close(c: Caller) -> int:
    return c.pool.drop()


def fork(c: Caller) -> int:
    """A child with all descriptors that calls a little and ends, while the parent goes on.

    It has both ends of connections. So nobody else ends a call that waits for the other end: a signal kills the child.
    """
    try:
        child = os.fork()
    except OSError as exc:
        return -(exc.errno or 1)
    if child:
        return child
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_REAL, 2)
    end = time.monotonic() + 0.5
    for _ in range(c.rng.randrange(12)):
        if time.monotonic() < end:
            c.rng.choice((send, receive, close, shutdown, give_back, set_option, poll))(c)
    os._exit(0)


def netlink(c: Caller) -> int:
    """Generic netlink to the family, with attributes that are malformed, missing, doubled or good."""
    entry = c.pool.pick("netlink")
    parts = [attribute(c.rng.randrange(20), os.urandom(c.rng.choice((0, 1, 4, 8, 32, 64)))) for _ in range(c.rng.randrange(6))]
    parts += c.rng.choice(([], [attribute(ID, c.rng.randrange(50), "=Q")], [attribute(INTERFACE, 2)], [attribute(PLACES, 4)]))
    parts += c.rng.choice(([], [attribute(SEND_KEY, bytes(32)), attribute(RECEIVE_KEY, bytes(32))]))
    body = bytearray(b"".join(parts))
    if body and c.rng.random() < 0.3:
        body[c.rng.randrange(len(body))] ^= 1 << c.rng.randrange(8)
    head = struct.pack("=BBH", c.rng.choice((2, 2, 3, 3, 4, c.rng.randrange(256))), 1, 0)
    number = entry.family if c.rng.random() < 0.9 else c.rng.randrange(16, 40)
    raw = struct.pack("=IHHII", 16 + len(head) + len(body), number, c.rng.choice((1, 5, 0x305)), 7, 0) + head + body
    result = system_call(SENDTO, entry.fd, c.memory.put(raw), len(raw), socket.MSG_DONTWAIT, 0, 0)
    for _ in range(3):
        system_call(RECVFROM, entry.fd, c.memory.room(4096), 4096, socket.MSG_DONTWAIT, 0, 0)
    return result


def tables(c: Caller) -> int:
    """/proc and sysctl, read and written."""
    try:
        if c.rng.random() < 0.5:
            return len(
                Path(c.rng.choice(("/proc/net/stcp_stat", "/proc/net/protocols", "/proc/net/tcp", "/proc/net/tcp6"))).read_bytes()
            )
        name = c.rng.choice(("service", "identity", "handshake_ms", "max_embryos"))
        good = {"handshake_ms": ("1000", "1500"), "max_embryos": ("4096", "64")}.get(name, ("", "orders"))
        return (SYSCTLS / name).write_text(c.rng.choice((*good, *good, "-1", "x" * 70, "5")))
    except OSError as exc:
        return -(exc.errno or 1)


OPERATIONS: Final[dict[Callable[[Caller], int], int]] = {
    open_socket: 3, connect: 4, disconnect: 2, bind: 2, listen: 3, accept: 6, names: 1, shutdown: 3, send: 14, receive: 14,
    splice: 6, sendfile: 3, frame: 12, set_option: 10, get_option: 6, upper_layer: 4, relay: 5, give_back: 5, abort: 1,
    own_name: 2, linger: 2, poll: 5, epoll: 4, control: 5, duplicate: 2, close: 6, fork: 1, netlink: 5, tables: 1,
}  # fmt: skip
"""Every operation and how often it is chosen."""
