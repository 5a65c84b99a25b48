"""The search for secrets in logs has no hole, and its fixture can fail."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from harness.leaks import PIECE, Net

RAW = bytes((37 * number + 11) % 256 for number in range(32))
SPELLINGS = {
    "raw": RAW,
    "repr": repr(RAW).encode(),
    "repr in JSON": json.dumps(repr(RAW)).encode(),
    "hex": RAW.hex().encode(),
    "HEX": RAW.hex().upper().encode(),
    "hex at an odd place": b"a" + RAW.hex().encode(),
    "base64": base64.b64encode(RAW),
    "base64url": base64.urlsafe_b64encode(RAW),
    "base64 behind a byte": base64.b64encode(b"x" + RAW),
    "base64 behind two": base64.b64encode(b"xy" + RAW),
    "key file": b"stcp-key:" + base64.b64encode(RAW),
    "behind letters": b"key=" + base64.b64encode(RAW),
}


@pytest.mark.parametrize("name", SPELLINGS)
def test_every_spelling_is_found(name: str) -> None:
    net = Net()
    net.add(bytes(range(100, 132)))
    net.add(RAW)
    for around in (b"", b"some words ", b"AAAA", b"\n"):
        assert net.find(around + SPELLINGS[name] + b" more") is not None


@pytest.mark.parametrize("at", [0, 7, 32 - PIECE - 3])
def test_a_piece_is_enough(at: int) -> None:
    net = Net()
    net.add(RAW)
    piece = RAW[at : at + PIECE + 3]
    for text in (piece, piece.hex().encode(), base64.b64encode(piece), repr(piece).encode()):
        assert net.find(b"'" + text + b"'") is not None


def test_a_log_without_secrets() -> None:
    net = Net()
    net.add(RAW)
    other = base64.b64encode(bytes(32))
    assert net.find(b'{"event": "ready", "key": "stcp-pub:' + other + b'", "channel": "0123456789abcdef"}\n' * 100) is None


TESTS = """
import base64
from harness.leaks import no_secret_in_any_log
def test_it(tmp_path):
    raw = bytes(range(32))
    (tmp_path / "host.key").write_bytes(b"# a comment\\nstcp-key:" + base64.b64encode(raw) + b"\\n")
    (tmp_path / "proxy.log").write_text('{"event": "ready"}\\n' + SAID)
"""


@pytest.mark.parametrize(("said", "status"), [("''", 0), ("raw.hex()", 1), ("base64.b64encode(b'-' + raw).decode()", 1)])
def test_a_session_with_a_secret_in_a_log_fails(said: str, status: int) -> None:
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[1])}
    with tempfile.TemporaryDirectory() as folder:  # not in tmp_path: this session's own search would find it
        Path(folder, "test_them.py").write_text(TESTS.replace("SAID", said))
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--basetemp", f"{folder}/base", folder]
        done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True)
    assert done.returncode == status, done.stdout
    assert ("proxy.log holds a secret in" in done.stdout) == bool(status)
