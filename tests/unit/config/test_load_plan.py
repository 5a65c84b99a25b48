"""From a good file to a plan."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from harness.certificates import certificate_files

from stcp_proxy import keys
from stcp_proxy.config import (
    Balance,
    EngineChoice,
    HealthPlan,
    KeyAuth,
    Mode,
    Plan,
    PskAuth,
    TunnelPlan,
    describe_plan,
    load_plan,
)
from stcp_proxy.net.address import TcpAddress, UnixAddress
from stcp_proxy.net.dns_settings import DnsSettings
from stcp_proxy.protocol.wire import Suite

from .plan_files import APP, CONNECT, DB, HEAD, LISTEN, OURS, PSK, SECRET, problems

CONFIGS = Path(__file__).parents[3] / "configs"


def test_a_file_of_both_modes(load: Callable[[str], Plan]) -> None:
    plan = load(
        HEAD
        + """\
  postgres:
    mode: connect
    bind: 127.0.0.1:5432
    to: [db1.internal:7443, "[2001:db8::1]:7443"]
    peer: db-host
  redis-in:
    mode: listen
    bind: 0.0.0.0:7444
    to: unix:/tmp/redis.sock
    allow: [app-host]
"""
    )
    postgres, redis = plan.tunnels
    assert (postgres.name, postgres.mode, postgres.bind) == ("postgres", Mode.CONNECT, TcpAddress("127.0.0.1", 5432))
    assert postgres.to == (TcpAddress("db1.internal", 7443), TcpAddress("2001:db8::1", 7443))
    assert postgres.auth == KeyAuth(OURS, {DB: "db-host"})
    assert postgres.suites == (Suite.HYBRID_KEYS,)
    assert redis.to == (UnixAddress("/tmp/redis.sock"),)
    assert redis.auth == KeyAuth(OURS, {APP: "app-host"})
    assert plan == Plan(plan.tunnels)  # every default is the plan's own
    assert redis == TunnelPlan("redis-in", Mode.LISTEN, redis.bind, redis.to, redis.auth, redis.suites)


def test_every_setting(load: Callable[[str], Plan]) -> None:
    settings = (
        ", engine: kernel, suite: classic, max_connections: 5, max_handshakes: 3, handshake_timeout: 250ms, dial_timeout: 2.5,"
        " idle_timeout: 1h, half_close_timeout: 5m, balance: least-connections,"
        " health: {interval: 5s}"
    )
    dns = "dns: {ttl: 30s, stale: 0, keep: 2h, servers: [127.0.0.1, '[::1]:5353']}\n"
    plan = load(dns + "drain: 0\nlog: {level: debug, format: json}\nengine: python\n" + HEAD + CONNECT % settings + LISTEN % "")
    first, second = plan.tunnels
    assert (plan.drain, plan.log.level, plan.log.format) == (0, "debug", "json")
    assert (first.bind_mode, second.bind_mode) == (0o600, 0o600)
    assert (first.balance, second.balance) == (Balance.LEAST_CONNECTIONS, Balance.FAILOVER)
    assert (first.health, second.health) == (HealthPlan(5.0, 1.5), HealthPlan())
    assert plan.dns == DnsSettings(30.0, 0.0, 7200.0, (TcpAddress("127.0.0.1", 53), TcpAddress("::1", 5353)))
    assert "asked of 127.0.0.1:53, [::1]:5353" in describe_plan(plan)
    assert (first.engine, second.engine) == (EngineChoice.KERNEL, EngineChoice.PYTHON)
    assert (first.suites, first.max_connections, first.max_handshakes) == ((Suite.CLASSIC_KEYS,), 5, 3)
    assert (first.handshake_timeout, first.dial_timeout, first.idle_timeout, first.half_close_timeout) == (0.25, 2.5, 3600, 300)


@pytest.mark.parametrize(
    ("suite", "suites"),
    [
        ("", (Suite.HYBRID_PSK,)),
        (", suite: classic", (Suite.CLASSIC_PSK,)),
        (", suite: [classic, hybrid]", (Suite.CLASSIC_PSK, Suite.HYBRID_PSK)),
        (", suite: [hybrid, hybrid]", (Suite.HYBRID_PSK,)),
    ],
)
def test_shared_secret(load: Callable[[str], Plan], suite: str, suites: tuple[Suite, ...]) -> None:
    plan = load(f"tunnels:\n  in: {{mode: listen, bind: :1, to: :2, psk: shared.psk{suite}}}\n")
    assert plan.tunnels[0].auth == PskAuth(PSK)
    assert plan.tunnels[0].suites == suites


def test_shared_secret_and_suite_of_the_file_are_defaults(load: Callable[[str], Plan]) -> None:
    text = "psk: shared.psk\nsuite: classic\n" + HEAD + CONNECT % "" + "  x: {mode: connect, bind: :1, to: :2}\n"
    with_key, with_secret = load(text).tunnels
    assert (with_key.suites, with_secret.suites) == ((Suite.CLASSIC_KEYS,), (Suite.CLASSIC_PSK,))
    assert with_secret.auth == PskAuth(PSK)


def test_keys_written_directly(load: Callable[[str], Plan]) -> None:
    plan = load(HEAD + "  in: {mode: listen, bind: :1, to: :2, allow: [$DB, app-host, $APP]}\n")
    assert isinstance(plan.tunnels[0].auth, KeyAuth)
    assert plan.tunnels[0].auth.peers == {DB: "db-host", APP: "app-host"}
    plan = load("identity: host.key\ntunnels:\n  out: {mode: connect, bind: :1, to: :2, peer: $DB}\n")
    assert isinstance(plan.tunnels[0].auth, KeyAuth)
    assert plan.tunnels[0].auth.peers == {DB: f"{str(DB)[:21]}…"}


def test_identity_of_a_tunnel_and_absolute_path(load: Callable[[str], Plan], folder: Path) -> None:
    text = f"peers: {{db-host: $DB}}\ntunnels:\n{CONNECT % f', identity: {folder}/host.key'}"
    assert isinstance(auth := load(text).tunnels[0].auth, KeyAuth)
    assert auth.identity == OURS


OTHERS = ("helm", "kubernetes", "prometheus")
"""Folders of files for somebody else."""
EXAMPLES = [
    path
    for path in sorted(CONFIGS.rglob("*.yaml"))
    if path.name != "compose.yaml" and path.relative_to(CONFIGS).parts[0] not in OTHERS
]


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: str(path.relative_to(CONFIGS)))
def test_example(example: Path, folder: Path) -> None:
    """Each example loads once its keys are there; its socket folders are made here."""
    keys.write_secret_file(folder / "metrics.psk", keys.format_psk(PSK))
    keys.write_secret_file(folder / "admin.token", "0123456789abcdef")
    certificate_files(folder)
    text = example.read_text().replace("/var/lib/stcp", str(folder))
    for name in ("/run/postgresql", "/run/redis"):
        (folder / name[1:]).mkdir(parents=True)
        text = text.replace(f"unix:{name}", f"unix:{folder}{name}")
    (folder / example.name).write_text(text)
    shutil.copytree(CONFIGS / "peers.d", folder / "peers.d")
    plan = load_plan(folder / example.name)
    assert describe_plan(plan)


def test_there_are_examples() -> None:
    assert {path.name for path in CONFIGS.rglob("*.yaml")} >= {"server.yaml", "client.yaml", "many-tunnels.yaml"}


def test_mode_of_a_unix_socket(load: Callable[[str], Plan], folder: Path) -> None:
    line = f"  out: {{mode: connect, bind: unix:{folder}/door, to: db1:7443, peer: db-host, bind_mode: %s}}\n"
    plan = load(HEAD + line % '"0660"')
    assert plan.tunnels[0].bind_mode == 0o660
    assert "door, mode 0660" in describe_plan(plan)
    for text in ("0660", "660", '"0777"', '"660"'):
        assert "bind_mode: '0600', '0660' or '0666' belongs here; write it in quotes" in problems(load, HEAD + line % text)[0]
    assert "127.0.0.1:5432 is no unix socket" in problems(load, HEAD + CONNECT % ', bind_mode: "0660"')[0]


def test_an_address_that_comes_later(load: Callable[[str], Plan]) -> None:
    assert [load(HEAD + CONNECT % more).tunnels[0].freebind for more in ("", ", freebind: true")] == [False, True]
    line = "  out: {mode: connect, bind: unix:/tmp/door, to: db1:7443, peer: db-host, freebind: true}\n"
    assert "is a unix socket, which needs no interface" in problems(load, HEAD + line)[0]


def test_description_is_complete_and_public(load: Callable[[str], Plan]) -> None:
    text = describe_plan(load(HEAD + CONNECT % "" + LISTEN % ", suite: [hybrid, classic]"))
    for part in ("out (connect)", "127.0.0.1:5432", "db1:7443", str(OURS.public), f"{DB}  db-host", "classic", "30 s", "never"):
        assert part in text
    assert SECRET[12:24] not in text
    assert "shared secret" in describe_plan(load("tunnels:\n  in: {mode: listen, bind: :1, to: :2, psk: shared.psk}\n"))
