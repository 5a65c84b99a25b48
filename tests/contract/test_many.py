"""Many connections: nothing leaks, nothing is counted twice, nobody starves."""

from __future__ import annotations

import contextlib
import os
import random
import resource
import socket
import time
from collections import Counter
from functools import partial

import pytest

from stcp_proxy.errors import Code
from stcp_proxy.protocol.wire import FrameType
from stcp_proxy.relay.engine import EndReason, Engine, RelayLimits

from .harness import MakePair, MakeRig, Rig, make_rig
from .legs import PATIENCE, Background, noise, quiet, read_exactly, read_to_end, reset, send_until_stalled


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def eventually_at_most(count: int) -> None:
    """Wait until the process has no more than `count` descriptors: closing runs on the engine's own thread."""
    deadline = time.monotonic() + PATIENCE
    while descriptors() > count:
        assert time.monotonic() < deadline, f"{descriptors()} descriptors where {count} were before"
        time.sleep(0.005)


# -- ends: each is called with a rig on which bytes have passed, and leaves it to end on its own ---------------------------


def end_cleanly(r: Rig) -> None:
    r.finish()


def end_by_the_peer(r: Rig) -> None:
    r.peer.send(FrameType.RESET, b"\x00\x08")


def end_by_the_application(r: Rig) -> None:
    reset(r.app)


def end_by_a_cut(r: Rig) -> None:
    r.peer.sock.sendall(r.peer.sealer.seal(FrameType.DATA, b"cut")[: random.Random(r.relay.counts()[0]).randint(1, 22)])
    r.peer.sock.close()


def end_by_a_broken_wire(r: Rig) -> None:
    reset(r.peer.sock)


def end_by_a_bad_frame(r: Rig) -> None:
    r.peer.sock.sendall(bytes(20))


def end_by_abort(r: Rig) -> None:
    r.relay.abort(Code.SHUTTING_DOWN, "bye")


def end_after_half_close(r: Rig) -> None:
    r.app.shutdown(socket.SHUT_WR)
    r.peer.expect(FrameType.FIN)
    r.peer.sock.close()


ENDS = {
    end_cleanly: EndReason.FINISHED,
    end_by_the_peer: EndReason.PEER_RESET,
    end_by_the_application: EndReason.PLAIN_RESET,
    end_by_a_cut: EndReason.TRUNCATED,
    end_by_a_broken_wire: EndReason.TRUNCATED,
    end_by_a_bad_frame: EndReason.BAD_FRAME,
    end_by_abort: EndReason.ABORTED,
    end_after_half_close: EndReason.TRUNCATED,
}


def test_no_descriptor_is_left_after_200_connections_with_random_ends(engine: Engine) -> None:
    make_and_finish(engine)
    before = descriptors()
    rng = random.Random(7)
    expected: Counter[EndReason] = Counter()
    rigs: list[Rig] = []
    for _ in range(200):
        r = make_rig(engine)
        r.check_alive()
        end = rng.choice(list(ENDS))
        end(r)
        expected[ENDS[end]] += 1
        rigs.append(r)
    for r in rigs:
        r.close()
    assert Counter(r.end.wait().reason for r in rigs) == expected
    assert all((r.end.wait().bytes_to_wire, r.end.wait().bytes_to_plain) == (4, 4) for r in rigs)
    eventually_at_most(before)


def test_no_descriptor_is_left_after_resets_in_the_middle_of_transfers(engines: tuple[Engine, Engine], pair: MakePair) -> None:
    before = descriptors()
    rng = random.Random(8)
    for _ in range(60):
        p = pair()
        for app in p.apps:
            app.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                while app.send(noise(50_000)) > 0 and rng.random() < 0.7:
                    pass
        reset(p.apps[rng.randrange(2)])
        p.close()
        for end in p.ends:
            assert end.wait().reason in (EndReason.PLAIN_RESET, EndReason.PEER_RESET, EndReason.TRUNCATED)
    eventually_at_most(before)


def test_close_gives_up_all_resources(engine: Engine) -> None:
    fresh = type(engine)()
    before = descriptors()
    fresh.start()
    rigs = [make_rig(fresh) for _ in range(5)]
    for r in rigs:
        r.check_alive()
    fresh.close()
    for r in rigs:
        r.close()
        r.end.wait()
    eventually_at_most(before)


def make_and_finish(engine: Engine) -> None:
    r = make_rig(engine)
    r.check_alive()
    r.finish()
    r.close()


def test_500_connections_at_once(rig: MakeRig) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = 500 * 4 + 200
    if soft < needed:
        if hard != resource.RLIM_INFINITY and hard < needed:
            pytest.skip(f"needs {needed} descriptors, the limit is {hard}")
        resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))
    rigs = [rig() for _ in range(500)]
    for i, r in enumerate(rigs):
        r.app.sendall(noise(100, i))
        r.peer.send_data(noise(50, -i))
    for i, r in enumerate(rigs):
        assert r.peer.read_data(100) == noise(100, i)
        assert read_exactly(r.app, 50) == noise(50, -i)
    for r in rigs:
        r.app.shutdown(socket.SHUT_WR)
        r.peer.send_fin()
    for r in rigs:
        assert read_to_end(r.app) == (b"", "eof")
        assert r.peer.read_to_end() == ([(FrameType.FIN, b"")], "eof")
        end = r.end.wait()
        assert (end.reason, end.bytes_to_wire, end.bytes_to_plain) == (EndReason.FINISHED, 100, 50)


def test_connections_at_rest_cost_no_time(rig: MakeRig) -> None:
    """In every state in which nothing can move: an engine that is woken by what it does not handle shows here."""
    rigs = [rig(buffers=1 << 16, limits=RelayLimits(linger=60.0)) for _ in range(8)]
    idle, app_ended, peer_ended, peer_shut, app_stands, peer_stands, both_stand, lingering = rigs
    idle.check_alive()
    app_ended.app.shutdown(socket.SHUT_WR)
    app_ended.peer.expect(FrameType.FIN)
    for r in (peer_ended, peer_shut):
        r.peer.send_fin()
        assert read_to_end(r.app) == (b"", "eof")
    peer_shut.peer.sock.shutdown(socket.SHUT_WR)
    for r in (app_stands, both_stand):
        send_until_stalled(r.peer.sock, partial(r.peer.sealer.seal, FrameType.DATA, noise(20_000)), limit=1 << 24)
    for r in (peer_stands, both_stand):
        send_until_stalled(r.app, partial(noise, 20_000), limit=1 << 24)
    lingering.relay.abort(Code.SHUTTING_DOWN, "bye")
    lingering.peer.expect_reset(Code.SHUTTING_DOWN)
    before = time.process_time()
    assert quiet(idle.app, 0.4)
    spent = time.process_time() - before
    assert spent < 0.1, f"{spent:.2f} s of processor time in 0.4 s"


@pytest.mark.slow
def test_a_bulk_connection_does_not_starve_a_small_one(rig: MakeRig) -> None:
    """A bound that only a starved connection misses, under sanitizers too: 50 round trips in 20 s beside four bulk streams."""
    bulk = [rig() for _ in range(4)]
    small = rig()
    stop = False

    def flood(r: Rig) -> None:
        block = noise(200_000)
        while not stop:
            r.app.sendall(block)
        r.app.shutdown(socket.SHUT_WR)

    def drain(r: Rig) -> None:
        while isinstance(frame := r.peer.read_frame(), tuple) and frame[0] is not FrameType.FIN:
            pass

    tasks = [Background(partial(work, r)) for r in bulk for work in (flood, drain)]
    since = time.monotonic()
    for _ in range(50):
        small.check_alive()
    took = time.monotonic() - since
    stop = True
    for task in tasks:
        task.join()
    assert took < 20, f"50 round trips took {took:.1f} s"
