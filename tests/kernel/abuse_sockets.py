"""Sockets of the protocol in all states for the abuse (abuse.py): what one of its workers does.

Both ends of a connection are sockets of the protocol on this host, or one is a peer on plain TCP that speaks frames. The agent
(abuse_agent.py) answers most handshakes well. What a call needs is made before memory may fail, as far as that is Python's.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import random
import select
import signal
import socket
import struct
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from stcp_proxy.relay import kernel_abi as abi

from .abuse_agent import counter_of
from .abuse_common import EXPECTED, LIBC, PR_SET_PDEATHSIG, SECONDS, Counts
from .abuse_relays import fin, forbidden, fuzz, header, junk, peer_resets
from .failing_memory import Faults
from .peer import DATA, KEY_DOWN, KEY_UP, Cipher, FramePeer, noise
from .sockets import PROTOCOL, address

MOST: Final = 30  # ends of connections that a worker holds
PATIENCE: Final = 1.0
"""Seconds that a connection may take whatever the agent does."""
SIZES: Final = (0, 1, 100, 4096, 20_000, 65_516, 65_517, 150_000)
NOISE: Final = memoryview(noise(max(SIZES)))
SIOCINQ, SIOCOUTQ, SIOCOUTQNSD = 0x541B, 0x5411, 0x894B
NOW: Final = struct.pack("ll", 0, 50_000)  # the longest time of a call that blocks
FAMILIES: Final = (socket.AF_INET, socket.AF_INET6)


@dataclass(eq=False)
class End:
    """One end of a connection, or of an attempt; `frames` speaks for an end on plain TCP."""

    sock: socket.socket
    frames: FramePeer | None = None


class Sockets:
    """What a worker holds."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.faults = Faults()
        self.ends: list[End] = []
        self.listeners: list[socket.socket] = []
        self.pipe = os.pipe2(os.O_NONBLOCK)
        self.file = os.memfd_create("abuse")
        os.write(self.file, NOISE)
        self.buffer = memoryview(bytearray(NOISE))

    def make(self, family: int) -> socket.socket:
        with self.faults:
            sock = socket.socket(family, socket.SOCK_STREAM, PROTOCOL)
        return self.limited(sock)

    def limited(self, sock: socket.socket) -> socket.socket:
        """It may block, and never for long."""
        for option in (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO):
            sock.setsockopt(socket.SOL_SOCKET, option, NOW)
        sock.setblocking(self.rng.random() < 0.2)
        return sock

    def keep(self, sock: socket.socket) -> End:
        self.ends.append(End(sock))
        return self.ends[-1]

    def end(self) -> End:
        """Any end of a connection. IndexError where there is none."""
        return self.rng.choice(self.ends)

    def speaker(self) -> FramePeer:
        """Any peer that speaks frames. IndexError where there is none."""
        return self.rng.choice([end.frames for end in self.ends if end.frames])

    def close(self, end: End) -> None:
        self.ends.remove(end)
        with self.faults:
            end.sock.close()


# -- from a socket to a connection ---------------------------------------------------------------------------------------


def listen(s: Sockets) -> socket.socket:
    sock = s.make(s.rng.choice(FAMILIES))
    backlog = s.rng.choice((0, 1, 8, 8, 100))
    with s.faults:
        sock.bind((address(sock.family), 0))
        sock.listen(backlog)
    s.listeners.append(sock)
    return sock


def relisten(s: Sockets) -> None:
    """Another backlog, or no listener any more and one again."""
    sock, backlog = s.rng.choice(s.listeners), s.rng.choice((0, 1, 3, 50))
    with s.faults:
        if s.rng.random() < 0.3:
            sock.shutdown(s.rng.randrange(3))
        sock.listen(backlog)


def close_listener(s: Sockets) -> None:
    """With everything that waits in it."""
    sock = s.rng.choice(s.listeners)
    s.listeners.remove(sock)
    with s.faults:
        sock.close()


def begin(s: Sockets, to: socket.socket) -> socket.socket:
    """An attempt that does not block. Its result is not known yet."""
    where, sock = to.getsockname(), s.make(to.family)
    sock.setblocking(False)
    with s.faults, contextlib.suppress(BlockingIOError):
        sock.connect(where)
    return sock


def wait_connected(sock: socket.socket) -> None:
    assert select.select([], [sock], [], PATIENCE)[1], "not connected"
    assert not sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR), "refused"


def connect(s: Sockets) -> None:
    """An attempt that may block a little, and is nobody's concern from then on."""
    listener = s.rng.choice(s.listeners)
    where, sock = listener.getsockname(), s.make(listener.family)
    s.keep(sock)
    with s.faults:
        sock.connect(where)


def accept(s: Sockets, listener: socket.socket | None = None) -> None:
    listener = listener or s.rng.choice(s.listeners)
    with s.faults:
        sock, _ = listener.accept()
    s.keep(s.limited(sock))


def pair(s: Sockets) -> None:
    """Both ends of a connection, unless somebody is in the way."""
    listener = s.rng.choice(s.listeners) if s.listeners and s.rng.random() < 0.5 else listen(s)
    wait_connected(s.keep(begin(s, listener)).sock)
    assert select.select([listener], [], [], PATIENCE)[0], "nobody to accept"
    accept(s, listener)


def to_frames(s: Sockets) -> None:
    """A socket of the protocol connects to a peer that speaks frames."""
    family = s.rng.choice(FAMILIES)
    with socket.socket(family) as listener:
        listener.bind((address(family), 0))
        listener.listen(1)
        listener.settimeout(PATIENCE)
        sock = s.keep(begin(s, listener)).sock
        peer, _ = listener.accept()
    speak(s, peer, KEY_DOWN)
    wait_connected(sock)


def from_frames(s: Sockets) -> None:
    """A peer that speaks frames connects to a listener, and may say something before anybody has asked the agent."""
    listener = s.rng.choice(s.listeners)
    peer = socket.socket(listener.family)
    peer.settimeout(0.2)
    peer.connect(listener.getsockname())
    frames = speak(s, peer, KEY_UP)
    if s.rng.random() < 0.5:
        frames.send(DATA, noise(100))
    assert select.select([listener], [], [], PATIENCE)[0], "nobody to accept"
    accept(s, listener)


def speak(s: Sockets, peer: socket.socket, key: bytes) -> FramePeer:
    peer.settimeout(0.05)
    frames = FramePeer()
    frames.peer, frames.down = peer, Cipher(key, counter_of(peer))
    s.ends.append(End(peer, frames))
    return frames


def give_up(s: Sockets) -> None:
    """Attempts whose programs lose patience at any moment."""
    listener = s.rng.choice(s.listeners)
    socks = [begin(s, listener) for _ in range(s.rng.randrange(1, 6))]
    time.sleep(s.rng.choice((0, 0, 0.001, 0.01, 0.05)))
    for sock in socks:
        way = s.rng.randrange(4)
        with s.faults, contextlib.suppress(OSError):
            if way == 0:
                sock.shutdown(s.rng.randrange(3))
            elif way == 1:
                forget_peer(sock)
            elif way == 2:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            sock.close()


def forget_peer(sock: socket.socket) -> None:
    """connect(AF_UNSPEC), which Python does not know."""
    if LIBC.connect(sock.fileno(), bytes(16), 16):
        raise OSError(ctypes.get_errno(), "connect")


def disconnect(s: Sockets) -> None:
    sock = s.end().sock
    with s.faults:
        forget_peer(sock)


def connect_again(s: Sockets) -> None:
    """The same socket once more, whatever it is by now."""
    sock = s.end().sock
    where = s.rng.choice([listener for listener in s.listeners if listener.family == sock.family]).getsockname()
    with s.faults:
        sock.connect(where)


# -- bytes ---------------------------------------------------------------------------------------------------------------


def send(s: Sockets) -> None:
    end, size = s.end(), s.rng.choice(SIZES)
    if end.frames:
        end.frames.send(DATA, bytes(NOISE[: min(size, 65_516)]))
        return
    flags = s.rng.choice((0, 0, socket.MSG_DONTWAIT, socket.MSG_MORE))
    with s.faults:
        end.sock.send(NOISE[:size], flags)


def fill(s: Sockets) -> None:
    sock = s.end().sock
    with s.faults, contextlib.suppress(BlockingIOError, TimeoutError):
        for _ in range(30):
            sock.send(NOISE, socket.MSG_DONTWAIT)


def receive(s: Sockets) -> None:
    sock, size = s.end().sock, s.rng.choice(SIZES)
    flags = s.rng.choice((0, 0, socket.MSG_DONTWAIT, socket.MSG_PEEK, socket.MSG_WAITALL, socket.MSG_TRUNC))
    with s.faults:
        sock.recv_into(s.buffer, size or len(s.buffer), flags)


def frames(s: Sockets) -> None:
    """What a peer may say, and what it may not."""
    s.rng.choice((junk, header, forbidden, fuzz, fin, fin, peer_resets))(s.speaker(), s.rng)


def splice(s: Sockets) -> None:
    sock, size = s.end().sock.fileno(), s.rng.choice(SIZES)
    ends = s.rng.choice(((s.pipe[0], sock), (sock, s.pipe[1])))
    with s.faults:
        os.splice(*ends, size, flags=os.SPLICE_F_NONBLOCK)


def send_file(s: Sockets) -> None:
    sock, size = s.end().sock.fileno(), s.rng.choice(SIZES)
    with s.faults:
        os.sendfile(sock, s.file, 0, size)


# -- the rest ------------------------------------------------------------------------------------------------------------


def shutdown(s: Sockets) -> None:
    sock, how = s.end().sock, s.rng.choice((socket.SHUT_RD, socket.SHUT_WR, socket.SHUT_WR, socket.SHUT_RDWR))
    with s.faults:
        sock.shutdown(how)


def poll(s: Sockets) -> None:
    waiting = select.poll()
    for sock in (*(end.sock for end in s.ends), *s.listeners):
        waiting.register(sock, s.rng.randrange(64))
    with s.faults:
        waiting.poll(s.rng.choice((0, 0, 5)))


def options(s: Sockets) -> None:
    sock, rng = s.end().sock, s.rng
    number = rng.choice((0, 1, 2, 5000, 1 << 20))
    level, name, value = rng.choice((
        (socket.SOL_SOCKET, socket.SO_SNDBUF, number),
        (socket.SOL_SOCKET, socket.SO_RCVBUF, number),
        (socket.SOL_SOCKET, socket.SO_RCVLOWAT, number),
        (socket.SOL_SOCKET, socket.SO_KEEPALIVE, number),
        (socket.SOL_SOCKET, socket.SO_MARK, number),
        (socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", rng.randrange(2), rng.randrange(2))),
        (socket.SOL_TCP, socket.TCP_NODELAY, number),
        (socket.SOL_TCP, socket.TCP_CORK, number),
        (socket.SOL_TCP, abi.TCP_ULP, abi.ULP_NAME),
        (socket.SOL_TCP, socket.TCP_CONGESTION, b"reno"),
        (socket.SOL_IP, socket.IP_TOS, number),
        (abi.SOL_STCP, 18, b"orders"),
        (abi.SOL_STCP, 19, b"somebody"),
        (abi.SOL_STCP, rng.randrange(24), b"12345678"),
    ))  # fmt: skip
    with s.faults:
        sock.setsockopt(level, name, value)


def ask(s: Sockets) -> None:
    sock, rng = s.end().sock, s.rng
    level, name, size = rng.choice((
        (socket.SOL_SOCKET, socket.SO_ERROR, 4),
        (socket.SOL_TCP, socket.TCP_INFO, 200),
        (abi.SOL_STCP, abi.STATUS, abi.STATUS_ARGS.size),
        (abi.SOL_STCP, rng.randrange(16, 20), 300),
    ))  # fmt: skip
    with s.faults:
        sock.getsockopt(level, name, size)
        fcntl.ioctl(sock, rng.choice((SIOCINQ, SIOCOUTQ, SIOCOUTQNSD)), bytes(4))


def abort(s: Sockets) -> None:
    """close() that says RESET."""
    end = s.end()
    end.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    s.close(end)


def close(s: Sockets) -> None:
    s.close(s.end())


def duplicate(s: Sockets) -> None:
    """A second descriptor, and the first one closed, or not."""
    end = s.end()
    if not end.frames:
        s.keep(end.sock.dup())
        if s.rng.random() < 0.5:
            s.close(end)


def fork(s: Sockets) -> None:
    """A child that uses the same sockets and ends, while we go on or close them."""
    seed = s.rng.getrandbits(32)
    if os.fork() == 0:
        with contextlib.suppress(BaseException):
            child(s, seed)
        os._exit(0)
    for end in s.rng.sample(s.ends, min(len(s.ends), s.rng.randrange(8))):
        s.close(end)


def child(s: Sockets, seed: int) -> None:
    """A few calls, and half of the sockets closed. It ends soon, whatever happens."""
    LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    signal.setitimer(signal.ITIMER_REAL, 2)
    s.rng, s.faults = random.Random(seed), Faults()
    for _ in range(s.rng.randrange(20)):
        with contextlib.suppress(*EXPECTED, LookupError):
            s.rng.choice((send, receive, splice, shutdown, accept, close, abort, relisten, poll, options))(s)


ACTIONS: Final[dict[Callable[[Sockets], object], int]] = {
    listen: 3, relisten: 2, close_listener: 1, connect: 3, accept: 5, pair: 8, to_frames: 4, from_frames: 4, give_up: 4,
    disconnect: 1, connect_again: 1, send: 12, fill: 2, receive: 14, frames: 4, splice: 5, send_file: 2, shutdown: 4, poll: 3,
    options: 5, ask: 3, abort: 2, close: 4, duplicate: 1, fork: 1,
}  # fmt: skip
"""Every action and how often it is chosen."""
NAMES: Final = [f"socket {action.__name__}" for action in ACTIONS]
NEEDED: Final = [name for name in NAMES if name not in ("socket connect", "socket connect_again", "socket disconnect")]
"""What has to succeed in half a minute: the others need luck."""


def work(seed: int, counts: Counts) -> None:
    """Sockets in all states until the time is over or somebody kills us."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    s = Sockets(seed)
    end = time.monotonic() + SECONDS
    while time.monotonic() < end:
        action = s.rng.choices(list(ACTIONS), list(ACTIONS.values()))[0]
        name = f"socket {action.__name__}"
        counts.tried(name)
        with contextlib.suppress(*EXPECTED, IndexError):
            action(s)
            counts.good(name)
        with contextlib.suppress(*EXPECTED):
            while len(s.ends) > MOST:
                s.close(s.end())
            while len(s.listeners) > 4:
                close_listener(s)
