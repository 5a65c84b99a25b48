"""The reports of several workers as one, and the status that follows from it."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import pytest

from stcp_proxy.admin.certificate_schema import MAX_PEER_CERTIFICATES, AuthorityUse, PeerCertificate
from stcp_proxy.admin.process_schema import Process, State, Worker
from stcp_proxy.admin.report import Report, TunnelReport, merge_reports, status_of
from stcp_proxy.admin.snapshot_request import SnapshotRequest
from stcp_proxy.admin.status_schema import Connections, ConnectionStatus, RefusalStatus, Reload, Reloads, Target
from stcp_proxy.counters import Counts

from .make_report import certificate

Health = Literal["unknown", "up", "down"]


def report(number: int, *, state: State = "ready", targets: tuple[Target, ...] = (), limit: int = 10, **fields: int) -> Report:
    worker = Worker(number=number, pid=number, state=state, open=1, descriptors=2, descriptor_limit=3, memory=4)
    counts = Counts(**fields, ended={("p", "python", "finished"): number}, refused={("p", "denied"): number})
    connection = ConnectionStatus(
        tunnel="db", worker=number, channel="", client="", peer="", target="", engine="", why_engine="", age=float(number),
        bytes_to_wire=number, bytes_to_plain=0,
    )  # fmt: skip
    return Report(
        time=float(number),
        process=Process(version="1", started=10.0 - number, uptime=float(number), state=state, workers=[worker], engines=[]),
        tunnels=[
            TunnelReport(
                name="db", mode="listen", bind=":1", listening=[f"a:{number}"], targets=list(targets), auth="keys", peers=[],
                engine="python", why_engine="", open=1, proving=1, relayed=1, max_connections=limit, max_handshakes=limit,
                counts=counts, open_to_wire=100, open_to_plain=1, carried={("p", "python"): 1},
            )
        ],
        connections=Connections(total=1, order="newest", shown=[connection]),
        keys=[],
        refusals=[],
    )  # fmt: skip


def test_counts_and_limits_are_summed() -> None:
    merged = merge_reports([report(1, accepted=3, bytes_to_wire=5), report(2, accepted=4, bytes_to_wire=6)], SnapshotRequest())
    (tunnel,) = status_of(merged).tunnels
    assert (tunnel.accepted, tunnel.ended, tunnel.refused) == (7, {"finished": 3}, {"denied": 3})
    assert (tunnel.max_connections, tunnel.max_handshakes, tunnel.open, tunnel.proving, tunnel.relayed) == (20, 20, 2, 2, 2)
    assert (tunnel.bytes_to_wire, tunnel.bytes_to_plain) == (211, 2)
    assert tunnel.listening == ["a:1", "a:2"]
    assert merged.tunnels[0].carried == {("p", "python"): 2}
    assert (merged.time, merged.process.started, merged.process.uptime) == (2.0, 8.0, 2.0)


@pytest.mark.parametrize(
    ("one", "two", "best"),
    [
        ("up", "down", "up"),
        ("down", "up", "up"),
        ("unknown", "down", "down"),
        ("down", "unknown", "down"),
        ("up", "unknown", "up"),
    ],
)
def test_the_worker_that_knows_most_of_a_target_is_believed(one: Health, two: Health, best: Health) -> None:
    """A worker that has reached it believes in it; the reason and the retry are those of the same worker."""
    parts = [
        report(number, targets=(Target(address="t:1", health=health, why=f"why {health}", retry=1.0 * number, live=number),))
        for number, health in enumerate((one, two), 1)
    ]
    ((target,),) = [tunnel.targets for tunnel in merge_reports(parts, SnapshotRequest()).tunnels]
    assert (target.health, target.why, target.live) == (best, f"why {best}", 3)
    assert target.retry == (1.0 if one == best else 2.0)


@pytest.mark.parametrize(
    ("states", "silent", "state"),
    [
        (("ready", "ready"), [], "ready"),
        (("ready", "draining"), [], "draining"),
        (("ready", "starting"), [], "starting"),
        (("ready", "ready"), [2], "starting"),
    ],
)
def test_the_least_ready_worker_decides_the_state(states: tuple[State, State], silent: list[int], state: State) -> None:
    merged = merge_reports([report(number, state=each) for number, each in enumerate(states)], SnapshotRequest(), silent=silent)
    assert merged.process.state == state
    assert [worker.number for worker in merged.process.workers] == [0, 1, *silent]


def test_connections_are_sorted_and_cut() -> None:
    parts = [report(number) for number in (2, 3, 1)]
    newest = merge_reports(parts, SnapshotRequest(2)).connections
    assert (newest.total, [each.worker for each in newest.shown]) == (3, [1, 2])
    busiest = merge_reports([report(number) for number in (2, 3, 1)], SnapshotRequest(2, "busiest")).connections
    assert [each.worker for each in busiest.shown] == [3, 2]


def test_refusals_of_one_kind_are_one() -> None:
    refusal = RefusalStatus(time=1.0, tunnel="db", client="a:1", peer="", reason="denied", why="w", remedy="r", count=2)
    later = replace(refusal, time=3.0, client="a:2", count=5)
    other = replace(refusal, time=2.0, reason="version")
    merged = merge_reports(
        [replace(report(1), refusals=[refusal, other]), replace(report(2), refusals=[later])], SnapshotRequest()
    )
    assert merged.refusals == [replace(later, count=7), other]


def test_the_last_reload_is_told_and_workers_do_not_add_up() -> None:
    first = Reloads(applied=1, failed=0, last=Reload(time=1.0, ok=True, what="a"))
    second = Reloads(applied=1, failed=1, last=Reload(time=2.0, ok=False, what="b"))
    merged = merge_reports([replace(report(1), reloads=second), replace(report(2), reloads=first)], SnapshotRequest())
    assert merged.reloads == Reloads(applied=1, failed=1, last=Reload(time=2.0, ok=False, what="b"))


def with_certificates(number: int, **uses: tuple[float, float]) -> Report:
    """A report whose process saw these authorities vouch for a peer, each from the first time to the last."""
    one = report(number)
    one.certificates = [
        certificate(kind="authority", name="prod", key_id=key, serial=key, connections=0, last_use=uses.get(key, (0.0, None))[1])
        for key in ("old", "new")
    ]
    one.authority_uses = [
        AuthorityUse(key_id=key, peer="app", first=first, last=last, not_after=1e12) for key, (first, last) in uses.items()
    ]
    return one


def test_an_authority_is_judged_by_what_all_processes_saw() -> None:
    old, new = {"old": (1.0, 2.0)}, {"new": (3.0, 4.0)}
    merged = merge_reports([with_certificates(1, **old), with_certificates(2, **new)], SnapshotRequest())
    assert [(each.key_id, each.may_go) for each in merged.certificates] == [("old", "yes"), ("new", "no")]
    alone = merge_reports([with_certificates(1, **old)], SnapshotRequest())
    assert [(each.key_id, each.may_go) for each in alone.certificates] == [("old", "no"), ("new", "unknown")]
    late = merge_reports([with_certificates(1, old=(1.0, 9.0)), with_certificates(2, **new)], SnapshotRequest())
    assert late.certificates[0].may_go == "no"


def test_certificates_of_peers_are_merged_and_no_connection_is_lost_from_the_count() -> None:
    def peers(number: int, count: int, others: int) -> Report:
        one = report(number)
        one.peer_certificates = [
            PeerCertificate(
                name=f"p{at}", authority="prod", serial="a", not_after=9.0, tunnels=[f"t{number}"], connections=at + 1
            )
            for at in range(count)
        ]
        one.connections_of_others = others
        return one

    status = status_of(merge_reports([peers(1, 150, 5), peers(2, 150, 2)], SnapshotRequest()))
    assert len(status.peer_certificates) == MAX_PEER_CERTIFICATES
    first = status.peer_certificates[0]
    assert (first.name, first.connections, first.tunnels) == ("p149", 300, ["t1", "t2"])
    listed = sum(each.connections for each in status.peer_certificates)
    assert listed + status.connections_of_others == 2 * sum(range(151)) + 7
