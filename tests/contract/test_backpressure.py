"""When one leg would block, reading from the other stops: a slow reader costs a bounded amount of memory, and loses nothing."""

from __future__ import annotations

import itertools
import socket
import time

import pytest

from stcp_proxy.protocol.wire import FrameType
from stcp_proxy.relay.engine import EndReason

from .harness import MakePair, MakeRig, seal_all
from .legs import Background, digest, noise, read_exactly, read_to_end, send_and_end, send_until_stalled

BUFFERS = 1 << 16
BOUND = 3 << 20
"""Bytes that everything between two sockets with buffers of `BUFFERS` may hold: the kernel doubles each of them, and an engine
has its own on top. Without back-pressure, what is taken has no bound at all."""
CHUNK = 20_000


def test_an_application_that_does_not_read(rig: MakeRig) -> None:
    r = rig(buffers=BUFFERS)
    sent: list[bytes] = []

    def chunks() -> bytes:
        sent.append(noise(CHUNK, len(sent)))
        return r.peer.sealer.seal(FrameType.DATA, sent[-1])

    taken, rest = send_until_stalled(r.peer.sock, chunks, limit=BOUND)
    assert taken > 0
    counted = r.relay.counts()
    r.app.sendall(b"the other way is open")
    assert r.peer.read_data(21) == b"the other way is open"
    r.wait_counts(21, counted[1])  # nothing more is taken while the reader stands still
    writer = Background(lambda: r.peer.sock.sendall(rest + r.peer.sealer.seal(FrameType.FIN)))
    got, ending = read_to_end(r.app)
    writer.join()
    assert (digest(got), ending) == (digest(b"".join(sent)), "eof")
    r.app.shutdown(socket.SHUT_WR)
    r.peer.expect(FrameType.FIN)
    end = r.end.wait()
    assert (end.reason, end.bytes_to_plain) == (EndReason.FINISHED, len(got))


def test_a_peer_that_does_not_read(rig: MakeRig) -> None:
    r = rig(buffers=BUFFERS)
    sent: list[bytes] = []

    def chunks() -> bytes:
        sent.append(noise(CHUNK, len(sent)))
        return sent[-1]

    taken, rest = send_until_stalled(r.app, chunks, limit=BOUND)
    assert taken > 0
    counted = r.relay.counts()
    r.peer.send_data(b"the other way is open")
    assert read_exactly(r.app, 21) == b"the other way is open"
    r.wait_counts(counted[0], 21)  # nothing more is taken while the reader stands still
    writer = Background(lambda: send_and_end(r.app, rest))
    got = r.peer.read_to_fin()
    writer.join()
    assert digest(got) == digest(b"".join(sent))
    r.peer.send_fin()
    end = r.end.wait()
    assert (end.reason, end.bytes_to_wire) == (EndReason.FINISHED, len(got))


def test_both_stop_reading_and_resume(rig: MakeRig) -> None:
    r = rig(buffers=BUFFERS)
    out: list[bytes] = []
    back: list[bytes] = []

    def from_app() -> bytes:
        out.append(noise(CHUNK, len(out)))
        return out[-1]

    def from_peer() -> bytes:
        back.append(noise(CHUNK, 1000 + len(back)))
        return r.peer.sealer.seal(FrameType.DATA, back[-1])

    _, app_rest = send_until_stalled(r.app, from_app, limit=BOUND)
    _, peer_rest = send_until_stalled(r.peer.sock, from_peer, limit=BOUND)
    tasks = [
        Background(lambda: send_and_end(r.app, app_rest)),
        Background(lambda: r.peer.sock.sendall(peer_rest + r.peer.sealer.seal(FrameType.FIN))),
    ]
    got: list[bytes] = []
    tasks.append(Background(lambda: got.append(r.peer.read_to_fin())))
    read, ending = read_to_end(r.app)
    for task in tasks:
        task.join()
    assert (digest(read), ending) == (digest(b"".join(back)), "eof")
    assert digest(got[0]) == digest(b"".join(out))
    assert r.end.wait().reason is EndReason.FINISHED


def test_a_reader_that_takes_one_byte_at_a_time_out_of_a_full_pipe(rig: MakeRig) -> None:
    r = rig(buffers=4096)
    counter = itertools.count()
    sent: list[bytes] = []

    def chunks() -> bytes:
        sent.append(noise(5000, next(counter)))
        return r.peer.sealer.seal(FrameType.DATA, sent[-1])

    _, rest = send_until_stalled(r.peer.sock, chunks, limit=BOUND)
    writer = Background(lambda: r.peer.sock.sendall(rest + r.peer.sealer.seal(FrameType.FIN)))
    head = b"".join(r.app.recv(1) for _ in range(3000))
    got, ending = read_to_end(r.app)
    writer.join()
    assert (digest(head + got), ending) == (digest(b"".join(sent)), "eof")


def test_a_reader_that_stops_at_the_end_of_two_engines(pair: MakePair) -> None:
    p = pair(buffers=BUFFERS)
    sent: list[bytes] = []

    def chunks() -> bytes:
        sent.append(noise(CHUNK, len(sent)))
        return sent[-1]

    _, rest = send_until_stalled(p.apps[0], chunks, limit=BOUND)
    p.apps[1].sendall(b"open")
    assert read_exactly(p.apps[0], 4) == b"open"
    writer = Background(lambda: send_and_end(p.apps[0], rest))
    got, ending = read_to_end(p.apps[1])
    writer.join()
    assert (digest(got), ending) == (digest(b"".join(sent)), "eof")


def test_a_stalled_connection_does_not_hold_up_others(rig: MakeRig) -> None:
    stalled, other = rig(buffers=BUFFERS), rig()
    send_until_stalled(stalled.peer.sock, lambda: stalled.peer.sealer.seal(FrameType.DATA, noise(CHUNK)), limit=BOUND)
    send_until_stalled(stalled.app, lambda: noise(CHUNK), limit=BOUND)
    for _ in range(50):
        other.check_alive()


@pytest.mark.slow
def test_a_pause_is_not_a_death(rig: MakeRig) -> None:
    """A reader on either side that pauses for longer than TCP_USER_TIMEOUT keeps its connection: it answers window probes."""
    to_app, to_peer = rig(buffers=BUFFERS, user_timeout=3500), rig(buffers=BUFFERS, user_timeout=3500)
    blob = noise(2 << 20, 7)
    frames = seal_all(to_app.peer.sealer, blob) + to_app.peer.sealer.seal(FrameType.FIN)
    writers = [Background(lambda: to_app.peer.sock.sendall(frames)), Background(lambda: send_and_end(to_peer.app, blob))]
    time.sleep(6)
    assert digest(read_exactly(to_app.app, len(blob))) == digest(blob)
    assert digest(to_peer.peer.read_to_fin()) == digest(blob)
    for writer in writers:
        writer.join()


@pytest.mark.slow
def test_a_pause_of_both_sides_or_of_what_the_kernel_holds_is_not_a_death(rig: MakeRig) -> None:
    """The same where both readers pause at once, and where all that waits has fitted into the engine's send buffers."""
    both, held = rig(buffers=BUFFERS, user_timeout=8000), rig(user_timeout=8000)
    _, app_rest = send_until_stalled(both.app, lambda: noise(CHUNK), limit=1 << 24)
    send_until_stalled(both.peer.sock, lambda: both.peer.sealer.seal(FrameType.DATA, noise(CHUNK)), limit=1 << 24)
    blob = noise(CHUNK * 50, 8)
    for at in range(0, len(blob), CHUNK):
        held.peer.send_data(blob[at : at + CHUNK])
    held.wait_counts(0, len(blob))
    time.sleep(12)
    assert (both.end.ends, held.end.ends) == ([], [])
    assert digest(read_exactly(held.app, len(blob))) == digest(blob)
    writer = Background(lambda: send_and_end(both.app, app_rest))
    both.peer.read_to_fin()
    writer.join()
    assert len(read_exactly(both.app, CHUNK)) == CHUNK
