"""An unprivileged user that holds the lock of the wire legs of its relays: one for each CPU, in the middle of a system call.

    python -m tests.kernel.hostile FOLDER      as a user without privileges; prints "held" and waits to be killed

The argument of setsockopt(IP_OPTIONS) is copied with the socket locked. It lies in a file of a FUSE file system that the user has
mounted in a user namespace of its own and that never answers a read.
"""

from __future__ import annotations

import ctypes
import os
import struct
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Final

from .peer import Relay

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


def hold(relay: Relay, page: int) -> None:
    LIBC.setsockopt(relay.wire.fileno(), 0, 4, ctypes.c_void_p(page), 4)


def get_filter(relay: Relay, page: int) -> None:
    """SO_GET_FILTER copies to user space under the lock and is not the protocol's to refuse."""
    length = ctypes.c_uint32(1)
    LIBC.getsockopt(relay.wire.fileno(), 1, 26, ctypes.c_void_p(page), ctypes.byref(length))


def hold_all(folder: str) -> None:
    """Hold the locks of the wire legs of as many relays as there are CPUs, from now on. `folder` is mounted upon."""
    relays = [Relay() for _ in range(os.cpu_count() or 1)]
    for r in relays:
        r.check_alive()
        code = ctypes.create_string_buffer(struct.pack("HBBI", 6, 0, 0, 0xFFFFFFFF))
        program = struct.pack("HxxxxxxQ", 1, ctypes.addressof(code))
        LIBC.setsockopt(r.wire.fileno(), 1, 26, program, len(program))
    device = mount(folder)
    threading.Thread(target=serve, args=(device,), daemon=True).start()
    LIBC.mmap.restype = ctypes.c_void_p
    for r in relays:
        file = os.open(f"{folder}/{r.wire.fileno()}", os.O_RDWR)
        page = LIBC.mmap(None, ctypes.c_size_t(4096), 3, 2, file, ctypes.c_long(0))
        for way in (hold, get_filter):
            threading.Thread(target=way, args=(r, page), daemon=True).start()
    time.sleep(1)
    for r in relays:
        r.app.sendall(b"to be sealed")


def abort_fuse() -> None:
    """A process that waits for its own FUSE file system cannot be killed."""
    control = Path("/sys/fs/fuse/connections")
    if not control.is_mount():
        subprocess.run(["mount", "-t", "fusectl", "none", str(control)], check=True)
    for connection in control.glob("*/abort"):
        connection.write_text("1")


def main(folder: str) -> None:
    hold_all(folder)
    print("held", flush=True)
    time.sleep(600)


if __name__ == "__main__":
    main(sys.argv[1])
