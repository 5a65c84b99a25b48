"""A status at a terminal."""

from __future__ import annotations

import dataclasses
import io
from typing import Any, Literal

import pytest
from rich.console import Console

from stcp_proxy.admin.process_schema import EngineChoice, Process, Worker
from stcp_proxy.admin.status_schema import Connections, ConnectionStatus, KeyStatus, RefusalStatus, Status, Target, TunnelStatus
from stcp_proxy.admin.terminal_layout import ALL, Limits
from stcp_proxy.admin.terminal_table import View
from stcp_proxy.admin.terminal_text import clock, size, span
from stcp_proxy.admin.verdict_schema import Fault, Verdict

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
    legs={"new": 6, "kept": 3},
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


SIMPLE = dataclasses.replace(TUNNEL, targets=[Target(address="10.0.0.1:7443", health="up")], refused={})
NONE = Connections(total=0, order="newest", shown=[])
WIDTHS = (60, 80, 120, 200)


def shown(status: Status, before: Status | None = None, *, width: int = 160, limits: Limits | None = None, **fields: Any) -> str:
    file = io.StringIO()
    Console(file=file, width=width).print(View(status, before, limits or Limits(), **fields))
    return file.getvalue()


def words_of(text: str) -> str:
    """A text without its line breaks."""
    return " ".join(text.split())


@pytest.mark.parametrize("width", WIDTHS)
def test_everything_somebody_on_call_asks_for(width: int) -> None:
    text = words_of(shown(STATUS, width=width))
    for words in ("1.2.3", "ready", "up 1 h 1 min", "pid 77", "52.4 MB", "no module"):
        assert words in text
    for words in ("redis", "127.0.0.1:6379", "10.0.0.2:7443 down", "red → 10.0.0.3:7443", "10.9.0.0/16:80 → ", "db-host"):
        assert words in text
    for words in ("1.0 kB", "2.0 MB", "00112233", "127.0.0.1:5", "1 min 1 s", "and 4 more connections"):
        assert words in text
    assert "stcp-pub:AAAAAAAAAAAA…" in text
    assert "1 min 30 s ago" in text
    for words in ("1 s ago", "10.9.9.9:1", "not allowed", "→ add it"):
        assert words in text


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize(("peers", "tunnels"), [(1, 1), (3, 4), (500, 3), (1, 1500)])
def test_it_can_be_read_at_every_width(width: int, peers: int, tunnels: int) -> None:
    """No word is cut into columns of letters, no line is wider than the terminal, and long lists are counted."""
    names = [f"application-host-{number}" for number in range(peers)]
    status = dataclasses.replace(
        STATUS,
        tunnels=[dataclasses.replace(TUNNEL, name=f"tunnel-{number}", peers=names) for number in range(tunnels)],
        keys=[dataclasses.replace(KEY, name=name) for name in names],
    )
    text = shown(status, width=width)
    lines = text.splitlines()
    assert max(map(len, lines)) <= width
    assert len(lines) < 160
    for words in ("tunnel-0", "application-host-0", "127.0.0.1:6379", "10.0.0.2:7443 down"):
        assert words in text
    if peers > 5:
        assert f"and {peers - 3} more" in text
        assert f"and {peers - 5} more keys: --all shows all" in text
    if tunnels > 20:
        assert "and 1,480 more tunnels: --tunnel NAME shows one, --all shows all" in words_of(text)


@pytest.mark.parametrize("width", WIDTHS)
def test_no_name_of_a_key_is_cut(width: int) -> None:
    names = [f"postgres-replica-{number}" for number in range(3)]
    key = dataclasses.replace(
        KEY, name="analytics-production", tunnels=names, last_use=None, may_go="no", why="it is the only one"
    )
    text = shown(dataclasses.replace(STATUS, keys=[key]), width=width)
    for name in (*names, key.name, f"{key.key[:21]}…"):
        assert name in text.replace(",", " ").split()


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize(("legs", "words"), [(1, "1 idle leg"), (1500, "1,500 idle legs"), (0, "")])
def test_wire_legs_at_rest_are_shown_where_there_are_some(width: int, legs: int, words: str) -> None:
    text = shown(dataclasses.replace(STATUS, tunnels=[dataclasses.replace(SIMPLE, idle_legs=legs)]), width=width)
    assert (words in words_of(text)) if words else "idle" not in text
    assert max(map(len, text.splitlines())) <= width


@pytest.mark.parametrize("width", [60, 80])
def test_an_entry_has_few_lines_on_a_narrow_terminal(width: int) -> None:
    lines = shown(dataclasses.replace(STATUS, tunnels=[SIMPLE], connections=NONE, keys=[], refusals=[]), width=width).splitlines()
    at = lines.index("Tunnels")
    assert lines[at + 1].startswith("redis  connect  serving  1 open  5 done")
    assert len(lines) - at - 1 <= (2 if width == 80 else 4)
    assert all(line.startswith("    ") for line in lines[at + 2 :])


def test_tunnels_with_a_fault_come_first_when_the_list_is_shortened() -> None:
    tunnels = [dataclasses.replace(SIMPLE, name=f"t{number}") for number in range(50)]
    tunnels[40] = dataclasses.replace(tunnels[40], level="bad", state="no target")
    text = shown(dataclasses.replace(STATUS, tunnels=tunnels), width=80, limits=Limits(tunnels=2))
    assert text.index("t40  connect  no target") < text.index("t0  connect  serving") < text.index("and 48 more tunnels")


def test_everything_on_demand() -> None:
    tunnels = [dataclasses.replace(SIMPLE, name=f"t{number}", peers=[f"p{at}" for at in range(20)]) for number in range(50)]
    text = shown(dataclasses.replace(STATUS, tunnels=tunnels), width=80, limits=ALL)
    assert "t49  connect" in text
    assert "p19" in text
    assert "more tunnels" not in text


def test_one_tunnel_alone() -> None:
    other = dataclasses.replace(SIMPLE, name="web")
    text = shown(dataclasses.replace(STATUS, tunnels=[TUNNEL, other]), tunnel="web")
    assert "web" in text
    for words in ("10.0.0.2:7443", "10.9.9.9", "stcp-pub:"):
        assert words not in text


def test_the_busiest_first() -> None:
    tunnels = [dataclasses.replace(SIMPLE, name=f"t{number}", bytes_to_wire=number) for number in range(3)]
    text = shown(dataclasses.replace(STATUS, tunnels=tunnels), width=80, busiest=True)
    assert text.index("t2  ") < text.index("t1  ") < text.index("t0  ")


FAULT = Fault(
    key="k", kind="no_target", level="bad", what=["Tunnel ", "redis", " has no target: ", "a:1"], remedy="start `it`",
    public_key="stcp-pub:KEY", since=940.0, last=990.0, times=2,
)  # fmt: skip


@pytest.mark.parametrize("width", WIDTHS)
def test_the_verdict_comes_first(width: int) -> None:
    over = dataclasses.replace(FAULT, key="o", what=["Tunnel ", "web", " does not listen"], until=970.0, times=1)
    verdict = Verdict(level="bad", headline="1 of 2 tunnels has no target", faults=[FAULT, over], more=3)
    text = words_of(shown(dataclasses.replace(STATUS, verdict=verdict), width=width))
    assert text.index("■ 1 of 2 tunnels has no target") < text.index("Tunnels")
    assert (
        "Tunnel redis has no target: a:1 (since 00:15:40 UTC, 1 min, last 10 s ago, 2 times since the start) stcp-pub:KEY "
        "→ start it" in text
    )
    assert "Tunnel web does not listen (over since 00:16:10 UTC, lasted 30 s)" in text
    assert text.count("start it") == 1
    assert "and 3 more" in text


def test_foreign_text_in_a_verdict_is_not_markup() -> None:
    verdict = Verdict(level="bad", headline="h", faults=[])
    verdict.faults = [dataclasses.replace(FAULT, what=["Tunnel ", "[red]x[/red]\x1b[2J"], remedy="do\x1b[2J")]
    text = shown(dataclasses.replace(STATUS, verdict=verdict))
    assert "[red]x[/red]" in text
    assert "\x1b" not in text


def test_rates_come_from_two_looks() -> None:
    before = dataclasses.replace(
        STATUS,
        time=998.0,
        tunnels=[dataclasses.replace(TUNNEL, bytes_to_wire=0, bytes_to_plain=0)],
        connections=Connections(total=1, order="newest", shown=[dataclasses.replace(CONNECTION, bytes_to_plain=0)]),
    )
    text = shown(STATUS, before)
    assert "500 B/s" in text
    assert "1.0 MB/s" in text
    assert "10 B/s" in text


def test_a_connection_seen_for_the_first_time_has_no_rate() -> None:
    other = dataclasses.replace(CONNECTION, channel="ffff", client="127.0.0.1:6")
    before = dataclasses.replace(STATUS, time=999.0, connections=Connections(total=1, order="newest", shown=[other]))
    line = next(line for line in shown(STATUS, before).splitlines() if "00112233" in line)
    assert "B/s" not in line


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (dataclasses.replace(STATUS, tunnels=[dataclasses.replace(TUNNEL, listening=[])]), "listens on nothing"),
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
    ids=["not listening", "silent worker"],
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
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.0 kB"),
        (99_999, "100 kB"),
        (999_999, "1.0 MB"),
        (1.5e15, "1.5 PB"),
        (5e18, "5000 PB"),
    ],
)
def test_sizes(count: float, text: str) -> None:
    assert size(count) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0 s"), (12.9, "12 s"), (184, "3 min 4 s"), (180, "3 min"), (3600, "1 h"), (2 * 86400 + 5 * 3600 + 59, "2 d 5 h")],
)
def test_spans(seconds: float, text: str) -> None:
    assert span(seconds) == text


def test_times_are_those_of_the_log() -> None:
    assert clock(0, 10) == "00:00:00 UTC"
    assert clock(86399, 86400) == "1970-01-01 23:59:59 UTC"
