"""Memory: nothing at rest, a bounded amount under load, and no key left behind."""

from __future__ import annotations

import mmap
import secrets
import select
import socket
import struct
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from stcp_proxy.relay import kernel_abi as abi

from .peer import DATA, FIN, Relay, args, eventually, free_memory, read_exactly, references, tcp_pair, ulp

FRAME = 65536
PAGE = mmap.PAGESIZE
CHUNK = bytes(50_000)


def fill(sock: socket.socket, make: object) -> int:
    """Sends until nothing moves for a while; returns what was taken."""
    taken = 0
    while select.select([], [sock], [], 0.5)[1]:
        chunk = make()  # type: ignore[operator]
        while chunk and select.select([], [sock], [], 0.5)[1]:
            n = sock.send(chunk, socket.MSG_DONTWAIT)
            taken += n
            chunk = chunk[n:]
    return taken


def socket_memory(sock: socket.socket) -> int:
    """Bytes that a socket holds in both queues, by SO_MEMINFO."""
    rmem, _, _, _, forward, wmem_queued, *_ = struct.unpack("9I", sock.getsockopt(socket.SOL_SOCKET, 55, 36))
    return rmem + wmem_queued + forward


def test_a_relay_at_rest_holds_no_buffer() -> None:
    r = Relay()
    assert r.status().buffered == 0
    r.check_alive()
    eventually(lambda: r.status().buffered == 0, "a buffer is kept at rest")
    r.close()


def test_relays_at_rest_keep_no_fragments() -> None:
    """TCP collects small sends in a fragment of 32 KiB. One for each leg of 200 relays would be 13 MB, charged to no cgroup."""
    relays = [Relay() for _ in range(200)]
    relays[0].check_alive()
    free = free_memory()
    for r in relays:
        r.check_alive()
    taken = free - free_memory()
    print(f"{taken} bytes taken")
    assert taken < 4_000_000
    for r in relays:
        r.close()
    eventually(lambda: references() == 0, "a relay is left")


def test_a_frame_that_is_not_complete_holds_one_page() -> None:
    r = Relay()
    frame = r.down.seal(DATA, bytes(1000))
    r.peer.sendall(frame[:500])
    eventually(lambda: r.status().buffered == PAGE, "the piece is not there")
    r.peer.sendall(frame[500:])
    read_exactly(r.app, 1000)
    eventually(lambda: r.status().buffered == 0, "the buffer is kept")
    r.close()


def test_the_length_in_a_header_allocates_nothing_more() -> None:
    r = Relay()
    r.peer.sendall(b"\x00\x00\xff\xfc")
    eventually(lambda: r.status().buffered == PAGE, "the header is not there")
    time.sleep(0.2)
    assert r.status().buffered == PAGE
    r.close()


@pytest.mark.parametrize("text", [b"", b"x"], ids=["empty", "one byte"])
def test_small_frames_hold_one_page(text: bytes) -> None:
    """The application does not read, and no frame waits in memory of its own."""
    r = Relay()
    r.peer.sendall(b"".join(r.down.seal(DATA, text) for _ in range(3000)) + r.down.seal(DATA, b"end"))
    eventually(lambda: r.status().bytes_to_plain == 3000 * len(text) + 3, "they do not come")
    assert r.status().buffered <= PAGE
    assert read_exactly(r.app, 3000 * len(text) + 3) == 3000 * text + b"end"
    r.close()


def test_a_peer_that_stops_reading_costs_a_bounded_amount() -> None:
    """One frame of buffer in the module; what TCP holds is bounded by the relay's own limits, far below tcp_rmem and tcp_wmem."""
    r = Relay(keep_plain=True)
    fill(r.app, lambda: CHUNK)
    assert 0 < r.status().buffered <= FRAME
    held = socket_memory(r.plain) + socket_memory(r.wire)
    print(f"held for a stuck peer: {held} bytes in sockets")
    assert held < LIMIT
    taken = r.status().bytes_to_wire
    time.sleep(0.5)
    assert r.status().bytes_to_wire == taken
    r.close()


WINDOW = 2 << 20


@pytest.fixture
def small_windows() -> Iterator[None]:
    """The wire's window is TCP's own, up to tcp_rmem. How far it has grown before the application stops is chance; 5.5 MB were
    seen once. Where tcp_rmem is small, all that is held must be."""
    path = Path("/proc/sys/net/ipv4/tcp_rmem")
    before = path.read_text()
    path.write_text(f"4096 131072 {WINDOW}")
    try:
        yield
    finally:
        path.write_text(before)


@pytest.mark.usefixtures("small_windows")
def test_an_application_that_stops_reading_costs_a_bounded_amount() -> None:
    r = Relay(keep_plain=True)
    fill(r.peer, lambda: r.down.seal(DATA, CHUNK))
    assert 0 < r.status().buffered <= FRAME
    held = socket_memory(r.plain) + socket_memory(r.wire)
    print(f"held for a stuck application: {held} bytes in sockets")
    assert held < LIMIT
    r.close()


LIMIT = 4 << 20


def test_back_pressure_loses_nothing() -> None:
    r = Relay()
    taken = fill(r.app, lambda: CHUNK)
    got = 0
    while got < taken:
        kind, text = r.read_frame()
        assert kind == DATA
        got += len(text)
    assert got == taken
    eventually(lambda: r.status().buffered == 0, "the buffer is kept")
    r.check_alive()
    r.close()


# -- keys ----------------------------------------------------------------------------------------------------------------


MASK = 0x5A


class HiddenKey:
    """A key that stands nowhere in this process in the clear but for the moment of the call, in memory that is then wiped."""

    def __init__(self) -> None:
        self.masked = bytes(byte ^ MASK for byte in secrets.token_bytes(32))

    def write_to(self, raw: bytearray, at: int) -> None:
        for i, byte in enumerate(self.masked):
            raw[at + i] = byte ^ MASK

    def found_in(self, window: memoryview) -> int:
        """How often the key stands in `window`. Only four of its bytes are ever put together here."""
        data = window.obj
        head = bytes(byte ^ MASK for byte in self.masked[:4])
        count, at = 0, 0
        while (at := data.find(head, at, len(window))) >= 0:  # type: ignore[union-attr]
            if all(window[at + i] ^ MASK == byte for i, byte in enumerate(self.masked[: min(32, len(window) - at)])):
                count += 1
            at += 1
        return count


def ram() -> Iterator[tuple[int, int]]:
    """The direct map in /proc/kcore: (offset in the file, length) for each piece of real memory."""
    real = 0
    for line in Path("/proc/iomem").read_text().splitlines():
        if line.endswith(": System RAM") and not line.startswith(" "):
            first, last = (int(part, 16) for part in line.split(" : ")[0].split("-"))
            real += last + 1 - first
    with open("/proc/kcore", "rb") as core:
        header = core.read(64)
        count = struct.unpack_from("<H", header, 56)[0]
        core.seek(64)
        for _ in range(count):
            kind, _, offset, virtual, physical, size, *_ = struct.unpack("<IIQQQQQQ", core.read(56))
            direct = physical not in (0, (1 << 64) - 1) or virtual >> 44 == 0xFFFF8
            if kind == 1 and direct and size <= real:
                yield offset, size


def search(keys: list[HiddenKey]) -> int:
    """Occurrences of any of `keys` in all of the machine's memory."""
    size = 1 << 20
    block = mmap.mmap(-1, size)
    found = 0
    with open("/proc/kcore", "rb", buffering=0) as core:
        for offset, length in ram():
            for at in range(0, length, size - 32):
                core.seek(offset + at)
                try:
                    n = core.readinto(block)
                except OSError:
                    continue
                with memoryview(block) as window:
                    found += sum(key.found_in(window[:n]) for key in keys)
        core.seek(0)
        core.readinto(block)
    block[:] = bytes(size)
    block.close()
    return found


class Keyed:
    """A relay with keys of its own, which end in one of the ways there are."""

    def __init__(self, way: str) -> None:
        self.way = way
        self.keys = [HiddenKey(), HiddenKey()]
        self.app, plain = tcp_pair()
        self.peer, self.wire = tcp_pair()
        ulp(plain)
        ulp(self.wire)
        counter = (1 << 20) if way == "rekeyed" else 0
        raw = args(plain.fileno(), send_key=bytes(32), receive_key=bytes(32), send_counter=counter)
        for key, at in zip(self.keys, (16, 56), strict=True):
            key.write_to(raw, at)
        self.wire.setsockopt(abi.SOL_STCP, abi.RELAY, raw)
        raw[:] = bytes(len(raw))
        plain.close()

    def end(self) -> None:
        if self.way == "owner closes":
            self.wire.close()
            return
        if self.way == "rekeyed":
            self.app.sendall(b"x")
            assert self.peer.recv(100)
            self.keys.pop()  # the other direction's is still in use
            return
        if self.way == "truncated":
            self.peer.close()
        elif self.way == "bad frame":
            self.peer.sendall(b"\xff" * 4)
        else:
            self.wire.setsockopt(abi.SOL_STCP, abi.ABORT, abi.ABORT_ARGS.pack(abi.INTERFACE, 7, 0, b""))
            self.peer.close()
        poll = select.poll()
        poll.register(self.wire, 0)
        assert poll.poll(5000)

    def close(self) -> None:
        for sock in (self.app, self.peer, self.wire):
            sock.close()


@pytest.mark.timeout(600)  # with the checkers a search of 2 GiB takes a minute or two
def test_keys_are_gone_when_the_relay_is() -> None:
    """The whole memory of the machine is searched: the keys stand in it while the relay lives, and nowhere afterwards."""
    relays = [Keyed(way) for way in ("owner closes", "rekeyed", "truncated", "bad frame", "aborted")]
    assert search([key for r in relays for key in r.keys]) >= 10, "the search cannot find what is there"
    for r in relays:
        r.end()
    assert search([key for r in relays for key in r.keys]) == 0
    for r in relays:
        r.close()


def test_fin_frees_what_was_queued() -> None:
    r = Relay(wire_bytes=lambda cipher: cipher.seal(DATA, bytes(40_000)) + cipher.seal(FIN))
    read_exactly(r.app, 40_000)
    eventually(lambda: r.status().buffered == 0, "bytes of the handover are kept")
    r.close()
