"""A reader of the log that stands still stops nobody, and what it has missed is counted."""

from __future__ import annotations

import fcntl
import io
import json
import os
import socket
import sys
import threading
from collections.abc import Iterator

import pytest
import structlog

from stcp_proxy.config import LogPlan
from stcp_proxy.logs import log, output
from stcp_proxy.logs.output import Output

LINE = "x" * 999 + "\n"


class Pipe:
    """A pipe of 16 KiB, and an `Output` that writes to it."""

    def __init__(self) -> None:
        self.reader, writer = os.pipe()
        fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, 16384)
        os.set_blocking(self.reader, False)
        self.file = os.fdopen(writer, "w")
        self.reports: list[int] = []
        self.report_text = "dropped {}\n"
        self.output = Output(self.file, self._report)

    def _report(self, count: int) -> None:
        self.reports.append(count)
        self.output.write(self.report_text.format(count))

    def fill(self, lines: int = 50) -> int:
        """Write more than the pipe takes. Returns how many lines were dropped."""
        before = self.output.dropped
        for _ in range(lines):
            self.output.write(LINE)
        return self.output.dropped - before

    def read(self, size: int = 1 << 20) -> str:
        return os.read(self.reader, size).decode()


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    made = Pipe()
    yield made
    made.output.close()
    made.file.close()
    os.close(made.reader)


@pytest.mark.parametrize("without_proc", [False, True])
def test_a_full_pipe_drops_lines_and_reports_them(pipe: Pipe, without_proc: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if without_proc:
        monkeypatch.setattr(output.os, "open", _refuse)
    dropped = pipe.fill()
    assert 30 <= dropped <= 40
    assert os.get_blocking(pipe.file.fileno()), "the descriptor is shared with other processes, and stays as it was"
    assert set(pipe.read().splitlines()) == {LINE.strip()}
    assert pipe.reports == []
    pipe.output.write("again\n")
    assert pipe.reports == [dropped]
    assert pipe.read() == f"dropped {dropped}\nagain\n"
    pipe.output.write("and again\n")
    assert pipe.reports == [dropped]


def _refuse(*_arguments: object) -> int:
    raise PermissionError


def test_a_report_that_is_dropped_is_made_again(pipe: Pipe, monkeypatch: pytest.MonkeyPatch) -> None:
    dropped = pipe.fill()
    pipe.read()
    monkeypatch.setattr(pipe.output, "_begin_line", _no_room)
    pipe.output.write("lost\n")
    monkeypatch.undo()
    pipe.output.write("again\n")
    assert pipe.reports == [dropped, dropped + 1]
    assert pipe.read() == f"dropped {dropped + 1}\nagain\n"


def _no_room(_line: bytes) -> None:
    raise BlockingIOError


def test_a_line_that_was_cut_is_finished_first(pipe: Pipe) -> None:
    long = "a" * 20000 + "\n"
    pipe.output.write(long)
    assert pipe.fill(1) == 1
    first = pipe.read()
    pipe.output.write("next\n")
    assert first + pipe.read() == long + "dropped 1\nnext\n"


def test_a_socket() -> None:
    theirs, ours = socket.socketpair()
    with theirs, ours, os.fdopen(os.dup(ours.fileno()), "w") as file:
        made = Output(file)
        while not made.dropped:
            made.write(LINE)
        assert os.get_blocking(file.fileno())
        assert theirs.recv(1000) == LINE.encode()


def test_a_reader_that_is_gone_costs_nothing() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as file:
        made = Output(file)
        made.write(LINE)
        made.write(LINE)
        assert made.dropped == 0


def test_no_file_at_all() -> None:
    made = Output(None)
    made.write(LINE)
    made.flush()
    assert not made.isatty()


def test_a_file_that_is_closed() -> None:
    with open(os.devnull, "w") as file:
        made = Output(file)
    made.write(LINE)
    assert not made.isatty()


def test_a_full_disk() -> None:
    with open("/dev/full", "w") as file:
        made = Output(file)
        made.write(LINE)
        made.write(LINE)
    assert made.dropped == 0


def test_a_file_in_memory() -> None:
    memory = io.StringIO()
    Output(memory).write("ä\n")
    assert memory.getvalue() == "ä\n"


def test_through_structlog_the_report_is_written_and_nothing_waits(pipe: Pipe, monkeypatch: pytest.MonkeyPatch) -> None:
    """A logger that holds a lock while it writes would wait for itself."""
    monkeypatch.setattr(sys, "stderr", pipe.file)
    log.configure(LogPlan(format="json"))
    done = threading.Event()

    def work() -> None:
        logger = structlog.get_logger()
        for number in range(500):
            logger.info("a line", number=number)
        pipe.read()
        logger.info("again")
        done.set()

    threading.Thread(target=work, daemon=True).start()
    try:
        assert done.wait(10)
        report, again = map(json.loads, pipe.read().splitlines())
        assert (report["event"], again["event"]) == ("log lines dropped", "again")
        assert report["lines"] == log.dropped_lines() > 300
    finally:
        structlog.reset_defaults()
