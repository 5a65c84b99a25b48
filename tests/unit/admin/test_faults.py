"""The faults that a report shows: each once, with the remedy of its own cause."""

from __future__ import annotations

from typing import Any

import pytest

from stcp_proxy.admin.faults import OVER, RECENT, SETTLED, find_faults
from stcp_proxy.admin.report import Report
from stcp_proxy.admin.status_schema import Reload, Reloads, Target
from stcp_proxy.counters import Counts

from .make_report import NOW, certificate, down, refusal, report, tunnel, worker

UP = Target(address="b:1", health="up")


def refused(*found: Any, **fields: Any) -> Report:
    return report(tunnel(**fields), refusals=list(found))


FAULTS: dict[str, tuple[Report, str, str, str]] = {
    "draining": (report(state="draining"), "warn", "No new connection is accepted. Open: 3 connections", "second SIGTERM"),
    "starting": (report(state="starting"), "warn", "does not serve yet", "log"),
    "not listening": (report(tunnel(listening=[])), "bad", "Tunnel redis does not listen", "log"),
    "socket lost": (report(tunnel(lost=["/a.sock"])), "bad", "its socket file /a.sock was removed", "stcp-proxy reload"),
    "rules": (report(tunnel(rules="outdated")), "bad", "are not those of the file. Connections leave unencrypted", "--apply"),
    "no egress filter": (
        report(tunnel(egress_filter="missing", egress_interfaces=["eth0", "br0"])),
        "bad", "the egress filter is missing on eth0, br0. Connections leave unencrypted there when", "--apply",
    ),
    "hidden egress filter": (
        report(tunnel(egress_filter="hidden", egress_interfaces=["eth0"])),
        "bad", "another program comes before the egress filter on eth0", "tc filter show",
    ),
    "full": (report(tunnel(open=100)), "bad", "is full: 100 connections", "max_connections"),
    "nearly full": (report(tunnel(open=90)), "warn", "nearly full: 90 of 100", "max_connections"),
    "handshakes": (report(tunnel(proving=10)), "warn", "10 connections are in the handshake", "max_handshakes"),
    "audit": (
        report(tunnel(audit_until=NOW + 1, counts=Counts(audited={"unknown_peer": 3}))),
        "warn", "Tunnel redis: the access rule only audits, until 2027-01-15 it admits any key", "to 'allow'",
    ),
    "audit that is over": (report(tunnel(audit_until=NOW)), "warn", "audit of the access rule is over", "allow_mode"),
    "descriptors": (report(workers=[worker(descriptors=90)]), "warn", "uses 90 of 100 file descriptors", "LimitNOFILE"),
    "silent worker": (
        report(state="starting", workers=[worker(number=1, pid=0, state="silent")]), "bad", "process 1 does not", "restart",
    ),
    "reload": (
        report(reloads=Reloads(last=Reload(time=NOW, ok=False, what="c.yaml:3: no"))), "warn", "refused, and the", "check CONFIG",
    ),
    "certificate": (
        report(certificates=[certificate(overdue="it ends soon")]),
        "warn", "The certificate of this side, dns:a: it ends soon", "renew",
    ),
    "expired authority": (
        report(certificates=[certificate(kind="authority", name="prod", overdue="it expired", not_after=NOW - 1)]),
        "bad", "The authority prod: it expired", "renew",
    ),
    "overdue list": (
        report(certificates=[certificate(kind="revocation list", name="prod", overdue="late", not_after=NOW - 1, binds=False)]),
        "warn", "The revocation list prod: late", "renew",
    ),
    "overdue list that refuses": (
        report(certificates=[certificate(kind="revocation list", name="prod", overdue="late", not_after=NOW - 1)]),
        "bad", "The revocation list prod: late", "renew",
    ),
    "no target": (report(tunnel(targets=[down()])), "bad", "Tunnel redis has no target: a:1 (connection refused)", "start it"),
    "never resolved": (
        report(tunnel(targets=[down("db.example:1", why="no such name", remedy="correct the name")])),
        "bad", "has no target: db.example:1 (no such name)", "correct the name",
    ),
    "one of two targets": (report(tunnel(targets=[down(), UP])), "warn", "redis: 1 of 2 targets is down: a:1", "start it"),
    "one service": (
        report(tunnel(targets=[UP, down(service="red")])), "bad", "Tunnel redis (red) has no target: a:1", "start it",
    ),
    "two addresses, one cause": (
        report(tunnel(targets=[down(), down("b:1")])), "bad", "has no target: a:1, b:1 (connection refused)", "start it",
    ),
    "two tunnels, one target": (
        report(tunnel(targets=[down()]), tunnel("web", targets=[down(since=NOW - 90)])),
        "bad", "2 tunnels: redis, web have no target: a:1", "start it",
    ),
    "unknown key": (refused(refusal(key="K")), "warn", "refused a peer at 192.0.2.1:5: the peer's key is not", "add it"),
    "known peer": (refused(refusal(peer="app", reason="denied")), "warn", "refused the peer app: ", "add it"),
    "often": (
        refused(refusal(count=3), refusal(count=4, client="b:1")), "warn", "not allowed here, 7 times, from 2 hosts", "add it",
    ),
    "a client of ours": (
        refused(refusal(is_target=True), mode="connect", targets=[Target(address="a:1")]),
        "warn", "could not serve the client 192.0.2.1:5", "add it",
    ),
    "bug": (refused(refusal(level="bad", remedy="")), "bad", "refused a peer", "in the log"),
    "stranger": (refused(refusal(level="note", remedy="")), "note", "turned away a stranger at 192.0.2.1:5", "do nothing"),
}  # fmt: skip


@pytest.mark.parametrize("name", FAULTS)
def test_each_fault_is_found_once(name: str) -> None:
    found, level, words, remedy = FAULTS[name]
    (fault,) = find_faults(found)
    assert fault.level == level
    assert words in "".join(fault.what)
    assert remedy in fault.remedy
    assert fault.until is None


@pytest.mark.parametrize(
    "found",
    [
        report(),
        report(tunnel(open=89)),
        report(reloads=Reloads(applied=1, last=Reload(time=NOW, ok=True, what=""))),
        report(tunnel(listening=[]), state="draining", workers=[worker(state="draining")]),
        refused(refusal(time=NOW - RECENT - 1)),
        refused(refusal(is_target=True)),
        refused(refusal(served=NOW - OVER - 1, time=NOW - SETTLED)),
        refused(refusal(level="note", served=NOW, time=NOW - SETTLED)),
    ],
    ids=["well", "not nearly full", "reloaded", "draining", "long ago", "reached since", "long over", "a stranger no more"],
)  # fmt: skip
def test_what_is_no_fault(found: Report) -> None:
    assert [fault for fault in find_faults(found) if fault.kind != "draining"] == []


def test_a_target_that_is_down_and_the_connections_it_refused_are_one_fault() -> None:
    (fault,) = find_faults(refused(refusal(is_target=True), mode="connect", targets=[down(remedy="start the peer's target")]))
    assert (fault.kind, fault.remedy, fault.since) == ("no_target", "start the peer's target", NOW - 60)


def test_foreign_text_stands_at_odd_places() -> None:
    for found, *_ in FAULTS.values():
        for fault in find_faults(found):
            for words in fault.what[::2]:
                assert not any(foreign in words for foreign in ("redis", "a:1", "192.0.2.1", "c.yaml", ".sock")), fault.what


def test_a_refusal_is_over_when_a_later_connection_was_served() -> None:
    (fault,) = find_faults(refused(refusal(time=NOW - SETTLED, served=NOW - 20)))
    assert fault.until == NOW - 20


def test_a_host_that_is_refused_now_and_then_keeps_its_fault() -> None:
    (fault,) = find_faults(refused(refusal(time=NOW - SETTLED + 1, served=NOW - 20)))
    assert fault.until is None
    found = refused(refusal(time=NOW - SETTLED, served=NOW), refusal(time=NOW - SETTLED, client="b:1"))
    assert [fault.until for fault in find_faults(found)] == [None]


def test_each_key_is_a_fault_of_its_own() -> None:
    found = find_faults(refused(refusal(key="A"), refusal(key="B")))
    assert [fault.public_key for fault in found] == ["A", "B"]
    assert len({fault.key for fault in found}) == 2
