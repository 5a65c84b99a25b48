"""When a certificate, an authority or a revocation list should have been renewed, and who says so."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import structlog
import trio
from harness.certificates import DAY, TestAuthority
from trio.testing import MockClock

from stcp_proxy.config import Plan, load_plan
from stcp_proxy.config.certificate_plan import Facts
from stcp_proxy.config.lifetimes import CertificateKind, Lifetime, lifetimes
from stcp_proxy.doctor import Level
from stcp_proxy.doctor import lifetimes as doctor
from stcp_proxy.process.lifetimes_check import PERIOD, REPEAT, LifetimesCheck

CONFIG = """\
certificate: {chain: host.crt, key: host-tls.key}
authorities: {prod: {bundle: ca.crt, crl: ca.crl}}
tunnels:
  a: {mode: listen, bind: 127.0.0.1:1, to: 127.0.0.1:2, allow: "dns:app"}
  b: {mode: listen, bind: 127.0.0.1:3, to: 127.0.0.1:2, allow: "dns:app"}
"""


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    authority = TestAuthority()  # from a day ago, for 90 days
    authority.issue("dns:host").write(tmp_path, "host")  # from a day ago, for 30 days
    authority.bundle(tmp_path / "ca.crt")
    authority.revoke(tmp_path / "ca.crl")  # for a day
    (tmp_path / "c.yaml").write_text(CONFIG)
    return load_plan(tmp_path / "c.yaml")


def test_list_that_binds_warns_from_its_last_third_on() -> None:
    found = Lifetime(CertificateKind.LIST, "prod", Facts("x", "7", 0.0, 3000.0), binds=True)
    assert found.problem(1999.0) is None
    what, remedy = found.problem(2000.0) or ("", "")
    assert what.startswith("it ends at 1970-01-01 00:50:00 UTC")
    assert remedy.endswith("'crl_overdue: refuse' refuses new connections after its end")
    what, _ = found.problem(3001.0) or ("", "")
    assert what == "it should have been replaced at 1970-01-01 00:50:00 UTC; new connections by its authority are refused"


def test_each_once(plan: Plan) -> None:
    assert [each.kind for each in lifetimes(plan)] == [CertificateKind.OWN, CertificateKind.AUTHORITY, CertificateKind.LIST]


@pytest.mark.parametrize(
    ("kind", "now", "says"),
    [
        (CertificateKind.OWN, 1999.0, None),
        (CertificateKind.OWN, 2000.0, "it ends at 1970-01-01 00:50:00 UTC, in 0 hours, and should have been renewed since"),
        (CertificateKind.OWN, 3001.0, "it expired at 1970-01-01 00:50:00 UTC"),
        (CertificateKind.AUTHORITY, 2000.0, "it ends at"),
        (CertificateKind.LIST, 2999.0, None),
        (CertificateKind.LIST, 3000.0, "it should have been replaced at"),
    ],
)
def test_from_the_last_third_on(kind: CertificateKind, now: float, says: str | None) -> None:
    problem = Lifetime(kind, "prod", Facts("dns:host", "a1", 0.0, 3000.0)).problem(now)
    assert (problem is None) == (says is None)
    if problem is not None:
        assert problem[0].startswith(says or "?")
        assert problem[1]


def test_a_list_without_a_next_update_is_never_due() -> None:
    assert Lifetime(CertificateKind.LIST, "prod", Facts("x", "", 0.0, float("inf"))).problem(1e12) is None


def test_doctor_fails_from_then_on(plan: Plan) -> None:
    own = lifetimes(plan)[0]
    assert {finding.level for finding in doctor.look(plan, own.facts.not_before + DAY.total_seconds())} == {Level.OK}
    found = doctor.look(plan, own.warns_from + 1)
    assert [finding.level for finding in found] == [Level.FAIL, Level.OK, Level.FAIL]
    assert "dns:host" in found[0].subject
    assert "renew it" in found[0].remedy


async def test_the_log_says_it_once_a_day(plan: Plan, autojump_clock: MockClock) -> None:
    begin = lifetimes(plan)[0].warns_from + 1
    check = LifetimesCheck(lambda: plan, wall_clock=lambda: begin + trio.current_time())
    with structlog.testing.capture_logs() as lines, trio.move_on_after(2 * REPEAT + PERIOD / 2):
        await check.serve()
    told: list[Any] = [line for line in lines if line["event"] == "certificate should have been renewed"]
    assert len(told) == 3
    assert "dns:host" in told[0]["certificate"]
    assert told[0]["log_level"] == "warning"
