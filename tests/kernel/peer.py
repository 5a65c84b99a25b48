"""The wire spoken from PROTOCOL.md with AESGCM alone, and the options of the module. Every wait is bounded."""

from __future__ import annotations

import ctypes
import os
import select
import socket
import struct
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext, suppress
from pathlib import Path
from typing import Final

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from stcp_proxy.relay import kernel_abi as abi

PATIENCE: Final = 30.0
INTERVAL: Final = 1 << 20
DATA, FIN, RESET, OPEN, ACCEPT, REJECT = range(6)
MAX_TEXT: Final = 65516
KEY_UP: Final = bytes(range(100, 132))
KEY_DOWN: Final = bytes(range(200, 232))


class Cipher:
    """One direction: key and n."""

    def __init__(self, key: bytes, n: int = 0) -> None:
        self.key, self.n = key, n

    def _gcm(self) -> tuple[AESGCM, bytes]:
        if self.n and self.n % INTERVAL == 0:
            self.key = AESGCM(self.key).encrypt(bytes(4) + b"\xff" * 8, bytes(32), b"")[:32]
        nonce = bytes(4) + self.n.to_bytes(8, "big")
        self.n += 1
        return AESGCM(self.key), nonce

    def seal(self, kind: int, text: bytes = b"") -> bytes:
        gcm, nonce = self._gcm()
        header = struct.pack(">BBH", kind, 0, len(text) + 16)
        return header + gcm.encrypt(nonce, text, header)

    def open(self, frame: bytes) -> bytes:
        gcm, nonce = self._gcm()
        return gcm.decrypt(nonce, frame[4:], frame[:4])


def tcp_pair(family: socket.AddressFamily = socket.AF_INET, *, segment: int = 0) -> tuple[socket.socket, socket.socket]:
    """Two connected TCP sockets.

    Args:
        family: AF_INET or AF_INET6.
        segment: the largest segment that the first of them takes, bytes, with a small window too; 0 for the usual ones.
    """
    with socket.socket(family) as listener:
        listener.bind(("127.0.0.1" if family == socket.AF_INET else "::1", 0))
        listener.listen(1)
        near = socket.socket(family)
        if segment:
            near.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, segment)
            near.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 * segment)
        near.connect(listener.getsockname())
        far, _ = listener.accept()
    for sock in (near, far):
        sock.settimeout(PATIENCE)
    return near, far


def read_exactly(sock: socket.socket, size: int) -> bytes:
    out = bytearray()
    while len(out) < size:
        chunk = sock.recv(size - len(out))
        assert chunk, f"EOF after {len(out)} of {size} bytes"
        out += chunk
    return bytes(out)


def how_it_ends(sock: socket.socket) -> tuple[int, str]:
    """Reads to the end: how many bytes came, and whether it was "eof" or "reset"."""
    size = 0
    while True:
        try:
            chunk = sock.recv(1 << 18)
        except (ConnectionResetError, BrokenPipeError):
            return size, "reset"
        if not chunk:
            return size, "eof"
        size += len(chunk)


def ulp(sock: socket.socket) -> None:
    sock.setsockopt(socket.SOL_TCP, abi.TCP_ULP, abi.ULP_NAME)


def args(plain_fd: int, **changed: object) -> bytearray:
    """struct stcp_relay_args, with any field changed by name."""
    fields: dict[str, object] = {
        "interface": abi.INTERFACE, "size": abi.RELAY_ARGS.size, "plain_fd": plain_fd,
        "send_counter": 0, "send_key": KEY_UP, "receive_counter": 0, "receive_key": KEY_DOWN,
        "wire_bytes": 0, "plain_bytes": 0, "wire_len": 0, "plain_len": 0,
        "idle_ms": 0, "half_close_ms": 0, "linger_ms": 2000, "flags": 0,
    }  # fmt: skip
    assert changed.keys() <= fields.keys()
    fields.update(changed)
    raw = bytearray(abi.RELAY_ARGS.size)
    abi.RELAY_ARGS.pack_into(raw, 0, *fields.values())
    return raw


class FramePeer:
    """The peer's end of a wire leg: it speaks frames over plain TCP.

    Attributes:
        app: the application's socket at the other side.
        peer: its socket.
        up: opens what arrives.
        down: seals what it sends.
    """

    app: socket.socket
    peer: socket.socket
    up: Cipher
    down: Cipher

    def read_frame(self) -> tuple[int, bytes]:
        header = read_exactly(self.peer, 4)
        kind, zero, length = struct.unpack(">BBH", header)
        assert zero == 0
        assert 16 <= length <= 65532
        return kind, self.up.open(header + read_exactly(self.peer, length))

    def read_data(self, size: int) -> bytes:
        out = bytearray()
        while len(out) < size:
            kind, text = self.read_frame()
            assert kind == DATA
            out += text
        assert len(out) == size
        return bytes(out)

    def send(self, kind: int, text: bytes = b"") -> None:
        self.peer.sendall(self.down.seal(kind, text))

    def check_alive(self) -> None:
        self.app.sendall(b"ping")
        assert self.read_data(4) == b"ping"
        self.send(DATA, b"pong")
        assert read_exactly(self.app, 4) == b"pong"


def free_memory() -> int:
    """Return the free memory of the machine, bytes (MemFree)."""
    lines = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
    return int(lines["MemFree"].split()[0]) * 1024


class Relay(FramePeer):
    """A relay in this machine's kernel between an application and a peer, both in our hands.

    Attributes:
        app: the application's socket.
        peer: the peer's.
        wire: the wire leg, the module's handle.
        plain: the plain leg's socket, None once closed.
        up: what the module seals with.
        down: what the module opens with.
    """

    def __init__(
        self,
        *,
        family: socket.AddressFamily = socket.AF_INET,
        counters: tuple[int, int] = (0, 0),
        wire_bytes: Callable[[Cipher], bytes] | None = None,
        plain_bytes: bytes = b"",
        keep_plain: bool = False,
        low_water: int = 1,
        during: AbstractContextManager[None] | None = None,
        legs: tuple[socket.socket, socket.socket, socket.socket, socket.socket] | None = None,
        **changed: object,
    ) -> None:
        if legs is None:
            legs = *tcp_pair(family), *tcp_pair(family)
        self.app, self.plain, self.peer, self.wire = legs
        self.up, self.down = Cipher(KEY_UP, counters[0]), Cipher(KEY_DOWN, counters[1])
        queued = wire_bytes(self.down) if wire_bytes else b""
        wire_buffer = ctypes.create_string_buffer(queued, max(1, len(queued)))
        plain_buffer = ctypes.create_string_buffer(plain_bytes, max(1, len(plain_bytes)))
        raw = args(
            self.plain.fileno(),
            send_counter=counters[0],
            receive_counter=counters[1],
            wire_bytes=ctypes.addressof(wire_buffer),
            wire_len=len(queued),
            plain_bytes=ctypes.addressof(plain_buffer),
            plain_len=len(plain_bytes),
            **changed,
        )
        for leg in (self.plain, self.wire):
            leg.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, low_water)
        with during or nullcontext():
            for leg in (self.plain, self.wire):
                with suppress(FileExistsError):  # a wire leg that was given back has it
                    ulp(leg)
            self.wire.setsockopt(abi.SOL_STCP, abi.RELAY, raw)
        if not keep_plain:
            self.plain.close()

    def status(self) -> abi.Status:
        return abi.Status.unpack(self.wire.getsockopt(abi.SOL_STCP, abi.STATUS, abi.STATUS_ARGS.size))

    def wait_ended(self, patience: float = PATIENCE) -> abi.Status:
        """Waits for EPOLLHUP on the wire, as an engine does."""
        poll = select.poll()
        poll.register(self.wire, 0)
        assert poll.poll(patience * 1000) == [(self.wire.fileno(), select.POLLHUP)]
        status = self.status()
        assert status.ended
        return status

    def close(self) -> None:
        for sock in (self.app, self.peer, self.wire, self.plain):
            sock.close()


def stat() -> dict[str, int]:
    """/proc/net/stcp_stat."""
    lines = Path("/proc/self/net/stcp_stat").read_text().splitlines()
    return {name: int(value) for name, value in (line.split() for line in lines)}


def eventually(condition: Callable[[], bool], what: str, patience: float = PATIENCE) -> None:
    deadline = time.monotonic() + patience
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.01)


def references() -> int:
    return int(Path("/sys/module/stcp/refcnt").read_text())


def noise(size: int) -> bytes:
    return os.urandom(size)
