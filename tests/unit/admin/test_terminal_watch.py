"""`status --watch`: in place on a terminal, one below the other in a pipe, and on when the proxy is away."""

from __future__ import annotations

import dataclasses
import io

import pytest
from rich.console import Console

from stcp_proxy.admin.client import Unreachable
from stcp_proxy.admin.report import status_of
from stcp_proxy.admin.status_schema import Status
from stcp_proxy.admin.terminal_watch import watch

from .make_report import NOW, report, tunnel


class Proxy:
    """Answers of a proxy, 500 bytes more each time, and nothing at the second time. The watch ends after the fourth."""

    def __init__(self) -> None:
        self.asked = 0

    def look(self) -> Status:
        self.asked += 1
        if self.asked == 2:
            raise Unreachable("no proxy answers at a:1", remedy="check that it runs")
        found = tunnel(open_to_wire=1000 * self.asked)
        return status_of(report(found, at=NOW + 2 * self.asked))

    def sleep(self, seconds: float) -> None:
        assert seconds == 2.0
        if self.asked == 4:
            raise KeyboardInterrupt


def watched(*, terminal: bool) -> str:
    proxy, file = Proxy(), io.StringIO()
    console = Console(file=file, width=80, height=30, force_terminal=terminal)
    with pytest.raises(KeyboardInterrupt):
        watch(console, proxy.look, 2.0, sleep=proxy.sleep)
    return file.getvalue()


def test_in_a_pipe_each_look_follows_the_last_one() -> None:
    text = watched(terminal=False)
    assert text.count("stcp-proxy 1  ready") == 3
    assert text.count(" UTC") >= 4
    assert "no proxy answers at a:1; check that it runs" in text
    assert text.count("to wire –") == 0
    assert "to wire 1.0 kB" in text  # no rate without a look before
    assert "to wire 500 B/s" in text
    assert "\x1b" not in text


def test_on_a_terminal_it_stays_in_place() -> None:
    text = watched(terminal=True)
    assert "\x1b[?1049h" in text
    assert "500 B/s" in text


def test_a_restart_makes_no_rate() -> None:
    looks = [status_of(report(tunnel(open_to_wire=9), at=NOW + at)) for at in (0, 2)]
    looks[1].process = dataclasses.replace(looks[1].process, started=NOW + 1)
    left, file = iter(looks), io.StringIO()
    with pytest.raises(StopIteration):
        watch(Console(file=file, width=80), lambda: next(left), 2.0, sleep=lambda _: None)
    assert "B/s" not in file.getvalue()
