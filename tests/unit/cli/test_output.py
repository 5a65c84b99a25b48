"""Where the output goes nowhere: a full disk, a reader that has gone, standard streams that are closed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

COMMAND = [sys.executable, "-m", "stcp_proxy"]


def run(command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=60)


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="this system has no /dev/full")
@pytest.mark.parametrize("arguments", ["--help", "keygen", "schema"])
def test_a_full_disk_is_one_sentence(arguments: str) -> None:
    done = run(f"{sys.executable} -m stcp_proxy {arguments} >/dev/full")
    what = "stcp-proxy: cannot write the output: no space left on device; free space there, or write it elsewhere\n"
    assert done.stderr == what
    assert done.returncode == 1


def test_a_reader_that_has_read_enough_is_no_failure_to_tell() -> None:
    done = run(f"{sys.executable} -m stcp_proxy schema | head -c 1 >/dev/null; echo ${{PIPESTATUS[0]}}")
    assert done.stderr == ""
    assert done.stdout.strip() in ("0", "1")


@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&- >&- 2>&-"])
def test_closed_streams(tmp_path: Path, closed: str) -> None:
    """Nothing that is opened later gets their numbers: what is printed would be written into it."""
    key = tmp_path / "a.key"
    done = run(f"{sys.executable} -m stcp_proxy keygen --out {key} {closed}")
    assert (done.returncode, done.stderr) == (0, "") or "2>&-" not in closed
    assert done.returncode == 0
    assert key.read_text().count("stcp-key:") == 1
