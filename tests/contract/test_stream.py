"""Data both ways: every way of cutting it, on the wire and at the application."""

from __future__ import annotations

import socket
from functools import partial

import pytest

from stcp_proxy.protocol.wire import FRAME_OVERHEAD, HEADER_LEN, MAX_PLAINTEXT, REKEY_INTERVAL, TAG_LEN, FrameType
from stcp_proxy.relay.engine import EndReason, Engine

from .harness import MakePair, MakeRig, seal_all
from .legs import Background, digest, noise, quiet, read_exactly, read_to_end, send_chunks

FAMILIES = pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6], ids=["ipv4", "ipv6"])


def test_the_relay_names_its_engine(rig: MakeRig, engine: Engine) -> None:
    assert rig().relay.engine == engine.name


def test_a_write_of_the_application_is_one_frame_on_the_wire(rig: MakeRig) -> None:
    r = rig()
    r.app.sendall(b"hello")
    raw = read_exactly(r.peer.sock, FRAME_OVERHEAD + 5)
    assert raw[:HEADER_LEN] == bytes([0, 0, 0, 5 + TAG_LEN])
    assert r.peer.opener.open(raw) == (len(raw), FrameType.DATA, b"hello")
    assert quiet(r.peer.sock), "an engine sends nothing of its own accord"


def test_nothing_moves_before_anybody_speaks(rig: MakeRig) -> None:
    r = rig()
    assert quiet(r.app)
    assert quiet(r.peer.sock, 0)
    assert r.relay.counts() == (0, 0)
    r.check_alive()
    r.wait_counts(4, 4)


def test_counts_at_the_end(rig: MakeRig) -> None:
    r = rig()
    r.app.sendall(noise(70_000))
    assert r.peer.read_data(70_000) == noise(70_000)
    r.peer.send_data(b"abc")
    assert read_exactly(r.app, 3) == b"abc"
    end = r.finish()
    assert (end.reason, end.bytes_to_wire, end.bytes_to_plain, end.code) == (EndReason.FINISHED, 70_000, 3, None)
    assert r.relay.counts() == (70_000, 3)


@FAMILIES
def test_random_chunks_both_ways_at_once(rig: MakeRig, family: socket.AddressFamily) -> None:
    r = rig(family=family)
    forth, back = noise(3_000_000, 1), noise(3_000_000, 2)
    sealed = seal_all(r.peer.sealer, back, 7_777) + r.peer.sealer.seal(FrameType.FIN)
    writers = [
        Background(lambda: send_chunks(r.app, forth, end=True)),
        # What the peer sends is cut at random places of the ciphertext, so frames arrive in pieces and several at once.
        Background(lambda: send_chunks(r.peer.sock, sealed)),
    ]
    read: list[bytes] = []
    reader = Background(lambda: read.append(r.peer.read_to_fin()))
    got, ending = read_to_end(r.app)
    for task in (*writers, reader):
        task.join()
    assert ending == "eof"
    assert digest(got) == digest(back)
    assert digest(read[0]) == digest(forth)
    end = r.end.wait()
    assert (end.reason, end.bytes_to_wire, end.bytes_to_plain) == (EndReason.FINISHED, len(forth), len(back))


def read_into(got: dict[int, tuple[bytes, str]], i: int, sock: socket.socket) -> None:
    got[i] = read_to_end(sock)


@FAMILIES
def test_random_chunks_through_two_engines(pair: MakePair, family: socket.AddressFamily) -> None:
    p = pair(family=family, counters=(REKEY_INTERVAL - 10, REKEY_INTERVAL - 20))
    data = noise(4_000_000, 1), noise(4_000_000, 2)
    tasks = [Background(partial(send_chunks, p.apps[i], data[i], i, end=True)) for i in (0, 1)]
    got: dict[int, tuple[bytes, str]] = {}
    tasks += [Background(partial(read_into, got, i, p.apps[i])) for i in (0, 1)]
    for task in tasks:
        task.join()
    assert {i: (digest(got[i][0]), got[i][1]) for i in got} == {0: (digest(data[1]), "eof"), 1: (digest(data[0]), "eof")}
    for end in p.ends:
        assert (end.wait().reason, end.wait().bytes_to_wire, end.wait().bytes_to_plain) == (
            EndReason.FINISHED,
            4_000_000,
            4_000_000,
        )


def test_one_byte_at_a_time_from_the_application(rig: MakeRig) -> None:
    r = rig()
    for i in range(300):
        r.app.sendall(bytes([i % 256]))
        assert r.peer.read_frame() == (FrameType.DATA, bytes([i % 256]))


def test_one_byte_at_a_time_from_the_wire(rig: MakeRig) -> None:
    r = rig()
    raw = b"".join(r.peer.sealer.seal(FrameType.DATA, bytes([i])) for i in range(40)) + r.peer.sealer.seal(FrameType.FIN)
    for i in range(len(raw)):
        r.peer.sock.sendall(raw[i : i + 1])
    assert read_to_end(r.app) == (bytes(range(40)), "eof")


def test_a_frame_cut_at_each_byte(rig: MakeRig) -> None:
    r = rig()
    for cut in range(1, FRAME_OVERHEAD + 5):
        raw = r.peer.sealer.seal(FrameType.DATA, b"%5d" % cut)
        r.peer.sock.sendall(raw[:cut])
        # The engine takes the first part by itself: an exchange the other way proves that it has been running since.
        r.app.sendall(b"?")
        assert r.peer.read_data(1) == b"?"
        assert quiet(r.app, 0), "a part of a frame must not reach the application"
        r.peer.sock.sendall(raw[cut:])
        assert read_exactly(r.app, 5) == b"%5d" % cut


def test_a_frame_and_a_piece_of_the_next_at_each_byte(rig: MakeRig) -> None:
    r = rig()
    rest = b""
    for cut in range(1, FRAME_OVERHEAD + 5):
        raw = r.peer.sealer.seal(FrameType.DATA, b"%5d" % cut)
        r.peer.sock.sendall(rest + raw[:cut])
        rest = raw[cut:]
        if cut > 1:
            assert read_exactly(r.app, 5) == b"%5d" % (cut - 1)
        assert quiet(r.app, 0)


def test_several_frames_in_one_segment(rig: MakeRig) -> None:
    r = rig()
    parts = [noise(size, size) for size in (1, 100, 0, 1000, 16, 17, 15, 0, 2)]
    r.peer.sock.sendall(b"".join(r.peer.sealer.seal(FrameType.DATA, part) for part in parts))
    whole = b"".join(parts)
    assert read_exactly(r.app, len(whole)) == whole


def test_empty_data_is_accepted_and_is_not_an_end(rig: MakeRig) -> None:
    r = rig()
    for _ in range(3):
        r.peer.send_data(b"")
    r.check_alive()
    r.peer.sock.sendall(b"".join(r.peer.sealer.seal(FrameType.DATA) for _ in range(2_000)))
    r.check_alive()
    r.wait_counts(8, 8)


@pytest.mark.parametrize("size", [MAX_PLAINTEXT - 1, MAX_PLAINTEXT, 3 * MAX_PLAINTEXT])
def test_the_largest_frames(rig: MakeRig, size: int) -> None:
    r = rig()
    data = noise(size)
    sealed = seal_all(r.peer.sealer, data)
    writer = Background(lambda: r.peer.sock.sendall(sealed))
    assert digest(read_exactly(r.app, size)) == digest(data)
    writer.join()
    writer = Background(lambda: r.app.sendall(data))
    assert digest(r.peer.read_data(size)) == digest(data)
    writer.join()
    r.finish()


def test_thousands_of_tiny_frames_at_once(rig: MakeRig) -> None:
    """More frames than any buffer of an engine can have room for, most of them 21 bytes for one byte of data."""
    r = rig()
    data = noise(30_000)
    # Before the clock runs: an emulated processor takes many seconds for it.
    sealed = seal_all(r.peer.sealer, data, 1)
    writer = Background(lambda: r.peer.sock.sendall(sealed))
    assert digest(read_exactly(r.app, len(data))) == digest(data)
    writer.join()
