"""The benchmark itself, with the peers that are here, for a second or two."""

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from stcp_proxy.lab import ladder
from stcp_proxy.lab.bench import measure, pair, peers, report, rows, table
from stcp_proxy.lab.bench.figures import Figures
from stcp_proxy.lab.bench.measure import Plan, Results
from stcp_proxy.lab.bench.peer import Place
from stcp_proxy.lab.loadgen import LabError

pytestmark = pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler for the load generator")
TLS = ("haproxy", "nginx", "stunnel", "spiped", "plain")


@pytest.fixture(scope="module")
def measured() -> Results:
    """One short run of a yardstick and of a peer that cannot start."""
    broken = peers.product("broken", "broken", engine="python", command=("/bin/false",))
    plan = Plan(rows.choose([]), (broken, *peers.choose(["direct"])), rounds=2, seconds=0.05, idle=20, idle_seconds=0.1)
    said: list[str] = []
    results = measure.run(plan, said.append)
    assert any("round 2 of 2" in words for words in said)
    return results


def test_every_row_is_measured(measured: Results) -> None:
    """A sample this short may fall into a pause of a busy machine: what it did at all is `total`."""
    assert {sample.row for sample in measured.samples if sample.load.total} == {row.name for row in rows.ROWS} - {"memory"}
    assert [memory.peer for memory in measured.memory] == ["direct"]


def test_a_peer_that_does_not_start_is_left_out_and_named(measured: Results) -> None:
    assert "keygen failed" in measured.absent["broken"]
    assert Figures(measured).failed()


def test_json_and_markdown(measured: Results, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="matplotlib is not installed")
    figures = Figures(measured)
    content = json.loads(report.as_json(figures, {"cores": "2"}, "stcp-proxy bench"))
    assert len(content["samples"]) == len(measured.samples)
    assert content["environment"] == {"cores": "2"}
    pictures = report.plots.draw(figures, tmp_path / "bench")
    assert pictures == [], "a yardstick alone is not drawn"
    report.write_markdown(tmp_path / "bench.md", report.heading(figures, {"cores": "2"}, "stcp-proxy bench"), [], [Path("a.png")])
    text = (tmp_path / "bench.md").read_text()
    assert "`stcp-proxy bench`" in text
    assert "Left out: broken: keygen failed" in text
    assert "![a](bench/a.png)" in text


def test_every_axis_of_a_plot_has_its_unit(measured: Results, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plt = pytest.importorskip("matplotlib.pyplot", reason="matplotlib is not installed")
    plan = dataclasses.replace(measured.plan, peers=peers.choose(["plain"]))
    kept: list[Any] = []
    monkeypatch.setattr(plt, "close", kept.append)
    assert len(report.plots.draw(Figures(dataclasses.replace(measured, plan=plan)), tmp_path)) == 3
    units = [{axis.get_xlabel() for axis in figure.axes if axis.get_visible()} for figure in kept]
    monkeypatch.undo()
    plt.close("all")
    assert units[0] == {"rt/s", "MB/s", "conn/s"}
    assert units[1] == {"ms"}
    assert units[2] == {"CPU s per 100,000", "CPU s per GB", "CPU s per 1,000"}


@pytest.mark.parametrize("name", TLS)
def test_a_peer_carries_messages(name: str) -> None:
    (peer,) = peers.choose([name])
    if why := peer.missing():
        pytest.skip(why)
    plan = Plan(rows.choose(["rt-256x50", "bulk-1", "conn-1"]), (peer,), rounds=1, seconds=0.4)
    results = measure.run(plan, lambda words: None)
    assert not results.absent
    assert not results.failures
    assert all(sample.cpu >= 0 and sample.load.total > 0 for sample in results.samples)


@pytest.mark.parametrize("resumes", [False, True], ids=["full", "resumed"])
@pytest.mark.parametrize("name", ["haproxy", "nginx", "stunnel"])
def test_tls_peers_are_mutual_and_resume_where_they_say_so(name: str, resumes: bool, tmp_path: Path) -> None:
    (peer,) = peers.choose([f"{name}-resume" if resumes else name])
    assert peer.resumes is resumes
    if why := peer.missing():
        pytest.skip(why)
    assert peer.set_up is not None
    peer.set_up(Place(tmp_path, 1, 2, 3))
    written = {path.name: path.read_text() for path in tmp_path.iterdir()}
    text = "\n".join(written.values())
    mutual = {"haproxy": "verify required", "nginx": "ssl_verify_client on", "stunnel": "verifyChain = yes"}[name]
    off = {"haproxy": "no-ssl-reuse", "nginx": "proxy_ssl_session_reuse off", "stunnel": "sessionResume = no"}[name]
    assert mutual in text
    assert (off in text) is not resumes
    assert "TLSv1.3" in text


def test_a_pair_that_carries_nothing_is_an_error_with_the_tail_of_its_log(tmp_path: Path) -> None:
    commands = {"listen": ["/bin/sh", "-c", "echo no such luck; exit 3"]}
    with pytest.raises(LabError, match="no such luck"), pair.running("x", pair.free_port(), commands, tmp_path):
        pass


def test_the_family_of_a_process(tmp_path: Path) -> None:
    import os

    assert os.getpid() in pair.family(os.getppid())


def test_the_lower_rungs_of_the_ladder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ladder, "LEAST", 0.005)
    small, large = ladder.ROWS[0], ladder.ROWS[-1]
    assert 0 < ladder._per_unit(small, ladder._cipher_cost) < ladder._per_unit(small, ladder._frame_cost)
    assert ladder._per_unit(large, ladder._frame_cost) > 0


@pytest.mark.parametrize("row", [ladder.ROWS[0], ladder.ROWS[-1]], ids=lambda row: row.name)
def test_the_engine_rung(row: rows.Row) -> None:
    sample = ladder._engine_sample(row, 0.1)
    assert sample.load.total > 0
    assert sample.cpu >= 0


def test_tables_are_shown(measured: Results, capsys: pytest.CaptureFixture[str]) -> None:
    console = Console(width=table.WIDE)
    with table.progress(console, 3) as step:
        step("starting")
    assert "starting" in capsys.readouterr().out
