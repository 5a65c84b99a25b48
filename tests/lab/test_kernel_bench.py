"""A boot that fails in the middle loses no samples: they are told as they come, and the table is made of what there is."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from kernel import bench


def line(pair: str, rate: float) -> str:
    return bench.MARK + json.dumps({"row": "rt-256x50", "pair": pair, "rate": rate, "p50": 1000.0, "p99": 2000.0, "cpu": 1e-5})


def boots(folder: Path, *runs: tuple[list[str], int]) -> None:
    """A `run` that prints what these boots print, one after the other."""
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
    boots(
        tmp_path, *(([line("kernel", rate), line("haproxy", 100.0), "inside: all is well"], 0) for rate in (200.0, 300.0, 900.0))
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
    boots(tmp_path, (whole, 0), ([line("kernel", 400.0), "no more time"], 1), (whole, 0))
    monkeypatch.setattr(bench, "HERE", tmp_path)
    with pytest.raises(SystemExit, match=r"boot 2 failed after 1 samples:\n(.|\n)*no more time"):
        bench.medians(3, [])
    assert "| 300 | 100 | 3.00 |" in capsys.readouterr().out
    assert (tmp_path / "count").read_text() == "2\n"


def test_a_row_without_samples_of_somebody_has_no_number(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    boots(tmp_path, ([line("kernel", 200.0), line("haproxy", 100.0), line("kernel", 400.0).replace("rt-256x50", "bulk-1")], 1))
    monkeypatch.setattr(bench, "HERE", tmp_path)
    with pytest.raises(SystemExit):
        bench.medians(1, [])
    assert "| 200 | 100 | 2.00 |" in (out := capsys.readouterr().out)
    assert "| 0.0 | nan | nan |" in out
