"""Connections of a listener of the protocol that TCP gives to another listener of the port: they are plain ones from then on."""

from __future__ import annotations

import contextlib
import select
import socket
import struct
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from .netlink_agent import Link
from .peer import PATIENCE, eventually, references
from .sockets import stcp_socket

MIGRATE: Final = Path("/proc/sys/net/ipv4/tcp_migrate_req")
SOCK_DIAG, DIAG_BY_FAMILY, DIAG_DESTROY, DUMP = 4, 20, 21, 0x300
LISTEN: Final = 10
SO_COOKIE: Final = 57


@contextlib.contextmanager
def migrating() -> Iterator[None]:
    before = MIGRATE.read_text()
    MIGRATE.write_text("1")
    try:
        yield
    finally:
        MIGRATE.write_text(before)


def in_group(sock: socket.socket, port: int, backlog: int) -> socket.socket:
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    sock.bind(("127.0.0.1", port))
    sock.listen(backlog)
    return sock


def ask(kind: int, flags: int, ports: tuple[int, int], address: bytes, cookie: bytes) -> bytes:
    """A request of sock_diag(7) about listeners of IPv4. Returns the first answer."""
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, SOCK_DIAG) as diag:
        diag.settimeout(PATIENCE)
        identity = struct.pack(">HH", *ports) + 2 * address.ljust(16, b"\0") + struct.pack("=I", 0) + cookie
        body = struct.pack("=BBBxI", socket.AF_INET, socket.IPPROTO_TCP, 0, 1 << LISTEN) + identity
        diag.send(struct.pack("=IHHII", 16 + len(body), kind, 5 | flags, 1, 0) + body)
        return diag.recv(1 << 16)


def kill_listener(port: int, spared: socket.socket) -> None:
    """What `ss -K` does, for the other listener of the port. Which one is found depends on the address of a client."""
    plain = spared.getsockopt(socket.SOL_SOCKET, SO_COOKIE, 8)
    answer = ask(DIAG_BY_FAMILY, DUMP, (0, 0), b"", b"\xff" * 8)
    found = []
    while len(answer) >= 16:
        length, kind = struct.unpack_from("=IH", answer)
        if kind == DIAG_BY_FAMILY:
            message = answer[16:length]  # struct inet_diag_msg: four bytes, then the identity
            if struct.unpack_from(">H", message, 4)[0] == port and message[44:52] != plain:
                found.append(message[44:52])
        answer = answer[length:]
    (cookie,) = found
    host = socket.inet_aton("127.0.0.1")
    assert any(struct.unpack_from("=i", ask(DIAG_DESTROY, 0, (port, n), host, cookie), 16)[0] == 0 for n in range(1, 100))


@pytest.mark.parametrize("how", ["close", "shutdown", "killed"])
def test_what_moves_to_another_listener_is_plain(link: Link, how: str) -> None:
    """It would keep callbacks of the module, without a reference on it, and nobody would be woken."""
    before = references()
    with migrating(), contextlib.ExitStack() as opened:
        plain = opened.enter_context(in_group(socket.socket(), 0, 128))
        port = plain.getsockname()[1]
        ours = in_group(stcp_socket(), port, 2)
        peers = {}
        for _ in range(40):
            peer = opened.enter_context(socket.socket())
            peer.setblocking(False)
            peer.connect_ex(("127.0.0.1", port))
            peers[peer.getsockname()] = peer
        time.sleep(0.5)
        connected = select.select([], list(peers.values()), [], 0)[1]
        plain.setblocking(False)
        straight = []
        with contextlib.suppress(BlockingIOError):
            while True:
                straight.append(opened.enter_context(plain.accept()[0]))
        waiting = {sock.getsockname() for sock in connected} - {sock.getpeername() for sock in straight}
        assert straight
        assert waiting, "no connection is ours"
        if how == "killed":
            kill_listener(port, plain)
        elif how == "shutdown":
            ours.shutdown(socket.SHUT_RDWR)
        else:
            ours.close()
        time.sleep(0.2)
        moved = []
        with contextlib.suppress(BlockingIOError):
            while True:  # those whose SYN was dropped come too
                sock = opened.enter_context(plain.accept()[0])
                if sock.getpeername() in waiting:
                    moved.append(sock)
        print(f"{len(straight)} plain, {len(waiting)} ours, {len(moved)} moved")
        assert bool(moved) == (how == "killed")
        for sock in moved:
            got: list[bytes] = []
            sock.settimeout(PATIENCE)
            reader = threading.Thread(target=lambda sock=sock, got=got: got.append(sock.recv(1)), daemon=True)
            reader.start()
            time.sleep(0.1)
            peers[sock.getpeername()].sendall(b"x")
            reader.join(PATIENCE)
            assert got == [b"x"], "nobody woke the reader"
        ours.close()
        eventually(lambda: references() == before, "something holds the module")
