"""An unprivileged user that holds the lock of the legs of its relays: one for each CPU, in the middle of a system call.

    python -m tests.kernel.hostile FOLDER            as a user without privileges; prints "held" and waits to be killed
    python -m tests.kernel.hostile FOLDER closes     closes the wire legs while it holds the plain ones; prints "closed" then

The argument of setsockopt(IP_OPTIONS) is copied with the socket locked. It lies in a file of a FUSE file system that the user has
mounted in a user namespace of its own and that never answers a read.
"""

from __future__ import annotations

import ctypes
import os
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from .peer import FIN, Relay

LIBC: Final = ctypes.CDLL(None, use_errno=True)
CLONE_NEWNS, CLONE_NEWUSER = 0x00020000, 0x10000000
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


def mount(folder: str) -> int:
    uid, gid = os.getuid(), os.getgid()
    assert LIBC.unshare(CLONE_NEWUSER | CLONE_NEWNS) == 0
    for name, text in (("setgroups", "deny"), ("uid_map", f"0 {uid} 1"), ("gid_map", f"0 {gid} 1")):
        Path("/proc/self", name).write_text(text)
    device = os.open("/dev/fuse", os.O_RDWR)
    options = b"fd=%d,rootmode=40000,user_id=0,group_id=0" % device
    assert LIBC.mount(b"fuse", folder.encode(), b"fuse", 6, options) == 0, os.strerror(ctypes.get_errno())
    return device


def hold(leg: socket.socket, page: int) -> None:
    LIBC.setsockopt(leg.fileno(), 0, 4, ctypes.c_void_p(page), 4)


def attach_filter(leg: socket.socket) -> None:
    code = ctypes.create_string_buffer(struct.pack("HBBI", 6, 0, 0, 0xFFFFFFFF))
    program = struct.pack("HxxxxxxQ", 1, ctypes.addressof(code))
    LIBC.setsockopt(leg.fileno(), 1, 26, program, len(program))


def get_filter(leg: socket.socket, page: int) -> None:
    """SO_GET_FILTER copies to user space under the lock and is not the protocol's to refuse."""
    length = ctypes.c_uint32(1)
    LIBC.getsockopt(leg.fileno(), 1, 26, ctypes.c_void_p(page), ctypes.byref(length))


def map_page(folder: str, name: str) -> int:
    """A page that never comes: where a file of the mounted folder is mapped."""
    file = os.open(f"{folder}/{name}", os.O_RDWR)
    LIBC.mmap.restype = ctypes.c_void_p
    return int(LIBC.mmap(None, ctypes.c_size_t(4096), 3, 2, file, ctypes.c_long(0)))


def in_thread(call: Callable[..., None], *args: object) -> None:
    threading.Thread(target=call, args=args, daemon=True).start()


def hold_all(folder: str) -> None:
    """Hold the locks of the wire legs of as many relays as there are CPUs, from now on. `folder` is mounted upon."""
    relays = [Relay() for _ in range(os.cpu_count() or 1)]
    for r in relays:
        r.check_alive()
        attach_filter(r.wire)
    in_thread(serve, mount(folder))
    for r in relays:
        page = map_page(folder, str(r.wire.fileno()))
        for way in (hold, get_filter):
            in_thread(way, r.wire, page)
    time.sleep(1)
    for r in relays:
        r.app.sendall(b"to be sealed")


def close_while_held(folder: str) -> None:
    """Close wire legs: one that relays while the lock of its plain leg is held, one that ends while that of the wire is."""
    relaying, ending = Relay(keep_plain=True), Relay()
    legs = (relaying.plain, ending.wire)
    for leg in legs:
        attach_filter(leg)
    in_thread(serve, mount(folder))
    for leg in legs:
        in_thread(get_filter, leg, map_page(folder, str(leg.fileno())))
    time.sleep(1)
    ending.app.close()
    ending.send(FIN)
    time.sleep(0.2)
    relaying.wire.close()
    ending.wire.close()


def abort_fuse() -> None:
    """A process that waits for its own FUSE file system cannot be killed."""
    control = Path("/sys/fs/fuse/connections")
    if not control.is_mount():
        subprocess.run(["mount", "-t", "fusectl", "none", str(control)], check=True)
    for connection in control.glob("*/abort"):
        connection.write_text("1")


def main(folder: str, closes: str = "") -> None:
    if closes:
        close_while_held(folder)
    else:
        hold_all(folder)
    print("closed" if closes else "held", flush=True)
    time.sleep(600)


if __name__ == "__main__":
    main(*sys.argv[1:])
