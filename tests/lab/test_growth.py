"""How cost grows: tables and plots of made-up samples."""

from pathlib import Path

import pytest

from stcp_proxy.lab.bench import growth, peers
from stcp_proxy.lab.bench.figures import Figures
from stcp_proxy.lab.bench.measure import Plan, Results, Sample
from stcp_proxy.lab.loadgen import Load


@pytest.fixture
def figures() -> Figures:
    chosen = peers.choose(["stcp", "plain"])
    results = Results(Plan(growth.ROWS, chosen, rounds=1))
    results.samples = [
        Sample(row.name, peer.name, 0, Load(1000.0, total=1000, p99=10.0 * number), cpu=0.01 * number)
        for number, row in enumerate(growth.ROWS, 1)
        for peer in chosen
    ]
    return Figures(results)


def test_the_steps_are_those_of_the_issue() -> None:
    assert (growth.CONNECTIONS[0], growth.CONNECTIONS[-1]) == (1, 5000)
    assert (growth.SIZES[0], growth.SIZES[-1]) == (64, 1 << 20)
    assert len({row.name for row in growth.ROWS}) == len(growth.ROWS)


def test_the_table_has_a_line_for_each_step(figures: Figures) -> None:
    table = growth.table(figures)
    assert len(table.lines) == len(growth.ROWS)
    assert all(len(line) == len(table.head) for line in table.lines)
    assert table.lines[0][1:4] == ["1,000", "0.01", "10.0"], "10 ms of CPU for 1,000 round trips are 10 µs each"


def test_both_curves_are_drawn(figures: Figures, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="matplotlib is not installed")
    assert [path.name for path in growth.draw(figures, tmp_path / "g")] == ["connections.png", "payload.png"]
