"""An unprivileged user that holds the lock of the legs of its relays: one for each CPU, in the middle of a system call.

    python -m tests.kernel.hostile FOLDER            as a user without privileges; prints "held" and waits to be killed
    python -m tests.kernel.hostile FOLDER closes     closes the wire legs while it holds the plain ones; prints "closed" then
    python -m tests.kernel.hostile FOLDER agent      as the agent of a network namespace of its own, closes a socket of the
                                                     protocol while it holds the connection underneath; prints "closed" then
    python -m tests.kernel.hostile FOLDER gives-up   the same with a handshake that goes on: the application gives it up and keeps
                                                     the socket; prints "seen" when the agent sees the end of the connection

The result of getsockopt(TCP_SAVED_SYN) is copied with the socket locked. It goes to a file of a FUSE file system that the user
has mounted in a user namespace of its own and that never answers a read.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import select
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from .netlink_agent import Link, done, wait_taken
from .peer import FIN, PATIENCE, Relay, eventually
from .sockets import outcome, start, tcp_listener

LIBC: Final = ctypes.CDLL(None, use_errno=True)
CLONE_NEWNS, CLONE_NEWUSER, CLONE_NEWNET = 0x00020000, 0x10000000, 0x40000000
TCP_SAVE_SYN, TCP_SAVED_SYN = 27, 28
SO_GET_FILTER = 26  # SO_ATTACH_FILTER, in setsockopt()
LISTENERS: Final[list[socket.socket]] = []
LOOKUP, GETATTR, OPEN, READ, INIT = 1, 3, 14, 15, 26


def attributes(node: int) -> bytes:
    mode = 0o40755 if node == 1 else 0o100644
    return struct.pack("QQQQQQIIIIIIIIII", node, 4096, 8, 0, 0, 0, 0, 0, 0, mode, 1, 0, 0, 0, 4096, 0)


def answer(operation: int, node: int) -> bytes | None:
    return {
        INIT: struct.pack("IIIIHHIIHH8I", 7, 31, 4096, 0, 12, 9, 4096, 1, 1, 0, *[0] * 8),
        LOOKUP: struct.pack("QQQQII", 2, 0, 9999, 9999, 0, 0) + attributes(2),
        GETATTR: struct.pack("QII", 9999, 0, 0) + attributes(node),
        OPEN: struct.pack("QII", 1, 0, 0),
    }.get(operation)


def serve(device: int) -> None:
    """Answers everything but READ."""
    while True:
        _, operation, unique, node = struct.unpack_from("IIQQ", os.read(device, 1 << 17))
        if operation == READ:
            continue
        body = answer(operation, node)
        os.write(device, struct.pack("IiQ", 16 + len(body or b""), 0 if body else -38, unique) + (body or b""))


def mount(folder: str, more: int = 0) -> int:
    """Mount in new namespaces: of users, of mounts, and `more`."""
    uid, gid = os.getuid(), os.getgid()
    assert LIBC.unshare(CLONE_NEWUSER | CLONE_NEWNS | more) == 0
    for name, text in (("setgroups", "deny"), ("uid_map", f"0 {uid} 1"), ("gid_map", f"0 {gid} 1")):
        Path("/proc/self", name).write_text(text)
    device = os.open("/dev/fuse", os.O_RDWR)
    options = b"fd=%d,rootmode=40000,user_id=0,group_id=0" % device
    assert LIBC.mount(b"fuse", folder.encode(), b"fuse", 6, options) == 0, os.strerror(ctypes.get_errno())
    return device


def saved_pair() -> tuple[socket.socket, socket.socket]:
    """Two connected TCP sockets, the second of which keeps the SYN of the first."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setsockopt(socket.SOL_TCP, TCP_SAVE_SYN, 1)
        near = socket.create_connection(listener.getsockname(), PATIENCE)
        return near, listener.accept()[0]


def get_syn(leg: socket.socket, page: int) -> None:
    LIBC.getsockopt(leg.fileno(), socket.SOL_TCP, TCP_SAVED_SYN, ctypes.c_void_p(page), ctypes.byref(ctypes.c_uint32(4096)))


def attach_filter(leg: socket.socket) -> None:
    """Needs CAP_NET_ADMIN in the network namespace of the socket."""
    code = ctypes.create_string_buffer(struct.pack("HBBI", 6, 0, 0, 0xFFFFFFFF))
    leg.setsockopt(socket.SOL_SOCKET, SO_GET_FILTER, struct.pack("HxxxxxxQ", 1, ctypes.addressof(code)))


def get_filter(leg: socket.socket, page: int) -> None:
    """SO_GET_FILTER copies to user space under the lock and is not the protocol's to refuse."""
    LIBC.getsockopt(leg.fileno(), socket.SOL_SOCKET, SO_GET_FILTER, ctypes.c_void_p(page), ctypes.byref(ctypes.c_uint32(1)))


def map_page(folder: str, name: str) -> int:
    """A page that never comes: where a file of the mounted folder is mapped."""
    file = os.open(f"{folder}/{name}", os.O_RDWR)
    LIBC.mmap.restype = ctypes.c_void_p
    return int(LIBC.mmap(None, ctypes.c_size_t(4096), 3, 2, file, ctypes.c_long(0)))


def in_thread(call: Callable[..., None], *args: object) -> None:
    threading.Thread(target=call, args=args, daemon=True).start()


def hold(folder: str, legs: list[socket.socket], call: Callable[..., None] = get_syn) -> None:
    """Hold the locks of these legs, from now on. A lock that nobody holds would show nothing, so that is looked at."""
    pages = [map_page(folder, str(leg.fileno())) for leg in legs]  # before the first of them waits: they are one file
    for leg, page in zip(legs, pages, strict=True):
        in_thread(call, leg, page)
    for leg in legs:
        eventually(lambda leg=leg: is_held(leg), "nobody holds the lock of a leg")  # type: ignore[misc]


def is_held(leg: socket.socket) -> bool:
    """Whether a thread of this process is in a getsockopt() for this leg."""
    wanted = ["55", hex(leg.fileno())]
    return wanted in [(thread / "syscall").read_text().split()[:2] for thread in Path("/proc/self/task").iterdir()]


def hold_all(folder: str) -> None:
    """Hold the locks of the wire legs of as many relays as there are CPUs, from now on. `folder` is mounted upon."""
    relays = [Relay(legs=(*saved_pair(), *saved_pair())) for _ in range(os.cpu_count() or 1)]
    for r in relays:
        r.check_alive()
    in_thread(serve, mount(folder))
    hold(folder, [r.wire for r in relays])
    for r in relays:
        r.app.sendall(b"to be sealed")


def close_while_held(folder: str) -> None:
    """Close wire legs: one that relays while the lock of its plain leg is held, one that ends while that of the wire is."""
    relaying, ending = (Relay(legs=(*saved_pair(), *saved_pair()), keep_plain=True) for _ in range(2))
    ending.plain.close()
    in_thread(serve, mount(folder))
    hold(folder, [relaying.plain, ending.wire])
    ending.app.close()
    ending.send(FIN)
    time.sleep(0.2)
    relaying.wire.close()
    ending.wire.close()


def own_handshake(folder: str) -> tuple[int, Link, int, socket.socket, socket.socket]:
    """Be the agent of a new network namespace. Returns the device of FUSE; of a handshake link, number, socket, connection."""
    device = mount(folder, CLONE_NEWNET)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        fcntl.ioctl(any_socket, 0x8914, struct.pack("16sh14x", b"lo", 1))  # SIOCSIFFLAGS, up
    Path("/proc/sys/net/stcp/handshake_ms").write_text("600000")
    link = Link()
    link.register()
    LISTENERS.append(tcp_listener())
    sock = start(LISTENERS[-1])
    taken = wait_taken(link)
    held = socket.socket(fileno=taken.fd)
    attach_filter(held)
    return device, link, taken.number, sock, held


def close_held_by_the_agent(folder: str) -> None:
    """Close a socket of the protocol whose agent holds the lock of the TCP connection underneath."""
    device, link, number, sock, held = own_handshake(folder)
    done(link, number)
    assert outcome(sock) == 0
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 1000))
    in_thread(serve, device)
    hold(folder, [held], get_filter)
    sock.close()
    held.detach()


def give_up_while_held(folder: str) -> None:
    """Give up a handshake while somebody holds the lock of the TCP connection underneath."""
    device, link, _, sock, held = own_handshake(folder)
    in_thread(serve, device)
    hold(folder, [held], get_filter)
    poll = select.poll()
    poll.register(held, select.POLLIN)
    assert poll.poll(100) == []
    sock.shutdown(socket.SHUT_RDWR)
    assert poll.poll(1000 * PATIENCE), "the agent does not see that nobody wants the handshake"
    held.detach()
    sock.detach()
    link.sock.detach()


def abort_fuse() -> None:
    """A process that waits for its own FUSE file system cannot be killed."""
    control = Path("/sys/fs/fuse/connections")
    if not control.is_mount():
        subprocess.run(["mount", "-t", "fusectl", "none", str(control)], check=True)
    for connection in control.glob("*/abort"):
        connection.write_text("1")


def main(folder: str, how: str = "holds") -> None:
    call, says = {
        "holds": (hold_all, "held"),
        "closes": (close_while_held, "closed"),
        "agent": (close_held_by_the_agent, "closed"),
        "gives-up": (give_up_while_held, "seen"),
    }[how]
    call(folder)
    print(says, flush=True)
    time.sleep(600)


if __name__ == "__main__":
    main(*sys.argv[1:])
