"""The watch: which changes of files become a reload, and when; no sleep, no files."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from typing import Any

import pytest
import trio
import trio.testing

from stcp_proxy.config import Plan
from stcp_proxy.config.diff import PlanDiff
from stcp_proxy.errors import ConfigError
from stcp_proxy.process.watch import Watcher


class Rig:
    """Files, and a reloader that takes them over; `wrong` contents are refused."""

    def __init__(self, watch: float | None = 10.0) -> None:
        self.files = {"/a": b"1", "/b": b"1"}
        self.wrong: set[bytes] = set()
        self.reloads: list[tuple[float, dict[str, bytes]]] = []
        self.looks = 0
        self.now = Plan((), watch=watch, inputs=dict(self.files))
        self.after: list[Callable[[], None]] = []
        self.stopping = False

    def look(self, inputs: Mapping[str, bytes]) -> dict[str, bytes]:
        self.looks += 1
        return {path: self.files[path] for path in inputs if self.files[path] != inputs[path]}

    async def reload(self) -> PlanDiff:
        self.reloads.append((trio.current_time() - self.start, dict(self.files)))
        if self.wrong & set(self.files.values()):
            raise ConfigError("no", remedy="no")
        self.apply(self.now.watch)
        return PlanDiff()

    def apply(self, watch: float | None) -> None:
        """A reload for another reason."""
        self.now = Plan((), watch=watch, inputs=dict(self.files))
        for call in self.after:
            call()

    async def run(self, *steps: tuple[float, Callable[[], Any]]) -> list[float]:
        """Watch, and take each step at its time. Returns when the reloads were."""
        self.start = trio.current_time()
        watcher = Watcher(self, self.look)  # type: ignore[arg-type]
        async with trio.open_nursery() as nursery:
            nursery.start_soon(watcher.serve)
            for at, step in steps:
                await trio.sleep_until(self.start + at)
                step()
            nursery.cancel_scope.cancel()
        return [at for at, _ in self.reloads]

    def write(self, path: str, content: bytes) -> Callable[[], None]:
        return lambda: self.files.__setitem__(path, content)


def end() -> None:
    pass


async def looked(rig: Rig, *steps: tuple[float, Callable[[], Any]], monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The same with `look` in Trio's own thread: a thread would stop the clock from jumping."""

    async def here(work: Callable[..., Any], *args: Any, **_: Any) -> Any:
        await trio.lowlevel.checkpoint()
        return work(*args)

    monkeypatch.setattr(trio.to_thread, "run_sync", here)
    return await rig.run(*steps)


async def test_a_change_is_a_reload(autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch) -> None:
    rig = Rig()
    found = await looked(rig, (15, rig.write("/a", b"2")), (100, end), monkeypatch=monkeypatch)
    assert found == [21.0]  # the look at 20 s, and one second in which nothing changed
    assert rig.reloads[0][1]["/a"] == b"2"


async def test_no_change_is_no_reload(autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch) -> None:
    rig = Rig()
    assert await looked(rig, (100, end), monkeypatch=monkeypatch) == []
    assert rig.looks == 9


async def test_files_that_are_being_written_are_waited_for(
    autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    rig = Rig()
    steps = [(10.5 + step, rig.write("/b", bytes([step]))) for step in range(4)]
    found = await looked(rig, (5, rig.write("/a", b"2")), *steps, (100, end), monkeypatch=monkeypatch)
    assert found == [15.0]
    assert rig.reloads[0][1]["/b"] == b"\3"


async def test_a_content_that_goes_back_is_no_change(
    autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    rig = Rig()
    steps = [(5, rig.write("/a", b"2")), (10.5, rig.write("/a", b"1")), (100, end)]
    assert await looked(rig, *steps, monkeypatch=monkeypatch) == []


async def test_files_that_never_settle_are_read_as_they_are(
    autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    rig = Rig()
    real = rig.look

    def restless(inputs: Mapping[str, bytes]) -> dict[str, bytes]:
        rig.files["/a"] = rig.looks.to_bytes(4, "big")
        return real(inputs)

    rig.look = restless  # type: ignore[method-assign]
    found = await looked(rig, (31, end), monkeypatch=monkeypatch)
    assert found == [30.0]


async def test_a_refused_content_is_tried_again_with_growing_pauses(
    autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    rig = Rig()
    rig.wrong = {b"bad"}
    steps = [(5, rig.write("/a", b"bad")), (2000, end)]
    found = await looked(rig, *steps, monkeypatch=monkeypatch)
    pauses = [late - early for early, late in itertools.pairwise(found)]
    assert found[0] == 11.0
    assert pauses[:4] == sorted(pauses[:4])
    assert pauses[0] >= 20
    assert all(pause <= 311 for pause in pauses)
    assert 5 <= len(found) <= 15


async def test_a_content_that_stays_wrong_for_a_week_does_not_end_the_watch(
    autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    week = 7 * 86_400
    rig = Rig(watch=300.0)
    rig.wrong = {b"bad"}
    steps = [(5, rig.write("/a", b"bad")), (week, rig.write("/a", b"good")), (week + 700, end)]
    found = await looked(rig, *steps, monkeypatch=monkeypatch)
    assert len(found) > 1024
    assert rig.now.inputs["/a"] == b"good"


async def test_a_corrected_content_is_applied_at_the_next_look(
    autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    rig = Rig()
    rig.wrong = {b"bad"}
    steps = [(5, rig.write("/a", b"bad")), (12, rig.write("/a", b"good")), (100, end)]
    assert await looked(rig, *steps, monkeypatch=monkeypatch) == [11.0, 22.0]
    assert rig.now.inputs["/a"] == b"good"


async def test_a_reload_for_another_reason_starts_and_ends_it(
    autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    rig = Rig(watch=None)
    steps = [
        (50, rig.write("/a", b"2")),
        (60, lambda: rig.apply(5.0)),
        (62, rig.write("/a", b"3")),
        (80, lambda: rig.apply(None)),
        (90, rig.write("/a", b"4")),
        (200, end),
    ]
    assert await looked(rig, *steps, monkeypatch=monkeypatch) == [66.0]


async def test_a_process_that_drains_watches_no_longer(
    autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    rig = Rig()
    steps = ((5, lambda: setattr(rig, "stopping", True)), (6, rig.write("/a", b"2")), (100, end))
    assert await looked(rig, *steps, monkeypatch=monkeypatch) == []
    assert rig.looks == 0
