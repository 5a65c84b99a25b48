"""From flags and from a file to a plan, and every mistake on the way."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stcp_proxy import keys
from stcp_proxy.config import (
    Balance,
    ConfigProblems,
    EngineChoice,
    HealthPlan,
    KeyAuth,
    Mode,
    Plan,
    PskAuth,
    TunnelPlan,
    describe_plan,
    load_plan,
    plan_from_flags,
)
from stcp_proxy.config.duration import parse_duration
from stcp_proxy.errors import ConfigError
from stcp_proxy.net.address import Address, TcpAddress, UnixAddress, clash, loops, parse_address
from stcp_proxy.net.dns_settings import DnsSettings
from stcp_proxy.protocol.secret import Secret
from stcp_proxy.protocol.wire import Suite

CONFIGS = Path(__file__).parents[3] / "configs"

OURS = keys.PrivateKey(Secret(bytes(range(1, 33))))
DB = keys.PrivateKey(Secret(bytes(range(2, 34)))).public
APP = keys.PrivateKey(Secret(bytes(range(3, 35)))).public
PSK = Secret(bytes(range(100, 132)))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with our key and a shared secret in it."""
    keys.write_secret_file(tmp_path / "host.key", keys.format_private_key(OURS) + "\n")
    keys.write_secret_file(tmp_path / "shared.psk", keys.format_psk(PSK) + "\n")
    return tmp_path


@pytest.fixture
def load(folder: Path) -> Callable[[str], Plan]:
    def load_text(text: str) -> Plan:
        path = folder / "c.yaml"
        for name, key in [("$DB", DB), ("$APP", APP), ("$OURS", OURS.public)]:
            text = text.replace(name, f'"{key}"')
        path.write_text(re.sub(r"(?<=[ \[])(:\d+)", r'"\1"', text))  # a flow mapping takes :7443 in quotes only
        return load_plan(path)

    return load_text


HEAD = """\
identity: host.key
peers: {db-host: $DB, app-host: $APP}
tunnels:
"""
CONNECT = "  out: {mode: connect, bind: 127.0.0.1:5432, to: db1:7443, peer: db-host%s}\n"
LISTEN = "  in: {mode: listen, bind: :7443, to: :6379, allow: app-host%s}\n"


# -- good files ------------------------------------------------------------------------------------------------------------


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


OTHERS = (CONFIGS / "kubernetes", CONFIGS / "prometheus")
"""Folders of files for somebody else."""
EXAMPLES = [path for path in sorted(CONFIGS.rglob("*.yaml")) if path.name != "compose.yaml" and path.parent not in OTHERS]


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: str(path.relative_to(CONFIGS)))
def test_example(example: Path, folder: Path) -> None:
    """Each example loads once its keys are there; its socket folders are made here."""
    keys.write_secret_file(folder / "metrics.psk", keys.format_psk(PSK))
    keys.write_secret_file(folder / "admin.token", "0123456789abcdef")
    text = example.read_text().replace("/var/lib/stcp", str(folder))
    for name in ("/run/postgresql", "/run/redis"):
        (folder / name[1:]).mkdir(parents=True)
        text = text.replace(f"unix:{name}", f"unix:{folder}{name}")
    (folder / example.name).write_text(text)
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
        assert "bind_mode: '0600', '0660' or '0666' belongs here; in quotes" in problems(load, HEAD + line % text)[0]
    assert "127.0.0.1:5432 is no unix socket" in problems(load, HEAD + CONNECT % ', bind_mode: "0660"')[0]


def test_an_address_that_comes_later(load: Callable[[str], Plan]) -> None:
    assert [load(HEAD + CONNECT % more).tunnels[0].freebind for more in ("", ", freebind: true")] == [False, True]
    line = "  out: {mode: connect, bind: unix:/tmp/door, to: db1:7443, peer: db-host, freebind: true}\n"
    assert "is a unix socket, and waits for no interface" in problems(load, HEAD + line)[0]


# -- bad files -------------------------------------------------------------------------------------------------------------


def problems(load: Callable[[str], Plan], text: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load(text)
    assert isinstance(caught.value, ConfigProblems)
    assert all(str(finding) in str(caught.value) for finding in caught.value.findings)
    return [str(finding).split("/c.yaml:", 1)[1] for finding in caught.value.findings]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        # shape
        ("colour: x\n" + HEAD + LISTEN % "", "1: colour: there is no such key; known here: identity, "),
        ("identiy: x\n" + HEAD + LISTEN % "", "1: identiy: there is no such key; did you mean 'identity'?"),
        (
            HEAD + LISTEN % ", handshake-timeout: 5",
            "4: tunnels.in.handshake-timeout: there is no such key; did you mean",
        ),
        (HEAD + LISTEN % ", interrupt: never", "4: tunnels.in.interrupt: there is no such key"),
        ("log: {levle: info}\n" + HEAD + LISTEN % "", "1: log.levle: there is no such key; did you mean 'level'?"),
        ("identity: host.key\n", "1: tunnels: 'tunnels' is missing"),
        ("tunnels:\n", "1: tunnels: 'tunnels' is missing"),
        ("tunnels: {}\n", "1: tunnels: this is empty"),
        ("tunnels: {a: 5}\n", "1: tunnels.a: a mapping belongs here"),
        ("tunnels:\n  'a b': {mode: connect, bind: :1, to: :2, peer: x}\n", "2: tunnels.'a b': 'a b' is not a name"),
        (HEAD + "  in: {mode: listen, to: :1, allow: app-host}\n", "4: tunnels.in.bind: 'bind' is missing; say where to accept"),
        (
            HEAD + "  in: {mode: lisen, bind: :2, to: :1, allow: app-host}\n",
            "4: tunnels.in.mode: 'listen' or 'connect'",
        ),
        (HEAD + LISTEN % ", engine: turbo", "tunnels.in.engine: 'auto', 'kernel' or 'python' belongs here"),
        (HEAD + LISTEN % ", suite: best", "tunnels.in.suite: 'hybrid' or 'classic' belongs here"),
        (HEAD + LISTEN % ", suite: [hybrid, best]", "tunnels.in.suite[1]: 'hybrid' or 'classic' belongs here"),
        (HEAD + LISTEN % ", suite: []", "tunnels.in.suite: this is empty"),
        (HEAD + LISTEN % ", max_connections: 0", "tunnels.in.max_connections: a whole number"),
        (HEAD + LISTEN % ", max_connections: '5'", "tunnels.in.max_connections: a whole number"),
        (HEAD + LISTEN % ", max_connections: true", "tunnels.in.max_connections: a whole number"),
        (HEAD + LISTEN % ", max_handshakes: 1.5", "tunnels.in.max_handshakes: a whole number"),
        (HEAD + LISTEN % ", idle_timeout: 5 parsecs", "tunnels.in.idle_timeout: '5 parsecs' is not a time"),
        (HEAD + LISTEN % ", dial_timeout: 0", "tunnels.in.dial_timeout: this time must be more than zero"),
        ("drain: -1\n" + HEAD + LISTEN % "", "1: drain: -1 is not a time"),
        # addresses
        (HEAD + "  in: {mode: listen, bind: 7443, to: :1, allow: app-host}\n", "tunnels.in.bind: text belongs here"),
        (
            HEAD + "  in: {mode: listen, bind: :1, to: [db:1, db2:70000], allow: app-host}\n",
            "tunnels.in.to[1]: the port of",
        ),
        (HEAD + "  in: {mode: listen, bind: :1, to: db, allow: app-host}\n", "tunnels.in.to: 'db' has no port"),
        (HEAD + "  in: {mode: listen, bind: :1, to: [], allow: app-host}\n", "tunnels.in.to: this is empty"),
        (
            HEAD + "  in: {mode: listen, bind: :1, to: unix:/no/x.sock, allow: app-host}\n",
            "tunnels.in.to: the folder /no",
        ),
        (
            HEAD + "  in: {mode: listen, bind: unix:/no/x.sock, to: :1, allow: app-host}\n",
            "tunnels.in.bind: the folder /no",
        ),
        (
            HEAD + f"  in: {{mode: listen, bind: unix:/{'x' * 107}, to: :1, allow: app-host}}\n",
            "tunnels.in.bind: the unix",
        ),
        (
            HEAD + "  in: {mode: listen, bind: :80, to: 127.0.0.5:80, allow: app-host}\n",
            "tunnels.in.to: 127.0.0.5:80 is",
        ),
        (
            HEAD + LISTEN % "" + LISTEN.replace("in:", "in2:").replace(" :7443", " 127.0.0.1:7443") % "",
            "5: tunnels.in2.bind: 12",
        ),
        (HEAD + LISTEN % ", balance: random", "tunnels.in.balance: 'failover', 'round-robin' or 'least-connections' belongs"),
        (HEAD + LISTEN.replace(":6379", "srv:db.example") % "", "tunnels.in.to: srv:db.example does not name SRV records"),
        (HEAD + LISTEN.replace(":7443", "'srv:_a._tcp.b'") % "", "tunnels.in.bind: the port of 'srv:_a._tcp.b' is not"),
        (
            HEAD + LISTEN % ", health: {intervall: 5s}",
            "in.health.intervall: there is no such key; did you mean 'interval'",
        ),
        (HEAD + LISTEN % ", health: {interval: 0}", "tunnels.in.health.interval: this time must be more than zero"),
        ("dns: {server: 1.1.1.1}\n" + HEAD + LISTEN % "", "1: dns.server: there is no such key; did you mean 'servers'?"),
        ("dns: {servers: dns.test}\n" + HEAD + LISTEN % "", "1: dns.servers: 'dns.test' is no IP address"),
        ("dns: {ttl: x}\n" + HEAD + LISTEN % "", "1: dns.ttl: 'x' is not a time"),
        ("dns: 5s\n" + HEAD + LISTEN % "", "1: dns: a mapping belongs here"),
        # keys and rules
        (
            HEAD + "  in: {mode: listen, bind: :1, to: :2}\n",
            "4: tunnels.in.allow: neither 'allow' nor 'psk' is given",
        ),
        (HEAD + "  in: {mode: connect, bind: :1, to: :2}\n", "4: tunnels.in.peer: neither 'peer' nor 'psk' is given"),
        (HEAD + "  in: {mode: listen, bind: :1, to: :2, allow: []}\n", "tunnels.in.allow: this is empty"),
        (HEAD + LISTEN % ", psk: shared.psk", "tunnels.in.psk: 'allow' and 'psk' exclude each other"),
        (HEAD + LISTEN % ", peer: db-host", "tunnels.in.peer: a listen tunnel has no 'peer'; use 'allow'"),
        (HEAD + CONNECT % ", allow: db-host", "tunnels.out.allow: a connect tunnel has no 'allow'; use 'peer'"),
        (HEAD + CONNECT.replace("db-host", "[db-host]") % "", "tunnels.out.peer: a connect tunnel has one peer"),
        (HEAD + CONNECT % ", suite: [hybrid, classic]", "tunnels.out.suite: a connect tunnel sends exactly one suite"),
        ("suite: [hybrid, classic]\n" + HEAD + CONNECT % "", "1: suite: a connect tunnel sends exactly one suite"),
        (
            HEAD + CONNECT.replace("db-host", "db-hots") % "",
            "tunnels.out.peer: 'db-hots' is not in 'peers'; did you mean 'db",
        ),
        (HEAD + LISTEN.replace("app-host", "[app-host, x]") % "", "tunnels.in.allow[1]: 'x' is not in 'peers'; add it there"),
        (HEAD + LISTEN.replace("app-host", "$OURS") % "", "tunnels.in.allow: this is this side's own public key"),
        (HEAD.replace("$DB", "$OURS") + CONNECT % "", "tunnels.out.peer: this is this side's own public key"),
        (HEAD.replace("$DB", "$APP") + CONNECT % "", "2: peers.app-host: 'db-host' has the same key"),
        (HEAD.replace("$DB", "stcp-pub:AAAA") + CONNECT % "", "2: peers.db-host: a public key is 'stcp-pub:' and 32 bytes"),
        (HEAD.replace("identity: host.key", "") + CONNECT % "", "identity: a private key of this side's own is needed"),
        (HEAD.replace("host.key", "no.key") + CONNECT % "", "1: identity: the key file "),
        (
            HEAD.replace("host.key", "shared.psk") + CONNECT % "",
            "shared.psk: this is a shared secret",
        ),
        (
            "tunnels:\n  in: {mode: listen, bind: :1, to: :2, psk: host.key}\n",
            "this is a private key, where",
        ),
        (
            HEAD + "  in: {mode: listen, bind: :1, to: :2, psk: shared.psk, identity: host.key}\n",
            "tunnels.in.identity: ",
        ),
        ("identity: 5\n" + LISTEN.replace("  in", "tunnels:\n  in") % "", "1: identity: text belongs here"),
    ],
)
def test_refused(load: Callable[[str], Plan], text: str, says: str) -> None:
    found = problems(load, text)
    assert len(found) == 1, found
    assert says in found[0]


def test_all_mistakes_are_listed(load: Callable[[str], Plan]) -> None:
    assert len(problems(load, HEAD + LISTEN % ", turbo: 1, max_connections: x" + "  b: {mode: x, bind: y}\nz: 1\n")) == 5
    text = HEAD.replace("host.key", "no.key") + LISTEN % "" + CONNECT % "" + "  x: {mode: listen, bind: :7443, to: unix:/no/x}\n"
    found = problems(load, text)
    assert len(found) == 4, found  # the key file once, the folder, the rule, the port taken
    with pytest.raises(ConfigProblems, match=r"^4 mistakes in .*c\.yaml\n  .*c\.yaml:1: identity"):
        load(text)


SECRET = keys.format_private_key(OURS)


@pytest.mark.parametrize(
    "text",
    [
        f"identity: {SECRET}\ntunnels: {{}}\n",
        f"tunnels:\n  in: {{mode: listen, bind: :1, to: :2, psk: {SECRET}}}\n",
        f"peers: {{a: '{SECRET}'}}\ntunnels: {{}}\n",
        f"peers: {{'{SECRET}': a}}\ntunnels: {{}}\n",
        f"'{SECRET}': a\ntunnels: {{}}\n",
        HEAD + f"  in: {{mode: listen, bind: :1, to: :2, allow: '{SECRET}'}}\n",
        HEAD + f"  in: {{mode: listen, bind: :1, to: :2, allow: '{SECRET[9:]}'}}\n",
        HEAD + f"  in: {{mode: listen, bind: :1, to: :2, allow: '{SECRET[9:-1]}'}}\n",
        HEAD + f"  in: {{mode: listen, bind: '{SECRET}', to: '{SECRET[9:]}:5', idle_timeout: '{SECRET}', engine: '{SECRET}'}}\n",
        HEAD + f"  in: {{mode: '{SECRET}', max_connections: '{SECRET}', '{SECRET}': 1}}\n",
        HEAD + f"  '{SECRET}': {{}}\n",
        f"a: *{SECRET.replace(':', '').rstrip('=')}\n",
    ],
)
def test_no_message_repeats_a_secret(load: Callable[[str], Plan], text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(text)
    assert SECRET[12:24] not in str(caught.value)


# -- flags -----------------------------------------------------------------------------------------------------------------


def test_flags_of_connect(folder: Path) -> None:
    plan = plan_from_flags(
        mode=Mode.CONNECT,
        bind="127.0.0.1:1",
        to=["a:2", "b:3"],
        key=folder / "host.key",
        peer=str(DB),
        drain="5s",
        idle_timeout="1m",
    )
    tunnel = plan.tunnels[0]
    assert (tunnel.name, tunnel.mode, tunnel.to) == ("connect", Mode.CONNECT, (TcpAddress("a", 2), TcpAddress("b", 3)))
    assert (plan.drain, tunnel.idle_timeout, tunnel.suites) == (5, 60, (Suite.HYBRID_KEYS,))


def test_flags_of_listen(folder: Path) -> None:
    plan = plan_from_flags(
        mode=Mode.LISTEN,
        bind=":1",
        to=[":2"],
        key=folder / "host.key",
        allow=[f"db={DB}", str(APP)],
        suite=["hybrid", "classic"],
        engine="python",
        log_level="debug",
        max_connections=7,
    )
    tunnel = plan.tunnels[0]
    assert isinstance(tunnel.auth, KeyAuth)
    assert tunnel.auth.peers == {DB: "db", APP: f"{str(APP)[:21]}…"}
    assert tunnel.suites == (Suite.HYBRID_KEYS, Suite.CLASSIC_KEYS)
    assert (tunnel.engine, tunnel.max_connections, plan.log.level) == (EngineChoice.PYTHON, 7, "debug")


def test_flags_of_a_shared_secret(folder: Path) -> None:
    plan = plan_from_flags(mode=Mode.LISTEN, bind=":1", to=[":2"], psk=folder / "shared.psk")
    assert plan.tunnels[0].auth == PskAuth(PSK)


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        ({"bind": "x"}, "--bind: 'x' has no port"),
        ({"to": ["a:1", "b"]}, "--to: 'b' has no port"),
        ({"to": []}, "--to: 'to' is missing"),
        ({"allow": []}, "--allow: neither --allow nor --psk is given"),
        ({"key": None}, "--key: a private key of this side's own is needed"),
        ({"key": "no.key"}, "--key: the key file no.key does not exist"),
        ({"psk": "shared.psk"}, "--psk: --allow and --psk exclude each other"),
        ({"psk": "shared.psk", "allow": []}, "--key: a tunnel with --psk has no key of its own"),
        ({"allow": [SECRET]}, "--allow: a secret stands where a public key belongs"),
        ({"allow": [f"app={SECRET}"]}, "--allow: a secret stands where a public key belongs"),
        ({"allow": [f"a={DB}", f"a={APP}"]}, "--allow: the same name is given to two keys"),
        ({"allow": [f"a={DB}", f"b={DB}"]}, "--allow: 'a' has the same key"),
        ({"allow": ["app-host"]}, "--allow: 'app-host' is no public key; give what 'stcp-proxy pubkey FILE' prints"),
        ({"engine": "turbo"}, "--engine: 'auto', 'kernel' or 'python' belongs here"),
        ({"log_level": "loud"}, "--log-level: 'debug', "),
        ({"log_format": "xml"}, "--log-format: 'text' or 'json' belongs here"),
        ({"handshake_timeout": "x"}, "--handshake-timeout: 'x' is not a time"),
        ({"drain": "x"}, "--drain: 'x' is not a time"),
    ],
)
def test_flags_refused(folder: Path, flags: dict[str, Any], says: str) -> None:
    good: dict[str, Any] = {"mode": Mode.LISTEN, "bind": ":1", "to": [":2"], "key": folder / "host.key", "allow": [str(APP)]}
    with pytest.raises(ConfigError) as caught:
        plan_from_flags(**(good | flags))
    assert str(caught.value).startswith(says)
    assert SECRET[12:24] not in str(caught.value)


# -- small parts -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "seconds"), [(5, 5), (0.5, 0.5), ("5", 5), ("250ms", 0.25), ("30s", 30), ("5m", 300), ("1h", 3600), ("1.5 h", 5400)]
)
def test_duration(text: object, seconds: float) -> None:
    assert parse_duration(text) == seconds


@given(st.integers(0, 8000), st.sampled_from([("ms", 0.001), ("s", 1), ("m", 60), ("h", 3600), ("", 1)]))
def test_any_duration(number: int, unit: tuple[str, float]) -> None:
    assert parse_duration(f"{number}{unit[0]}") == pytest.approx(number * unit[1])


@pytest.mark.parametrize(
    "text", ["", "s", "-1", "1d", "1h30m", "1e3", "٣s", "9999999999", True, None, -1, float("nan"), float("inf"), []]
)
def test_no_duration(text: object) -> None:
    with pytest.raises(ConfigError, match="is not a time"):
        parse_duration(text)


def pair(first: str, second: str) -> tuple[Address, Address]:
    return parse_address(first, role="bind"), parse_address(second, role="bind")


@pytest.mark.parametrize(
    ("first", "second", "clashes", "loops_back"),
    [
        (":80", ":80", True, True),
        (":80", "127.0.0.1:80", True, True),
        (":80", "[::1]:80", True, True),
        (":80", "10.0.0.1:80", True, False),
        (":80", "db:80", False, False),
        (":80", ":81", False, False),
        (":0", ":0", False, True),
        ("0.0.0.0:80", "[::]:80", False, False),
        ("0.0.0.0:80", "[::1]:80", False, False),
        ("0.0.0.0:80", "localhost:80", True, True),
        ("[::]:80", "[::1]:80", True, True),
        ("localhost:80", "[::1]:80", True, True),
        ("127.0.0.1:80", "127.0.0.2:80", False, False),
        ("db:80", "db:80", True, True),
        ("unix:/tmp/a", "unix:/tmp/../tmp/a", True, True),
        ("unix:/tmp/a", "unix:/tmp/b", False, False),
        ("unix:/tmp/a", ":80", False, False),
    ],
)
def test_two_addresses(first: str, second: str, clashes: bool, loops_back: bool) -> None:
    a, b = pair(first, second)
    assert (clash(a, b), clash(b, a)) == (clashes, clashes)
    assert loops(a, b) is loops_back


def test_description_is_complete_and_public(load: Callable[[str], Plan]) -> None:
    text = describe_plan(load(HEAD + CONNECT % "" + LISTEN % ", suite: [hybrid, classic]"))
    for part in ("out (connect)", "127.0.0.1:5432", "db1:7443", str(OURS.public), f"{DB}  db-host", "classic", "30 s", "never"):
        assert part in text
    assert SECRET[12:24] not in text
    assert "shared secret" in describe_plan(load("tunnels:\n  in: {mode: listen, bind: :1, to: :2, psk: shared.psk}\n"))


@pytest.mark.skipif(os.geteuid() != 0, reason="giving a file away needs root")
def test_file_of_somebody_else_is_named_with_its_place(load: Callable[[str], Plan], folder: Path) -> None:
    os.chown(folder / "host.key", 12345, -1)
    assert "belongs to user 12345" in problems(load, HEAD + LISTEN % "")[0]
