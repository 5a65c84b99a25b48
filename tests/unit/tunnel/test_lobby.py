"""The lobby: what a caller says decides its stage, its stage and its source its turn. The clock jumps.

Each test runs with a lobby that a task drives, and with one that an engine's loop drives.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import AsyncIterator
from contextlib import suppress

import pytest
import trio
from trio.testing import MockClock

from stcp_proxy.protocol.prologue import prologue
from stcp_proxy.protocol.wire import Suite
from stcp_proxy.tunnel.lobby import COMPLETE_GRACE, FAILURES_BURST, GRACE

from .engine_loop import EngineLoop
from .lobby_site import Site
from .rig import FIRST


@pytest.fixture(params=["task", "engine"])
async def site(autojump_clock: MockClock, nursery: trio.Nursery, request: pytest.FixtureRequest) -> AsyncIterator[Site]:
    site = Site(EngineLoop() if request.param == "engine" else None)
    site.nursery = nursery
    if site.engine is not None:
        nursery.start_soon(site.engine.run)
    with site.lobby.accepting(site.nursery):
        await trio.testing.wait_all_tasks_blocked()
        assert site.lobby.in_engine == (site.engine is not None)
        yield site
    site.close()


async def test_a_first_message_in_pieces(autojump_clock: MockClock, site: Site) -> None:
    caller = site.call("10.0.0.1")
    for at in range(0, len(FIRST) - 1, 7):
        caller.send(FIRST[at : min(at + 7, len(FIRST) - 1)])
        await trio.sleep(0.01)
        assert site.begun == []
    caller.send(FIRST[-1:])
    await trio.sleep(0.01)
    assert (site.begun, site.places) == (["10.0.0.1"], 0)


@pytest.mark.parametrize(
    ("says", "label"),
    [
        (b"GET / HTTP/1.1\r\n", "not_stcp"),
        (b"X", "not_stcp"),
        (b"STCP\x02", "version"),
        (b"STCP\x01\x01", "suite"),
        (prologue(Suite.CLASSIC_KEYS) + b"\xff\xff", "malformed"),
        (prologue(Suite.CLASSIC_KEYS) + b"\x00\x00", "malformed"),
    ],
)
async def test_other_bytes_are_refused_at_once(autojump_clock: MockClock, site: Site, says: bytes, label: str) -> None:
    caller = site.call("10.0.0.1", says)
    await trio.sleep(0.01)
    assert (site.refused, site.places) == ({"10.0.0.1": label}, 0)
    with pytest.raises(ConnectionResetError):  # bytes were left unread
        caller.recv(1)


@pytest.mark.parametrize(("says", "label"), [(b"", "tcp_check"), (b"STC", "handshake_closed"), (FIRST[:-1], "handshake_closed")])
@pytest.mark.parametrize("at_once", [True, False])
async def test_a_caller_that_closes(autojump_clock: MockClock, site: Site, says: bytes, label: str, at_once: bool) -> None:
    caller = site.call("10.0.0.1", says)
    if not at_once:
        await trio.sleep(0.01)
    caller.close()
    await trio.sleep(0.01)
    assert (site.refused, site.places) == ({"10.0.0.1": label}, 0)


async def test_a_caller_that_says_all_and_closes_is_served(autojump_clock: MockClock, site: Site) -> None:
    """Its session finds out."""
    site.call("10.0.0.1", FIRST).close()
    await trio.sleep(0.01)
    assert site.begun == ["10.0.0.1"]


async def test_a_reset_before_the_first_byte_is_a_health_check(autojump_clock: MockClock, site: Site) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        far = socket.create_connection(listener.getsockname())
        near, address = listener.accept()
    near.setblocking(False)
    site.lobby.add(near, address, site.nursery)
    far.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    far.close()
    await trio.sleep(0.01)
    assert site.refused == {"127.0.0.1": "tcp_check"}


@pytest.mark.parametrize("says", [b"", b"STCP", FIRST])
async def test_time_is_over(autojump_clock: MockClock, site: Site, says: bytes) -> None:
    site.ready = False
    site.lobby.timeout = 3
    callers = [site.call("10.0.0.1", says)]
    await trio.sleep(1)
    callers.append(site.call("10.0.0.2", says))
    await trio.sleep(1.9)
    assert site.refused == {}
    await trio.sleep(0.2)
    assert site.refused == {"10.0.0.1": "handshake_timeout"}
    await trio.sleep(1)
    assert list(site.refused) == ["10.0.0.1", "10.0.0.2"]


async def test_slow_bytes_do_not_move_the_deadline(autojump_clock: MockClock, site: Site) -> None:
    site.lobby.timeout = 1
    caller = site.call("10.0.0.1")
    for at in range(20):
        with suppress(OSError):
            caller.send(FIRST[at : at + 1])
        await trio.sleep(0.1)
    assert site.refused == {"10.0.0.1": "handshake_timeout"}


async def test_who_has_said_nothing_goes_first(autojump_clock: MockClock, site: Site) -> None:
    site.ready = False
    callers = [site.call(f"10.0.{at}.1", says) for at, says in enumerate([FIRST, b"STCP", b"", b"ST", b""])]
    await trio.sleep(COMPLETE_GRACE + 0.1)
    for _ in callers:
        assert site.lobby.make_room() == 0
    assert site.evicted == ["10.0.2.1", "10.0.4.1", "10.0.1.1", "10.0.3.1", "10.0.0.1"]
    assert site.lobby.make_room() == float("inf")


async def test_a_newcomer_keeps_its_place_for_a_moment(autojump_clock: MockClock, site: Site) -> None:
    caller = site.call("10.0.0.1")
    assert site.lobby.make_room() == pytest.approx(GRACE, rel=0.01)
    await trio.sleep(GRACE)
    assert site.lobby.make_room() == 0
    assert caller.recv(1) == b""


async def test_a_complete_first_message_keeps_its_place_for_seconds(autojump_clock: MockClock, site: Site) -> None:
    site.ready = False
    site.call("10.0.0.1", FIRST)
    await trio.sleep(1)
    assert site.lobby.make_room() == pytest.approx(COMPLETE_GRACE - 1, rel=0.01)
    site.ready = True
    await trio.sleep(0.1)
    assert site.begun == ["10.0.0.1"]


async def test_bytes_that_a_busy_process_has_not_seen_count(autojump_clock: MockClock, site: Site) -> None:
    """The task had no turn since they came."""
    spoke, silent = site.call("10.0.0.1"), site.call("10.0.1.1")
    await trio.sleep(0.01)
    spoke.send(b"STCP")
    autojump_clock.jump(1)
    assert site.lobby.make_room() == 0
    assert site.evicted == ["10.0.1.1"]
    silent.close()


async def test_networks_take_turns(autojump_clock: MockClock, site: Site) -> None:
    site.ready = False
    for at in range(9):
        site.call("10.0.0.1" if at < 6 else f"10.0.{at}.1", FIRST)
    await trio.sleep(0.1)
    site.ready = True
    await trio.sleep(0.1)
    assert site.begun == ["10.0.0.1", "10.0.6.1", "10.0.7.1", "10.0.8.1", *["10.0.0.1"] * 5]


class Relays(trio.abc.Instrument):
    """Use a tenth of a second of each turn of Trio's loop, where the engine does. `turns` counts them."""

    def __init__(self, clock: MockClock) -> None:
        self.clock = clock
        self.turns = 0

    def before_io_wait(self, timeout: float) -> None:
        self.turns += 1
        self.clock.jump(0.1)


@pytest.mark.parametrize("waits", [True, False])
async def test_relays_have_as_much_time_as_a_handshake(
    autojump_clock: MockClock, site: Site, monkeypatch: pytest.MonkeyPatch, waits: bool
) -> None:
    """A handshake takes half a second: the next one begins five turns later, whether its caller waits already or arrives then."""
    relays, at = Relays(autojump_clock), []

    def compute() -> None:
        at.append(relays.turns)
        autojump_clock.jump(0.5)

    monkeypatch.setattr(site, "on_begin", compute)
    trio.lowlevel.add_instrument(relays)
    site.call("10.0.0.1", FIRST)
    if waits:
        site.call("10.0.1.1", FIRST)
    while len(at) < 2:
        await trio.lowlevel.checkpoint()
        if at and not waits:
            waits = True
            site.call("10.0.1.1", FIRST)
    trio.lowlevel.remove_instrument(relays)
    assert 5 <= at[1] - at[0] <= 9


async def test_a_handshake_begins_at_once_where_nothing_is_relayed(
    autojump_clock: MockClock, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(site, "on_begin", lambda: autojump_clock.jump(0.5))
    began = trio.current_time()
    for network in range(4):
        site.call(f"10.0.{network}.1", FIRST)
    while len(site.begun) < 4:  # noqa: ASYNC110  (the clock jumps)
        await trio.sleep(0.001)
    assert began + 2.0 <= trio.current_time() < began + 2.1


async def test_hosts_whose_handshakes_fail_wait_for_the_others(autojump_clock: MockClock, site: Site) -> None:
    for _ in range(int(FAILURES_BURST)):
        site.lobby.blame("10.0.0.1")
    site.ready = False
    bad = site.call("10.0.0.1", FIRST)
    await trio.sleep(0.01)
    for host in ("10.0.0.2", "10.0.1.1"):
        site.call(host, FIRST)
    await trio.sleep(0.01)
    site.ready = True
    await trio.sleep(0.1)
    assert site.begun == ["10.0.0.2", "10.0.1.1", "10.0.0.1"]
    bad.close()


async def test_hosts_whose_handshakes_fail_lose_their_places_first_among_the_complete(
    autojump_clock: MockClock, site: Site
) -> None:
    for _ in range(int(FAILURES_BURST)):
        site.lobby.blame("10.0.0.1")
    site.ready = False
    site.call("10.0.1.1", FIRST)
    site.call("10.0.0.1", FIRST)
    await trio.sleep(2 * GRACE)
    assert site.lobby.make_room() == 0
    assert site.evicted == ["10.0.0.1"]
    assert site.lobby.make_room() > 1


async def test_failures_are_forgiven(autojump_clock: MockClock, site: Site) -> None:
    for _ in range(1000):
        site.lobby.blame("10.0.0.1")
    await trio.sleep(60)
    site.ready = False
    site.call("10.0.0.1", FIRST)
    await trio.sleep(2 * GRACE)
    assert site.lobby.make_room() > 1


async def test_a_replay_is_refused_before_all_of_it_has_come(autojump_clock: MockClock, site: Site) -> None:
    """Its ephemeral key is enough, whatever follows."""
    site.lobby.replays.add(FIRST[8:40], trio.current_time())
    site.call("10.0.0.1", FIRST)
    site.call("10.0.0.2", FIRST[:40])
    site.call("10.0.0.3", FIRST[:39])
    site.call("10.0.0.4", FIRST[:8] + b"x" + FIRST[9:])
    await trio.sleep(0.01)
    assert site.refused == {"10.0.0.1": "replayed", "10.0.0.2": "replayed"}
    assert site.begun == ["10.0.0.4"]


@pytest.mark.parametrize("engine", [None, EngineLoop()])
async def test_the_task_ends_when_nobody_accepts_and_nobody_is_there(
    autojump_clock: MockClock, nursery: trio.Nursery, engine: EngineLoop | None
) -> None:
    site = Site(engine)
    if engine is not None:
        nursery.start_soon(engine.run)
    with trio.fail_after(5):
        async with trio.open_nursery() as site.nursery:
            with site.lobby.accepting(site.nursery):
                first = site.call("10.0.0.1")
                await trio.sleep(0.1)
            await trio.sleep(0.1)
            first.send(FIRST)
        async with trio.open_nursery() as site.nursery:  # what waits in a backlog that is about to be closed
            site.call("10.0.0.2", FIRST)
    site.close()
    assert site.begun == ["10.0.0.1", "10.0.0.2"]


async def test_an_engine_that_is_lost(autojump_clock: MockClock, nursery: trio.Nursery) -> None:
    """The task goes on with all callers, those that wait for a handshake too."""
    site = Site(EngineLoop())
    assert site.engine is not None
    site.nursery = nursery
    site.ready = False
    with site.lobby.accepting(nursery):
        await trio.sleep(0.01)
        callers = [site.call("10.0.0.1", FIRST), site.call("10.0.0.2"), site.call("10.0.0.3", b"STCP")]
        site.engine.lose()
        await trio.sleep(0.01)
        assert not site.lobby.in_engine
        site.ready = True
        await trio.sleep(0.1)
        assert site.begun == ["10.0.0.1"]
        callers[1].send(FIRST)
        await trio.sleep(0.01)
        assert site.begun == ["10.0.0.1", "10.0.0.2"]
        await trio.sleep(site.lobby.timeout)
    assert site.refused == {"10.0.0.3": "handshake_timeout"}
    site.close()


async def test_a_bug_in_the_loop_of_the_engine(autojump_clock: MockClock, site: Site) -> None:
    """The callers go on in a task, and then in the engine's loop again."""
    if site.engine is None:
        return
    site.ready = False
    site.call("10.0.0.1", FIRST)
    site.call("10.0.0.2")
    (watcher,) = site.engine.watched
    watcher.fail(RuntimeError("a bug"))
    site.ready = True
    await trio.sleep(0.1)
    assert site.begun == ["10.0.0.1"]


async def test_settings_are_read_again_at_once(autojump_clock: MockClock, site: Site) -> None:
    site.call("10.0.0.1")
    await trio.sleep(1)
    site.lobby.configure((Suite.CLASSIC_KEYS,), 2)
    await trio.sleep(1.1)
    assert site.refused == {"10.0.0.1": "handshake_timeout"}


async def test_no_silent_session_ends_more_often_than_the_lobby_looks(autojump_clock: MockClock, site: Site) -> None:
    """Each question for a free place may end a silent session: one caller asks every 20 ms, in both ways alike."""
    site.ready = False
    site.call("10.0.0.1", FIRST)
    await trio.sleep(1.01)
    assert 40 <= site.asked <= 60
