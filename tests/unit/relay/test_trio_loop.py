"""The pump driven in Trio's own thread: both make progress, and time passes for both."""

from __future__ import annotations

import contextlib
import os
import select
import socket
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
import trio
import trio.lowlevel
import trio.testing

from stcp_proxy.protocol.secret import Secret
from stcp_proxy.relay import trio_loop
from stcp_proxy.relay.engine import DirectionKey, EndReason, Handover, RelayEnd, RelayLimits
from stcp_proxy.relay.pump import PumpEngine

KEYS = Secret(bytes(range(32))), Secret(bytes(range(1, 33)))


class Looped:
    """Both sides of one connection inside one engine, in the running Trio."""

    def __init__(self, engine: PumpEngine, *, limits: RelayLimits | None = None) -> None:
        self.app, plain_a = socket.socketpair()
        wire_a, wire_b = socket.socketpair()
        plain_b, self.server = socket.socketpair()
        self.ends: list[RelayEnd] = []
        self.threads: set[int] = set()
        for sock in (plain_a, wire_a, wire_b, plain_b, self.app, self.server):
            sock.setblocking(False)
        up, down = DirectionKey(KEYS[0], 0), DirectionKey(KEYS[1], 0)
        limits = limits or RelayLimits()
        self.relays = (
            engine.adopt(Handover(plain_a, wire_a, up, down, limits=limits), self._ended),
            engine.adopt(Handover(plain_b, wire_b, down, up, limits=limits), self._ended),
        )

    def _ended(self, end: RelayEnd) -> None:
        self.ends.append(end)
        self.threads.add(threading.get_ident())

    async def echo(self, words: bytes) -> None:
        self.app.send(words)
        await trio.lowlevel.wait_readable(self.server)
        assert self.server.recv(len(words) + 1) == words

    async def both_ended(self) -> None:
        with trio.fail_after(5):
            while len(self.ends) < 2:  # noqa: ASYNC110  what this looks for happens outside of Trio
                await trio.sleep(0.01)

    def close(self) -> None:
        self.app.close()
        self.server.close()


async def looped(body: Callable[[PumpEngine], Any]) -> None:
    engine = PumpEngine()
    trio_loop.start(engine)
    try:
        await body(engine)
    finally:
        engine.close()
        await trio.lowlevel.checkpoint()  # the driver meets a closed engine


def run(body: Callable[[PumpEngine], Any]) -> None:
    """On a real clock, whatever the suite's default is."""
    trio.run(looped, body)


def test_it_relays_and_no_thread_is_started() -> None:
    async def body(engine: PumpEngine) -> None:
        before = threading.active_count()
        pair = Looped(engine)
        for count in range(50):
            await pair.echo(b"%d" % count)
        assert threading.active_count() == before
        pair.close()
        await pair.both_ended()
        assert pair.threads == {threading.get_ident()}

    run(body)


def test_deadlines_of_trio_pass_while_nothing_happens() -> None:
    async def body(engine: PumpEngine) -> None:
        start = time.monotonic()
        await trio.sleep(0.05)
        assert 0.05 <= time.monotonic() - start < 5

    run(body)


def test_deadlines_of_trio_pass_while_the_pump_is_busy() -> None:
    async def body(engine: PumpEngine) -> None:
        pair = Looped(engine)
        stop = threading.Event()

        def flood() -> None:
            while not stop.is_set():
                with contextlib.suppress(BlockingIOError):
                    pair.app.send(bytes(60_000))
                with contextlib.suppress(BlockingIOError):
                    pair.server.recv(1 << 20)

        thread = threading.Thread(target=flood)
        thread.start()
        try:
            for _ in range(5):
                with trio.fail_after(5):
                    await trio.sleep(0.01)
            assert pair.relays[0].counts()[0] > 0
        finally:
            stop.set()
            thread.join()
            pair.close()

    run(body)


def test_deadlines_of_the_pump_pass_while_trio_sleeps() -> None:
    async def body(engine: PumpEngine) -> None:
        pair = Looped(engine, limits=RelayLimits(idle=0.05))
        await pair.both_ended()
        assert {end.reason for end in pair.ends} <= {EndReason.IDLE_TIMEOUT, EndReason.PEER_RESET}
        assert len(pair.ends) == 2
        pair.close()

    run(body)


def test_other_threads_wake_trio_through_its_token() -> None:
    async def body(engine: PumpEngine) -> None:
        event = trio.Event()
        token = trio.lowlevel.current_trio_token()
        threading.Timer(0.05, lambda: token.run_sync_soon(event.set)).start()
        with trio.fail_after(5):
            await event.wait()

    run(body)


def test_a_task_that_never_rests_does_not_starve_the_pump() -> None:
    async def body(engine: PumpEngine) -> None:
        pair = Looped(engine)
        async with trio.open_nursery() as nursery:

            async def busy() -> None:
                while True:
                    await trio.lowlevel.checkpoint()

            nursery.start_soon(busy)
            with trio.fail_after(5):
                for _ in range(20):
                    await pair.echo(b"through")
            nursery.cancel_scope.cancel()
        pair.close()

    run(body)


def test_a_failure_of_the_driver_moves_the_connections_to_a_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    async def body(engine: PumpEngine) -> None:
        pair = Looped(engine)
        await pair.echo(b"before")
        whole = PumpEngine.run

        def broken(self: PumpEngine, patience: float | None, *, once: bool = False) -> bool:
            if threading.current_thread() is threading.main_thread():
                raise RuntimeError("made up")
            return whole(self, patience, once=once)

        monkeypatch.setattr(PumpEngine, "run", broken)
        with trio.fail_after(5):
            await pair.echo(b"after")
        pair.close()
        await pair.both_ended()
        assert pair.threads.isdisjoint({threading.get_ident()})

    run(body)


async def _relays_a_little(engine: PumpEngine) -> None:
    pair = Looped(engine)
    with trio.fail_after(5):
        await pair.echo(b"all the same")
    pair.close()
    await pair.both_ended()


def test_trios_descriptor_is_found_among_several() -> None:
    strangers = [select.epoll() for _ in range(3)]

    async def body(engine: PumpEngine) -> None:
        await _relays_a_little(engine)
        assert (engine.has_thread, engine.why_thread) == (False, "")

    try:
        run(body)
    finally:
        for stranger in strangers:
            stranger.close()


def test_an_engine_closed_before_trios_descriptor_is_found_stays_closed() -> None:
    async def body() -> None:
        with select.epoll():
            engine = PumpEngine()
            trio_loop.start(engine)
            engine.close()
            await trio.testing.wait_all_tasks_blocked()
            assert not engine.has_thread

    trio.run(body)


def test_a_descriptor_that_cannot_be_told_apart_costs_a_thread(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(trio_loop, "_watches", lambda *_: True)

    async def body(engine: PumpEngine) -> None:
        await _relays_a_little(engine)
        assert engine.has_thread
        assert "fdinfo does not show" in engine.why_thread

    with select.epoll():
        run(body)
    assert "in a thread of its own, which is slower: /proc/self/fdinfo" in caplog.text


def test_it_costs_nothing_at_rest() -> None:
    async def body(engine: PumpEngine) -> None:
        pair = Looped(engine)
        await pair.echo(b"awake")
        start = time.thread_time()
        await trio.sleep(0.3)
        assert time.thread_time() - start < 0.05
        pair.close()

    run(body)


def test_nothing_is_left_open() -> None:
    async def body(engine: PumpEngine) -> None:
        await trio.lowlevel.checkpoint()

    before = len(os.listdir("/proc/self/fd"))
    for _ in range(3):
        run(body)
    assert len(os.listdir("/proc/self/fd")) == before


def test_without_proc_it_takes_a_thread(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    def listdir(path: str) -> list[str]:
        raise FileNotFoundError(2, "No such file or directory", path)

    engine = PumpEngine()

    async def main() -> None:
        with monkeypatch.context() as patch:
            patch.setattr(os, "listdir", listdir)
            trio_loop.start(engine)

    trio.run(main)
    assert engine.has_thread
    assert "mount /proc" in engine.why_thread
    assert "in a thread of its own, which is slower: /proc/self/fd cannot be read" in caplog.text
    engine.close()
