"""Metrics as text, whatever the client says that it reads."""

from __future__ import annotations

import dataclasses
import itertools

import pytest
import trio

from stcp_proxy.admin.metrics import expose
from stcp_proxy.admin.process_schema import Process
from stcp_proxy.admin.report import Report
from stcp_proxy.admin.status_schema import Connections, KeyStatus

from .make_report import tunnel

PROCESS = Process(version="1", started=1.0, uptime=1.0, state="ready", workers=[], engines=[])
CONNECTIONS = Connections(total=0, order="newest", shown=[])
REPORT = Report(time=2.0, process=PROCESS, tunnels=[], connections=CONNECTIONS, keys=[], refusals=[])


@pytest.mark.parametrize(
    ("accept", "ends"),
    [
        ("", b"\n"),
        ("application/openmetrics-text;version=1.0.0,text/plain;q=0.5", b"# EOF\n"),
        ("application/openmetrics-text;version=x", b"\n"),
        ("application/openmetrics-text;version=;;=;escaping=", b"\n"),
        ("text/plain;version=1.x;escaping=\xff", b"\n"),
        ("text/plain;version=" + "9" * 9000, b"\n"),
    ],
)
async def test_every_accept_header_has_an_answer(accept: str, ends: bytes) -> None:
    body, content_type = await expose(REPORT, accept)
    assert b"stcp_ready 1.0" in body
    assert body.endswith(ends)
    assert content_type.isprintable()


async def test_idle_tunnels_cost_little() -> None:
    """No empty histograms: 1,500 idle tunnels made 5 MB once."""
    body, _ = await expose(dataclasses.replace(REPORT, tunnels=[tunnel(f"tunnel-{number}") for number in range(100)]), "")
    assert len(body) < 100 * 1500


KEYS = [
    KeyStatus(
        key=f"stcp-pub:{number:012}", name=f"peer-{number}", own=False, tunnels=["t"], connections=number, total=1, last_use=None
    )
    for number in range(2000)
]


@pytest.mark.parametrize("accept", ["", "application/openmetrics-text;version=1.0.0"])
async def test_the_loop_has_its_turn_while_thousands_of_keys_are_written(accept: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each look at the clock costs a millisecond here; another task runs every few of them."""
    clock = itertools.count(0.0, 0.001)
    monkeypatch.setattr("stcp_proxy.admin.cooperate.time.perf_counter", lambda: next(clock))
    turns = 0

    async def other() -> None:
        nonlocal turns
        while True:
            await trio.lowlevel.checkpoint()
            turns += 1

    async with trio.open_nursery() as nursery:
        nursery.start_soon(other)
        body, _ = await expose(dataclasses.replace(REPORT, keys=KEYS), accept)
        nursery.cancel_scope.cancel()
    assert turns > 500
    lines = body.decode().splitlines()
    assert sum(line.startswith("stcp_key_connections{") for line in lines) == len(KEYS)
    assert sum(line.startswith("# HELP stcp_key_connections") for line in lines) == 1
    assert lines.count("# EOF") == (1 if accept else 0)
