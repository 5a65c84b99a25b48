"""What stands on the wire, byte for byte, against an implementation that shares nothing with the module."""

from __future__ import annotations

import contextlib
import random
import socket
import threading
from collections.abc import Callable

import pytest

from stcp_proxy.relay import kernel_abi as abi

from .peer import DATA, FIN, INTERVAL, MAX_TEXT, RESET, Cipher, Relay, eventually, how_it_ends, noise, read_exactly, tcp_pair

FAMILIES = pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6], ids=["ipv4", "ipv6"])


@FAMILIES
@pytest.mark.parametrize("size", [1, 15, 16, 17, 4075, 4076, 4077, 65515, 65516])
def test_sizes_both_ways(family: socket.AddressFamily, size: int) -> None:
    r = Relay(family=family)
    data = noise(size)
    r.app.sendall(data)
    assert r.read_data(size) == data
    r.send(DATA, data)
    assert read_exactly(r.app, size) == data
    assert r.status().receive_counter == 1
    r.close()


@pytest.mark.parametrize("counter", [1, INTERVAL - 1, INTERVAL, INTERVAL + 1, 7 * INTERVAL - 1, 7 * INTERVAL, (1 << 63) - 1])
def test_counters_and_the_rekey(counter: int) -> None:
    r = Relay(counters=(counter, counter))
    for i in range(3):
        r.app.sendall(bytes([i]))
        assert r.read_frame() == (DATA, bytes([i]))
        r.send(DATA, bytes([i]))
        assert read_exactly(r.app, 1) == bytes([i])
    status = r.status()
    assert (status.send_counter, status.receive_counter) == (counter + 3, counter + 3)
    r.close()


def test_the_last_counter_ends_the_direction() -> None:
    r = Relay(counters=((1 << 64) - 2, 0))
    r.app.sendall(b"last")
    assert r.read_data(4) == b"last"
    r.app.sendall(b"more")
    assert r.wait_ended().end is abi.End.BAD_FRAME
    assert how_it_ends(r.peer) == (0, "reset")
    assert how_it_ends(r.app) == (0, "reset")
    r.close()


def test_the_last_counter_of_the_peer() -> None:
    r = Relay(counters=(0, (1 << 64) - 2))
    r.send(DATA, b"last")
    assert read_exactly(r.app, 4) == b"last"
    r.peer.sendall(bytes([0, 0, 0, 16]) + bytes(16))
    assert r.wait_ended().end is abi.End.BAD_FRAME
    r.close()


@pytest.mark.parametrize("size", [1, 5000, abi.MAX_QUEUED])
def test_bytes_read_before_the_handover(size: int) -> None:
    early = noise(size)
    frames = size // 65536  # what fits MAX_QUEUED with its overhead

    def seal(cipher: Cipher) -> bytes:
        if frames:
            return b"".join(cipher.seal(DATA, early[i * MAX_TEXT : (i + 1) * MAX_TEXT]) for i in range(frames))
        return cipher.seal(DATA, early)

    expected = early[: frames * MAX_TEXT] if frames else early
    r = Relay(wire_bytes=seal, plain_bytes=early)
    assert read_exactly(r.app, len(expected)) == expected
    assert r.read_data(size) == early
    r.check_alive()
    eventually(lambda: r.status().buffered == 0, "a buffer is kept at rest")
    r.close()


def test_an_owner_that_wanted_to_be_woken_for_many_bytes_only() -> None:
    r = Relay(low_water=100_000)
    r.check_alive()
    r.close()


def test_a_piece_of_a_frame_before_the_handover() -> None:
    rest: list[bytes] = []

    def seal(cipher: Cipher) -> bytes:
        frame = cipher.seal(DATA, b"in two pieces")
        rest.append(frame[7:])
        return frame[:7]

    r = Relay(wire_bytes=seal)
    r.peer.sendall(rest[0])
    assert read_exactly(r.app, 13) == b"in two pieces"
    r.close()


def test_one_byte_at_a_time() -> None:
    r = Relay()
    raw = b"".join(r.down.seal(DATA, bytes([i])) for i in range(10)) + r.down.seal(FIN)
    for i in range(len(raw)):
        r.peer.sendall(raw[i : i + 1])
    assert read_exactly(r.app, 10) == bytes(range(10))
    assert how_it_ends(r.app) == (0, "eof")
    for i in range(50):
        r.app.sendall(bytes([i]))
    assert r.read_data(50) == bytes(range(50))
    r.close()


@FAMILIES
@pytest.mark.parametrize(("segment", "size"), [(0, 1_500_000), (88, 200_000)], ids=["usual segments", "very short ones"])
def test_random_chunks_both_ways(family: socket.AddressFamily, segment: int, size: int) -> None:
    """With segments of 88 bytes one frame is hundreds of them, while the peer's own segments arrive."""
    legs = (*tcp_pair(family), *tcp_pair(family, segment=segment))
    r = Relay(counters=(INTERVAL - 20, 3 * INTERVAL - 30), legs=legs)
    up, down = noise(size), noise(size)

    def pieces(data: bytes, seed: int, most: int) -> list[bytes]:
        rng, at, out = random.Random(seed), 0, []
        while at < len(data):
            size = rng.choice((1, rng.randint(1, 100), rng.randint(1, most)))
            out.append(data[at : at + size])
            at += size
        return out

    frames = b"".join(r.down.seal(DATA, piece) for piece in pieces(down, 1, MAX_TEXT)) + r.down.seal(FIN)

    def write_up() -> None:
        for piece in pieces(up, 2, 40_000):
            r.app.sendall(piece)
        r.app.shutdown(socket.SHUT_WR)

    def write_down() -> None:
        for piece in pieces(frames, 3, 50_000):
            r.peer.sendall(piece)

    threads = [threading.Thread(target=write) for write in (write_up, write_down)]
    got: list[bytes] = []
    threads.append(threading.Thread(target=lambda: got.append(r.read_data(len(up)))))
    for thread in threads:
        thread.start()
    assert read_exactly(r.app, len(down)) == down
    assert how_it_ends(r.app) == (0, "eof")
    for thread in threads:
        thread.join()
    assert got == [up]
    assert r.read_frame() == (FIN, b"")
    status = r.wait_ended()
    assert (status.end, status.bytes_to_wire, status.bytes_to_plain) == (abi.End.FINISHED, len(up), len(down))
    assert how_it_ends(r.peer) == (0, "eof")
    r.close()


def changed(at: int, value: int) -> Callable[[Cipher], bytes]:
    def make(cipher: Cipher) -> bytes:
        raw = bytearray(cipher.seal(DATA, b"some text"))
        raw[at] = value
        return bytes(raw)

    return make


def flipped(at: int) -> Callable[[Cipher], bytes]:
    def make(cipher: Cipher) -> bytes:
        raw = bytearray(cipher.seal(DATA, b"some text"))
        raw[at] ^= 1
        return bytes(raw)

    return make


def sealed(kind: int, text: bytes = b"") -> Callable[[Cipher], bytes]:
    return lambda cipher: cipher.seal(kind, text)


def skipped(cipher: Cipher) -> bytes:
    cipher.n += 1
    return cipher.seal(DATA, b"too late")


def twice(cipher: Cipher) -> bytes:
    frame = cipher.seal(DATA, b"")
    return frame + frame


MALFORMED = {
    **{f"type {kind}": sealed(kind) for kind in (3, 4, 5, 6, 127, 255)},
    "reserved byte": changed(1, 1),
    "reserved byte, high bit": changed(1, 0x80),
    "length 0": changed(3, 0),
    "length 15": changed(3, 15),
    "length 65533": lambda _: b"\x00\x00\xff\xfd",
    "length 65535": lambda _: b"\x00\x00\xff\xff",
    "length one less": changed(3, 24),
    "length one more, and another frame": lambda c: changed(3, 26)(c) + c.seal(DATA, b"x"),
    **{f"bit flipped at {at}": flipped(at) for at in (0, 4, 12, 13, 28)},
    "FIN with text": sealed(FIN, b"x"),
    "FIN of the largest length": lambda _: b"\x01\x00\xff\xfc",
    "RESET without code": sealed(RESET),
    "RESET of one byte": sealed(RESET, b"\x00"),
    "RESET too long": sealed(RESET, bytes(2 + 257)),
    "RESET not authentic": lambda c: bytes([2, 0, 0, 18]) + bytes(18),
    "FIN not authentic": lambda c: bytes([1, 0, 0, 16]) + bytes(16),
    "a number skipped": skipped,
    "a frame twice": twice,
    "DATA behind FIN": lambda c: c.seal(FIN) + c.seal(DATA, b"x"),
    "FIN behind FIN": lambda c: c.seal(FIN) + c.seal(FIN),
    "OPEN behind FIN": lambda c: c.seal(FIN) + c.seal(3),
    "another protocol": lambda _: b"GET / HTTP/1.1\r\n\r\n",
}


@pytest.mark.parametrize("name", MALFORMED)
@pytest.mark.parametrize("before", [0, 9], ids=["first", "behind a good one"])
def test_malformed_frames_reset_both_legs(name: str, before: int) -> None:
    r = Relay()
    good = r.down.seal(DATA, b"authentic") if before else b""
    r.peer.sendall(good + MALFORMED[name](r.down))
    status = r.wait_ended()
    assert status.end is abi.End.BAD_FRAME
    assert status.bytes_to_plain == before
    assert how_it_ends(r.peer)[1] == "reset"
    size, ending = how_it_ends(r.app)
    assert size in (0, before)
    # Behind FIN the application has its clean end already; it must see the reset all the same when it writes.
    assert ending == "reset" or "behind FIN" in name
    r.close()


def test_reset_from_the_peer() -> None:
    for text in (b"", b"why", b"x" * 256, b"\xff\xfe"):
        r = Relay()
        r.send(RESET, b"\x12\x34" + text)
        status = r.wait_ended()
        assert (status.end, status.code, status.text) == (abi.End.PEER_RESET, 0x1234, text)
        assert how_it_ends(r.app) == (0, "reset")
        r.close()


def test_reset_behind_fin() -> None:
    r = Relay()
    r.send(FIN)
    r.send(RESET, b"\x00\x08")
    assert r.wait_ended().end is abi.End.PEER_RESET
    r.close()


@pytest.mark.parametrize("cut", [0, 1, 3, 4, 5, 20, 28])
def test_truncation_resets_both_legs(cut: int) -> None:
    r = Relay()
    r.check_alive()
    r.peer.sendall(r.down.seal(DATA, b"some text")[:cut])
    r.peer.shutdown(socket.SHUT_WR)
    assert how_it_ends(r.app) == (0, "reset")
    assert how_it_ends(r.peer) == (0, "reset")
    assert r.wait_ended().end is abi.End.TRUNCATED
    r.close()


def test_a_fuzzer_ends_its_own_connection_only() -> None:
    rng = random.Random(42)
    bystander = Relay()
    ends = []
    for _ in range(150):
        r = Relay()
        raw = bytearray(b"".join(r.down.seal(rng.choice((DATA, DATA, FIN, RESET)), noise(rng.randint(0, 40))) for _ in range(5)))
        for _ in range(rng.randint(1, 4)):
            raw[rng.randrange(len(raw))] = rng.randrange(256)
        if rng.random() < 0.3:
            raw = bytearray(noise(len(raw)))
        r.peer.sendall(raw)
        with contextlib.suppress(OSError):  # it may be reset already
            r.peer.shutdown(socket.SHUT_WR)
        r.app.close()
        ends.append(r.wait_ended().end)
        r.close()
    assert set(ends) <= {abi.End.BAD_FRAME, abi.End.TRUNCATED, abi.End.PEER_RESET, abi.End.PLAIN_RESET}
    assert abi.End.BAD_FRAME in ends
    bystander.check_alive()
    bystander.close()
