"""From samples to statements, on samples that are made up."""

from pathlib import Path

import pytest

from stcp_proxy.errors import ConfigError
from stcp_proxy.lab.bench import cells, peers, rows, run
from stcp_proxy.lab.bench.figures import Figures, floor, p99, rate, targets
from stcp_proxy.lab.bench.measure import Memory, Plan, Results, Sample
from stcp_proxy.lab.bench.peer import Place
from stcp_proxy.lab.loadgen import Load

CHOSEN = rows.choose(["rt-256x50", "bulk-1", "conn-16", "first-20ms", "fair", "memory"])
PEERS = peers.choose(["stcp", "stcp-fresh", "haproxy", "nginx", "nginx-resume", "plain", "direct"])


def results(*samples: tuple[str, str, int, float, float]) -> Figures:
    """Figures of samples given as (row, peer, round, rate, p99)."""
    made = Results(Plan(CHOSEN, PEERS, rounds=3))
    made.samples = [
        Sample(row, peer, number, Load(speed, total=1000, p99=slow, mean=slow), cpu=0.5)
        for row, peer, number, speed, slow in samples
    ]
    return Figures(made)


def test_a_median_is_over_the_rounds() -> None:
    figures = results(*(("rt-256x50", "stcp", number, speed, 1.0) for number, speed in enumerate((10.0, 1000.0, 30.0))))
    assert figures.median("rt-256x50", "stcp", rate) == 30
    assert figures.median("rt-256x50", "nginx", rate) is None


def test_a_ratio_is_the_median_of_each_rounds_ratio() -> None:
    """The machine is ten times slower in the second round: the ratio does not see it, as a ratio of medians would."""
    figures = results(
        *(("rt-256x50", "stcp", number, speed, 1.0) for number, speed in enumerate((200.0, 20.0, 100.0))),
        *(("rt-256x50", "haproxy", number, speed, 2.0) for number, speed in enumerate((100.0, 10.0, 100.0))),
    )
    assert figures.ratio("rt-256x50", "stcp", "haproxy") == 2
    assert figures.ratio("rt-256x50", "stcp", "haproxy", p99) == 0.5
    assert figures.ratio("rt-256x50", "stcp", "nginx") is None


def test_only_rounds_that_both_have_count() -> None:
    figures = results(
        ("rt-256x50", "stcp", 0, 100.0, 1.0), ("rt-256x50", "stcp", 1, 500.0, 1.0), ("rt-256x50", "haproxy", 0, 50.0, 1.0)
    )
    assert figures.ratio("rt-256x50", "stcp", "haproxy") == 2


def test_the_best_tls_peer_is_found_by_rate_and_is_no_yardstick() -> None:
    figures = results(
        ("rt-256x50", "haproxy", 0, 10.0, 1.0), ("rt-256x50", "nginx", 0, 20.0, 1.0), ("rt-256x50", "plain", 0, 99.0, 1.0)
    )
    assert figures.best_tls("rt-256x50") == "nginx"
    assert figures.best_tls("bulk-1") is None


def test_a_full_handshake_is_compared_with_a_full_handshake() -> None:
    figures = results(
        ("conn-16", "stcp", 0, 300.0, 1.0),
        ("conn-16", "stcp-fresh", 0, 120.0, 1.0),
        ("conn-16", "nginx", 0, 100.0, 1.0),
        ("conn-16", "nginx-resume", 0, 150.0, 2.0),
    )
    assert figures.best_tls("conn-16") == "nginx-resume"
    assert figures.best_tls("conn-16", resumes=False) == "nginx"
    kept = {target.text: (target.value, target.met) for target in targets(figures, "stcp")}
    assert kept["new connections × 16: rate against nginx-resume"] == (2.0, True)
    assert kept["new connections × 16: p99 against nginx-resume"] == (0.5, True)
    fresh = {target.text: (target.value, target.met) for target in targets(figures, "stcp-fresh")}
    assert fresh["new connections × 16: rate against nginx"] == (1.2, True)


def test_round_trips_to_the_first_answer() -> None:
    """By the median latency: one of 20 ms is one round trip of the path."""
    figures = results(("first-20ms", "stcp", 0, 50.0, 1.0), ("first-20ms", "nginx-resume", 0, 20.0, 1.0))
    for sample, latency in zip(figures.results.samples, (20_500.0, 60_400.0), strict=True):
        object.__setattr__(sample.load, "p50", latency)
    assert figures.round_trips("first-20ms", "stcp") == pytest.approx(1.025)
    assert figures.round_trips("first-20ms", "nginx-resume") == pytest.approx(3.02)
    assert figures.round_trips("first-20ms", "haproxy") is None
    (shown,) = (table for table in cells.overview(figures) if table.title.startswith("Round trips"))
    assert shown.lines[0][1] == "1.02"
    assert {target.text: target.met for target in targets(figures, "stcp")}["first answer, path of 20 ms: round trips"]


def test_peers_that_only_openings_are_measured_of() -> None:
    chosen = {peer.name: {row.name for row in rows.ROWS if peer.measures(row)} for peer in PEERS}
    assert chosen["nginx-resume"] == chosen["stcp-fresh"] == {"conn-1", "conn-16", "first-20ms"}
    assert chosen["nginx"] == {row.name for row in rows.ROWS}
    plan = run.plan_of(run.Options(rows=["bulk"], peers=["stcp", "nginx-resume"]))
    assert [peer.name for peer in plan.peers] == ["stcp"]


def test_peers_of_another_root(tmp_path: Path) -> None:
    (tmp_path / "tmp").mkdir()
    (tmp_path / "usr/sbin").mkdir(parents=True)
    (tmp_path / "usr/sbin/haproxy").touch()
    found = {peer.name: peer for peer in peers.of_roots([f"13={tmp_path}"])}
    names = {f"{name}{how}-13" for name in ("haproxy", "nginx", "stunnel") for how in ("", "-resume")}
    assert set(found) == {*names, "haproxy-ktls-13"}
    assert found["nginx-13"].missing() == "nginx is not installed"
    assert found["haproxy-resume-13"].missing() is None
    folder = tmp_path / "tmp/pair"
    folder.mkdir()
    make = found["haproxy-resume-13"].set_up
    assert make is not None
    commands = make(Place(Path("/tmp/pair"), 1, 2, 3, 4, tmp_path))
    assert commands["connect"] == ["chroot", str(tmp_path), "/usr/sbin/haproxy", "-db", "-f", "/tmp/pair/haproxy-connect.cfg"]
    text = (folder / "haproxy-connect.cfg").read_text()
    assert "server next 127.0.0.1:4" in text
    assert "no-ssl-reuse" not in text
    assert found["haproxy-ktls-13"].missing() == "HAProxy was built without kTLS"
    make = found["haproxy-ktls-13"].set_up
    assert make is not None
    make(Place(Path("/tmp/pair"), 1, 2, 3, 4, tmp_path))
    texts = [(folder / f"haproxy-ktls-{side}.cfg").read_text() for side in ("listen", "connect")]
    assert [text.count(" ktls on") for text in texts] == [1, 1]
    assert all("expose-experimental-directives" in text for text in texts)
    for wrong in ("13", "=/", "13=relative", f"13={tmp_path}/usr"):
        with pytest.raises(ConfigError, match="does not name a root file system"):
            peers.of_roots([wrong])


def test_cpu_is_given_for_a_unit_of_work() -> None:
    figures = results(("rt-256x50", "stcp", 0, 1.0, 1.0), ("bulk-1", "stcp", 0, 1.0, 1.0), ("conn-16", "stcp", 0, 1.0, 1.0))
    by_name = {row.name: row for row in CHOSEN}
    assert figures.cpu_per_operation(by_name["rt-256x50"], "stcp") == pytest.approx(50)
    assert figures.cpu_per_operation(by_name["bulk-1"], "stcp") == pytest.approx(0.5e6)
    assert figures.cpu_per_operation(by_name["conn-16"], "stcp") == pytest.approx(0.5)


def test_targets_say_what_was_measured() -> None:
    figures = results(
        ("rt-256x50", "stcp", 0, 120.0, 3.0),
        ("rt-256x50", "haproxy", 0, 100.0, 2.0),
        ("rt-256x50", "plain", 0, 110.0, 1.0),
        ("fair", "stcp", 0, 10.0, 29.0),
        ("fair", "haproxy", 0, 10.0, 10.0),
    )
    figures.results.memory = [Memory("stcp", 100, {"connect": 0, "listen": 0}, {"connect": 100 << 10, "listen": 1300 << 10}, 0.0)]
    verdicts = {target.text: target for target in targets(figures, "stcp")}
    assert verdicts["256 B × 50: rate against haproxy"].met
    assert verdicts["256 B × 50: p99 against haproxy"].met is False
    assert verdicts["256 B × 50: rate against plain"].met
    assert verdicts["bulk × 1: rate against plain"].met is None
    assert verdicts["256 B × 50 beside bulk × 1: p99 against haproxy"].met
    assert verdicts["KiB per idle connection"].value == 13
    assert verdicts["KiB per idle connection"].met is False


def test_the_floor() -> None:
    figures = results(
        ("rt-256x50", "stcp", 0, 95.0, 1.0),
        ("rt-256x50", "haproxy", 0, 100.0, 1.0),
        ("bulk-1", "stcp", 0, 119.0, 1.0),
        ("bulk-1", "haproxy", 0, 100.0, 1.0),
    )
    assert [target.met for target in floor(figures, "stcp")] == [True, False]


def test_tables_have_a_cell_for_every_column() -> None:
    figures = results(("rt-256x50", "stcp", 0, 95.0, 1.0), ("bulk-1", "haproxy", 0, 1.5e9, 1.0))
    for table in cells.overview(figures):
        assert all(len(line) == len(table.head) for line in table.lines), table.title
    assert "1,500" in cells.rates(figures).lines[1]


@pytest.mark.parametrize(
    ("value", "text"), [(None, "–"), (0.0, "0.00"), (1.234, "1.23"), (45.67, "45.7"), (1234567.8, "1,234,568")]
)
def test_numbers(value: float | None, text: str) -> None:
    assert cells.number(value) == text


def test_rows_are_chosen_by_their_beginning() -> None:
    assert [row.name for row in rows.choose(["bulk", "fair"])] == ["bulk-1", "bulk-4", "fair"]
    assert rows.choose([]) == rows.ROWS
    with pytest.raises(ConfigError, match="no row"):
        rows.choose(["speed"])


def test_peers_are_chosen_by_name() -> None:
    assert [peer.name for peer in PEERS] == ["stcp", "stcp-fresh", "haproxy", "nginx", "nginx-resume", "plain", "direct"]
    with pytest.raises(ConfigError, match="no peer"):
        peers.choose(["wireguard"])


def test_variants() -> None:
    (two,) = peers.variants(["w2=--workers 2"])
    assert two.name == "w2"
    assert two in peers.choose(["haproxy"], [two])
    for wrong in ("w2", "=--workers 2", "w2="):
        with pytest.raises(ConfigError, match="not a variant"):
            peers.variants([wrong])
    for taken in (["direct=--suite classic"], ["a=--suite classic", "a=--suite hybrid"]):
        with pytest.raises(ConfigError, match="already"):
            peers.variants(taken)


def test_the_command_of_a_variant_runs_from_every_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "bin").mkdir()
    program = tmp_path / "bin" / "old"
    program.write_text("#!/bin/sh\necho $0 of $1\n")
    program.chmod(0o755)
    (tmp_path / "bin" / "named").symlink_to(program)
    monkeypatch.chdir(tmp_path)
    (old,) = peers.variants(["old=bin/named bin/old --workers 2"])
    monkeypatch.chdir("/")
    assert old.version() == f"{tmp_path}/bin/named of {program}"
    with pytest.raises(ConfigError, match="the program 'bin/missing'"):
        peers.variants(["gone=bin/missing --workers 2"])


def test_what_is_on_request_has_to_be_named() -> None:
    assert {"splice", "haproxy-ktls"}.isdisjoint(peer.name for peer in peers.choose([]))
    assert [peer.name for peer in peers.choose(["splice"])] == ["splice"]
