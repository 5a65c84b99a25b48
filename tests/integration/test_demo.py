"""`stcp-proxy demo`: it ends well, says when something does not behave, and leaves nothing behind."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from harness.process import wait_for

from stcp_proxy.demo import app, run, story, tap
from stcp_proxy.demo.tap import Direction
from stcp_proxy.protocol.wire import FrameType

DEMO = [sys.executable, "-m", "stcp_proxy", "demo"]


def processes_in(folder: Path) -> list[str]:
    """Command lines of the processes whose working directory is below `folder`."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and (entry / "cwd").resolve().is_relative_to(folder):
                found.append((entry / "cmdline").read_text())
        except OSError:
            continue  # it has just ended
    return found


def environment(temporary: Path) -> dict[str, str]:
    return {**os.environ, "TMPDIR": str(temporary), "PYTHONPATH": str(Path(run.__code__.co_filename).parents[3])}


def test_it_shows_everything_and_leaves_nothing(tmp_path: Path) -> None:
    done = subprocess.run(DEMO, env=environment(tmp_path), capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""
    lines = done.stdout.splitlines()
    assert max(map(len, lines)) <= 80
    assert "\x1b" not in done.stdout
    text = " ".join(done.stdout.split())
    for shown in (
        "→ handshake 1", "← handshake 2", "→ OPEN", "← ACCEPT", "→ DATA", "← DATA", "→ FIN", "← FIN",
        "(unknown_peer)", "add the key shown here to 'allow'", "(handshake_closed)", "its log says which",
        "(bad_frame)", "did not authenticate", "ECONNRESET", "1,304 bytes from the stranger, 0 back",
        "straight to the bank", "the same channel id in both logs",
    ):  # fmt: skip
        assert shown in text
    assert list(tmp_path.iterdir()) == []
    assert processes_in(tmp_path) == []


@pytest.mark.parametrize(
    ("number", "whole_group"),
    [
        pytest.param(signal.SIGINT, True, id="Ctrl-C at a terminal"),
        pytest.param(signal.SIGTERM, False, id="kill"),
        pytest.param(signal.SIGHUP, True, id="the terminal is closed"),
    ],
)
def test_a_signal_ends_all_of_it(tmp_path: Path, number: signal.Signals, whole_group: bool) -> None:
    """A pipe that holds less than the demo says stops it in the middle, until somebody reads on."""
    reading, writing = os.pipe()
    fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, 4096)
    with (
        os.fdopen(reading, encoding="utf-8") as output,
        subprocess.Popen(
            DEMO, env=environment(tmp_path), stdout=writing, stderr=subprocess.STDOUT, start_new_session=True
        ) as process,
    ):
        os.close(writing)
        try:
            wait_for(lambda: len(processes_in(tmp_path)) >= 4, words="the proxies run")
            if whole_group:
                os.killpg(process.pid, number)
            else:
                process.send_signal(number)
            said = output.read()
            assert process.wait(timeout=20) == 128 + number, said
        finally:
            process.kill()
    assert "Traceback" not in said
    assert list(tmp_path.iterdir()) == []
    assert processes_in(tmp_path) == []


def test_a_reader_that_leaves_does_not_stop_it(tmp_path: Path) -> None:
    process = subprocess.Popen(DEMO, env=environment(tmp_path), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stderr is not None
    with process.stderr as complaints:
        process.stdout.readline()
        process.stdout.close()
        assert complaints.read() == ""
    assert process.wait(timeout=60) == 0


def test_a_bit_that_does_not_flip_is_noticed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Without the change on the wire nothing is reset, and the demo must not say that it was."""
    monkeypatch.setattr(tap, "_with_bit_flipped", lambda data, at: data)
    assert run() == 1
    assert "The demo failed: this does not hold: the first order is answered" in " ".join(capsys.readouterr().out.split())


def test_plaintext_on_the_wire_is_noticed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(story, "_longest_piece", lambda message, capture: 5)
    assert run() == 1
    assert "a piece of 5 bytes is on the wire" in " ".join(capsys.readouterr().out.split())


# -- parts -----------------------------------------------------------------------------------------------------------------

UP = b"STCP\x01\x02" + b"\x00\x03abc" + b"\x03\x00\x00\x10" + bytes(16) + b"\x00\x00\x00\x11" + bytes(17) + b"\x09\x00\x00\x10"


@pytest.mark.parametrize("step", [1, 2, 7, len(UP)])
def test_the_eavesdropper_tells_frames_apart(step: int) -> None:
    way = Direction(upwards=True)
    items = [item for at in range(0, len(UP), step) for item in way.feed(UP[at : at + step])]
    assert [(item.name, item.kind, item.start, item.size) for item in items] == [
        ("handshake 1", None, 0, 11),
        ("OPEN", FrameType.OPEN, 11, 20),
        ("DATA", FrameType.DATA, 31, 21),
        ("type 9", 9, 52, 20),
    ]
    assert way.of(items[2]) == UP[31:52]


@pytest.mark.parametrize(
    ("message", "capture", "longest"),
    [(b"abcdef", b"", 0), (b"abcdef", b"xxcdexx", 3), (b"abcdef", b"__abcdef", 6), (b"", b"abc", 0), (b"abab", b"ba", 2)],
)
def test_the_longest_piece_is_found(message: bytes, capture: bytes, longest: int) -> None:
    assert story._longest_piece(message, capture) == longest


def test_the_applications_know_nothing_of_the_product() -> None:
    assert "stcp_proxy" not in Path(app.__file__).read_text()
