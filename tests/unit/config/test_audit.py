"""`allow_mode`: what its date may be, who warns, and where it does not belong."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Any

import pytest
import structlog
import trio
from trio.testing import MockClock

from stcp_proxy import keys
from stcp_proxy.config import Plan, load_plan
from stcp_proxy.config.audit import Audit, midnight
from stcp_proxy.config.audited_rules import refuse_ended
from stcp_proxy.config.diff import difference
from stcp_proxy.doctor import Level
from stcp_proxy.doctor import lifetimes as doctor
from stcp_proxy.errors import ConfigError
from stcp_proxy.process.lifetimes_check import PERIOD, REPEAT, LifetimesCheck
from stcp_proxy.protocol.secret import Secret

PEER, REVOKED = (keys.PrivateKey(Secret(bytes(range(start, start + 32)))).public for start in (1, 2))
TODAY = datetime.datetime.now(datetime.UTC).date()


def day(days: int) -> str:
    return (TODAY + datetime.timedelta(days=days)).isoformat()


class Site:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        keys.write_secret_file(folder / "host.key", keys.format_private_key(keys.PrivateKey.generate()))
        keys.write_secret_file(folder / "a.psk", keys.format_psk(keys.generate_psk()))

    def load(self, rule: str, whole: str = "identity: host.key", mode: str = "listen") -> Plan:
        path = self.folder / "c.yaml"
        path.write_text(f"{whole}\ntunnels: {{in: {{mode: {mode}, bind: '127.0.0.1:1', to: '127.0.0.1:2', {rule}}}}}\n")
        return load_plan(path)


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


def allow(mode: str) -> str:
    return f"allow: '{PEER}', allow_mode: {mode}"


def audited(site: Site, days: int = 30) -> tuple[Plan, Audit]:
    plan = site.load(allow(f"{{audit: {day(days)}}}"))
    audit = plan.tunnels[0].audit
    assert audit is not None
    return plan, audit


def test_it_ends_with_the_beginning_of_the_date(site: Site) -> None:
    _, audit = audited(site)
    assert (audit.until, audit.date, audit.until % 86400) == (midnight(day(30)), day(30), 0)
    assert (audit.is_on(audit.until - 1), audit.is_on(audit.until)) == (True, False)


def test_enforce_is_the_default(site: Site) -> None:
    assert site.load(allow("enforce")) == site.load(f"allow: '{PEER}'")


def test_revoked_keys_are_not_audited(site: Site) -> None:
    (site.folder / "revoked.txt").write_text(f"{REVOKED}\n")
    authority = "authorities: {}"
    plan = site.load(allow(f"{{audit: {day(30)}}}"), f"identity: host.key\nrevoked: revoked.txt\n{authority}")
    assert plan.tunnels[0].audit == Audit(midnight(day(30)), frozenset([REVOKED]))


def test_a_peer_leaves_places_to_those_that_the_audit_admits(site: Site) -> None:
    assert site.load(allow("enforce")).tunnels[0].places_per_peer is None
    assert audited(site)[0].tunnels[0].places_per_peer == 9000


@pytest.mark.parametrize(
    ("rule", "says"),
    [
        (allow("audit"), "an audit needs the date of its end"),
        (allow("{audit: soon}"), "a date belongs here"),
        (allow("{audit: 2026-2-30}"), "a date belongs here"),
        (allow("{audit: 2026-1-5}"), "a date belongs here"),
        (allow("{}"), "audit"),
        (allow(f"{{audit: {day(92)}}}"), "an audit lasts at most 90 days"),
        (f"psk: a.psk, allow_mode: {{audit: {day(3)}}}", "a tunnel with a shared secret has no audit"),
        (allow(f"{{audit: {day(3)}}}, psk: a.psk"), "a tunnel with a shared secret has no audit"),
        (f"services: {{s: {{to: '127.0.0.1:3', allow: '{PEER}'}}}}, allow_mode: {{audit: {day(3)}}}", "tunnel's own 'allow'"),
    ],
    ids=["no date", "word", "no such day", "short", "empty", "too far", "secret", "secret beside keys", "no rule"],
)
def test_what_is_refused(site: Site, rule: str, says: str) -> None:
    with pytest.raises(ConfigError) as caught:
        site.load(rule)
    assert says in str(caught.value)


def test_a_connect_tunnel_has_none(site: Site) -> None:
    with pytest.raises(ConfigError, match="a connect tunnel has no 'allow_mode'"):
        site.load(f"peer: '{PEER}', allow_mode: {{audit: {day(3)}}}", mode="connect")


def test_a_date_in_the_past_is_refused_by_check_alone(site: Site) -> None:
    """A process must start after the date, and refuses strangers then."""
    refuse_ended(audited(site)[0])
    plan, audit = audited(site, days=-1)
    assert audit.is_on(midnight(day(-2)))
    with pytest.raises(ConfigError, match=r"the audit of an access rule is over: tunnel in"):
        refuse_ended(plan)


def test_a_reload_shows_it(site: Site) -> None:
    plain, (plan, _) = site.load(f"allow: '{PEER}'"), audited(site)
    assert f"~ tunnel in: auth none -> audit until {day(30)}" in difference(plain, plan).lines()


def test_doctor_warns_and_then_fails(site: Site) -> None:
    plan, audit = audited(site)
    for now, level in ((audit.until - 1, Level.WARN), (audit.until, Level.FAIL)):
        (finding,) = doctor.look(plan, now)
        assert (finding.level, finding.subject) == (level, "tunnel in")
        assert "allow_mode" in finding.remedy


async def test_the_log_says_it_once_a_day_and_when_it_is_over(site: Site, autojump_clock: MockClock) -> None:
    plan, audit = audited(site)
    begin = audit.until - 1.5 * REPEAT
    check = LifetimesCheck(lambda: plan, wall_clock=lambda: begin + trio.current_time())
    with structlog.testing.capture_logs() as lines, trio.move_on_after(2 * REPEAT + PERIOD / 2):
        await check.serve()
    told: list[Any] = [(line["event"], line["tunnel"], line["log_level"]) for line in lines]
    during = ("access rule only audits", "in", "warning")
    assert told == [during, during, ("audit of the access rule is over", "in", "warning")]
