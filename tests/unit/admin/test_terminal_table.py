"""A status at a terminal."""

from __future__ import annotations

import dataclasses
import io
from typing import Literal

import pytest
from rich.console import Console

from stcp_proxy.admin.status_schema import (
    Connections,
    ConnectionStatus,
    EngineChoice,
    KeyStatus,
    Process,
    RefusalStatus,
    Reload,
    Reloads,
    Status,
    Target,
    TunnelStatus,
    Worker,
)
from stcp_proxy.admin.terminal_table import View, size, span

WORKER = Worker(number=0, pid=77, state="ready", open=1, descriptors=12, descriptor_limit=100, memory=50 << 20)
TUNNEL = TunnelStatus(
    name="redis",
    mode="connect",
    bind="127.0.0.1:6379",
    listening=["127.0.0.1:6379"],
    targets=[
        Target(address="10.0.0.1:7443", health="up"),
        Target(address="10.0.0.2:7443", health="down", why="refused", retry=1.5),
        Target(address="10.0.0.3:7443", service="red"),
        Target(address="10.0.0.4:7443", route="10.9.0.0/16:80"),
    ],
    auth="keys",
    peers=["db-host"],
    engine="python",
    why_engine="configured",
    open=1,
    proving=0,
    relayed=1,
    max_connections=10,
    max_handshakes=5,
    accepted=9,
    ended={"finished": 3, "truncated": 2},
    refused={"unknown_peer": 4},
    bytes_to_wire=1000,
    bytes_to_plain=2_000_000,
)
CONNECTION = ConnectionStatus(
    tunnel="redis",
    worker=0,
    channel="00112233",
    client="127.0.0.1:5",
    peer="db-host",
    target="10.0.0.1:7443",
    engine="python",
    why_engine="",
    age=61.0,
    bytes_to_wire=10,
    bytes_to_plain=20,
)
KEY = KeyStatus(
    key="stcp-pub:" + "A" * 44, name="db-host", own=False, tunnels=["redis"], connections=0, total=3, last_use=1000.0 - 90
)
REFUSAL = RefusalStatus(
    time=999.0, tunnel="redis", client="10.9.9.9:1", peer="", reason="unknown_peer", why="not allowed", remedy="add it", count=4
)
STATUS = Status(
    time=1000.0,
    process=Process(
        version="1.2.3",
        started=1.0,
        uptime=3700.0,
        state="ready",
        workers=[WORKER],
        engines=[EngineChoice(choice="auto", engine="python", why="no module")],
    ),
    tunnels=[TUNNEL],
    connections=Connections(total=5, order="newest", shown=[CONNECTION]),
    keys=[KEY],
    refusals=[REFUSAL],
)


def shown(status: Status, before: Status | None = None) -> str:
    file = io.StringIO()
    Console(file=file, width=160).print(View(status, before))
    return file.getvalue()


def test_everything_somebody_on_call_asks_for() -> None:
    text = shown(STATUS)
    for words in ("1.2.3", "ready", "up 1 h 1 min", "pid 77", "50.0 MiB", "no module"):
        assert words in text
    for words in (
        "redis",
        "127.0.0.1:6379",
        "10.0.0.2:7443 is down",
        "red: 10.0.0.3:7443",
        "10.9.0.0/16:80 → ",
        "db-host",
        "1000 B",
        "1.9 MiB",
    ):
        assert words in text
    for words in ("00112233", "127.0.0.1:5", "1 min 1 s", "and 4 more"):
        assert words in text
    assert "stcp-pub:AAAAAAAAAAAA…" in text
    assert "1 min 30 s ago" in text
    for words in ("1 s ago", "10.9.9.9:1", "not allowed", "add it"):
        assert words in text


def test_rates_come_from_two_looks() -> None:
    before = dataclasses.replace(
        STATUS,
        time=998.0,
        tunnels=[dataclasses.replace(TUNNEL, bytes_to_wire=0, bytes_to_plain=0)],
        connections=Connections(total=1, order="newest", shown=[dataclasses.replace(CONNECTION, bytes_to_plain=0)]),
    )
    text = shown(STATUS, before)
    assert "500 B/s" in text
    assert "977 KiB/s" in text
    assert "10 B/s" in text


def test_a_connection_seen_for_the_first_time_has_no_rate() -> None:
    other = dataclasses.replace(CONNECTION, channel="ffff", client="127.0.0.1:6")
    before = dataclasses.replace(STATUS, time=999.0, connections=Connections(total=1, order="newest", shown=[other]))
    line = next(line for line in shown(STATUS, before).splitlines() if "00112233" in line)
    assert "B/s" not in line


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (dataclasses.replace(STATUS, tunnels=[dataclasses.replace(TUNNEL, listening=[])]), "nothing"),
        (
            dataclasses.replace(STATUS, reloads=Reloads(failed=1, last=Reload(time=1, ok=False, what="line 3: no such key"))),
            "the last reload was refused: line 3: no such key",
        ),
        (
            dataclasses.replace(
                STATUS,
                process=dataclasses.replace(
                    STATUS.process, state="starting", workers=[dataclasses.replace(WORKER, pid=0, state="silent")]
                ),
            ),
            "worker 0 is silent",
        ),
    ],
    ids=["not listening", "reload refused", "silent worker"],
)
def test_what_is_wrong_is_said(status: Status, words: str) -> None:
    assert words in shown(status)


@pytest.mark.parametrize(
    ("answer", "why", "words"),
    [("no", "open connections: 3", "no: open connections: 3"), ("unknown", "not seen: app", "not known: not seen: app")],
)
def test_whether_a_key_can_go(answer: Literal["no", "unknown"], why: str, words: str) -> None:
    assert words in shown(dataclasses.replace(STATUS, keys=[dataclasses.replace(KEY, may_go=answer, why=why)]))


def test_what_others_say_is_neither_markup_nor_moves_the_cursor() -> None:
    hostile = dataclasses.replace(REFUSAL, why="[red]x[/red] \x1b[2J\r\x07", client="a\nb\x1b]0;title\x07")
    text = shown(dataclasses.replace(STATUS, refusals=[hostile]))
    assert "[red]x[/red]" in text
    assert not set("\x1b\r\x07") & set(text)


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 B"), (1023, "1023 B"), (1024, "1.0 KiB"), (150 * 1024, "150 KiB"), (5 << 40, "5.0 TiB"), (1 << 60, "1048576 TiB")],
)
def test_sizes(count: float, text: str) -> None:
    assert size(count) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0 s"), (12.9, "12 s"), (184, "3 min 4 s"), (180, "3 min"), (3600, "1 h"), (2 * 86400 + 5 * 3600 + 59, "2 d 5 h")],
)
def test_spans(seconds: float, text: str) -> None:
    assert span(seconds) == text
