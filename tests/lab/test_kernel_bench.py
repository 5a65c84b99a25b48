"""A boot that fails keeps its samples: `bench medians` prints the table of what was measured, and exits with 1."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from kernel import bench


def line(pair: str, rate: float) -> str:
    """The line that a boot prints for one sample."""
    return bench.MARK + json.dumps({"row": "rt-256x50", "pair": pair, "rate": rate, "p50": 1000.0, "p99": 2000.0, "cpu": 1e-5})


def boots(folder: Path, *runs: tuple[list[str], int]) -> None:
    """Write a stand-in for tests/kernel/run into `folder`: call n prints the lines of run n and exits with its status."""
    for number, (lines, status) in enumerate(runs):
        (folder / f"out-{number}").write_text("".join(f"{each}\n" for each in lines))
        (folder / f"status-{number}").write_text(str(status))
    count = "n=$(cat count 2>/dev/null || echo 0)\necho $((n + 1)) >count"
    script = f'#!/bin/sh\ncd {folder}\n{count}\ncat out-$n\nexit "$(cat status-$n)"\n'
    (folder / "run").write_text(script)
    (folder / "run").chmod(0o755)


def test_samples_of_whole_boots_become_medians(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    haproxy = line("haproxy", 100.0)
    boots(
        tmp_path,
        ([line("kernel", 200.0), haproxy], 0),
        ([line("kernel", 300.0), haproxy], 0),
        ([line("kernel", 900.0), haproxy], 0),
    )
    monkeypatch.setattr(bench, "HERE", tmp_path)
    bench.medians(3, [])
    said = capsys.readouterr()
    assert "| 300 | 100 | 3.00 |" in said.out
    assert said.err.count(bench.MARK) == 6


def test_a_boot_that_fails_keeps_its_samples(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = [line("kernel", 200.0), line("haproxy", 100.0)]
    boots(tmp_path, (whole, 0), ([line("kernel", 400.0), "no more time", line("haproxy", 500.0)[:-20]], 1), (whole, 0))
    monkeypatch.setattr(bench, "HERE", tmp_path)
    with pytest.raises(SystemExit, match=r"boot 2 failed after 1 samples:\n(.|\n)*no more time"):
        bench.medians(3, [])
    assert "| 300 | 100 | 3.00 |" in capsys.readouterr().out
    assert (tmp_path / "count").read_text() == "2\n"


def test_a_pair_without_samples_in_a_row_is_nan(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    boots(tmp_path, ([line("kernel", 200.0), line("haproxy", 100.0), line("kernel", 400.0).replace("rt-256x50", "bulk-1")], 1))
    monkeypatch.setattr(bench, "HERE", tmp_path)
    with pytest.raises(SystemExit):
        bench.medians(1, [])
    assert "| 200 | 100 | 2.00 |" in (out := capsys.readouterr().out)
    assert "| 0.0 | nan | nan |" in out
