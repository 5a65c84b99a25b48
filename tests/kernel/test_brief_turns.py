"""Turns in a softirq: where they are had, where not, and that nobody's bytes change by them."""

from __future__ import annotations

import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from .peer import DATA, INTERVAL, Relay, eventually, noise, read_exactly, references, stat, tcp_pair
from .test_sharing import cgroup

LITTLE, MUCH = 300, 20_000
"""Text of a frame that a tasklet serves, and of one that it leaves to a carrier."""


def round_trip(r: Relay, text: bytes) -> None:
    r.app.sendall(text)
    assert r.read_data(len(text)) == text
    r.send(DATA, text)
    assert read_exactly(r.app, len(text)) == text


def brief_turns(r: Relay, size: int, count: int) -> int:
    """How many brief turns `count` round trips have."""
    before = stat()["BriefTurns"]
    for _ in range(count):
        round_trip(r, noise(size))
    return stat()["BriefTurns"] - before


def test_few_bytes_have_brief_turns_and_many_have_none() -> None:
    r = Relay()
    round_trip(r, b"the first frame of each direction is a carrier's")
    assert brief_turns(r, LITTLE, 50) >= 90
    assert brief_turns(r, MUCH, 20) == 0
    assert r.status().receive_counter == 71
    r.close()


@pytest.mark.parametrize("before", [3, 8, 9, 40])
def test_the_next_key_is_not_for_a_softirq(before: int) -> None:
    r = Relay(counters=(INTERVAL - before, INTERVAL - before))
    for _ in range(before + 20):
        round_trip(r, noise(LITTLE))
    assert r.status().send_counter == INTERVAL + 20
    assert brief_turns(r, LITTLE, 20) >= 30
    r.close()


def test_the_memory_of_a_brief_turn_is_the_owners() -> None:
    """A page for the piece of a frame in each relay, though another task is interrupted for it."""
    count = 300

    def charged() -> int:
        lines = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
        return int(lines["kernel"])

    with cgroup("stcp-brief", 256 << 20) as group:
        relays = [Relay() for _ in range(count)]
        for r in relays:
            round_trip(r, b"first")
        before, turns = charged(), stat()["BriefTurns"]
        for r in relays:
            r.peer.sendall(b"\x00\x00\xff\xfc" + bytes(200))
        eventually(lambda: stat()["BriefTurns"] - turns >= 0.9 * count, "turns are not brief")
        eventually(lambda: charged() - before >= 0.8 * count * 4096, "the owner does not pay for the pages")
        for r in relays:
            r.close()
    eventually(lambda: references() == 0, "a leg is left")


def test_senders_that_a_turn_interrupts_keep_their_bytes() -> None:
    """Both put small sends into fragments of pages; those of the interrupted task are not the turn's to use."""
    stop = threading.Event()

    def exchange() -> int:
        near, far = tcp_pair(socket.AF_INET)
        count = 0
        with near, far:
            while not stop.is_set():
                text = noise(700)
                near.sendall(text)
                assert read_exactly(far, len(text)) == text
                count += 1
        return count

    def relay() -> int:
        r = Relay()
        count = 0
        while not stop.is_set():
            round_trip(r, noise(LITTLE))
            count += 1
        r.close()
        return count

    before = stat()["BriefTurns"]
    with ThreadPoolExecutor() as threads:
        running = [threads.submit(what) for what in (exchange, relay) * 3]
        time.sleep(5)
        stop.set()
        assert all(each.result() > 10 for each in running)
    assert stat()["BriefTurns"] - before > 100
