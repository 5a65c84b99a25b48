"""Every setting of a file changes the plan: none is read and forgotten."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Final

import pytest
from harness.certificates import DAY, TestAuthority

from stcp_proxy import keys
from stcp_proxy.config import Plan, load_plan, reference
from stcp_proxy.config.plan_text import describe_plan
from stcp_proxy.config.setting import settings
from stcp_proxy.protocol.secret import Secret

KEYS: Final = [keys.PrivateKey(Secret(bytes(range(start, start + 32)))) for start in (1, 2, 3, 4)]
PUBLIC: Final = [str(key.public) for key in KEYS]

LISTEN: Final = {"bind": "127.0.0.1:1", "to": "127.0.0.1:2", "allow": "one"}
CONNECT: Final = {"bind": "127.0.0.1:3", "to": "127.0.0.1:4", "peer": "one"}
INTERCEPT: Final = {"bind": "127.0.0.1:5", "intercept": "redirect", "to": "127.0.0.1:7", "peer": "one"}

SOON, LATER = ((datetime.datetime.now(datetime.UTC) + days * DAY).date().isoformat() for days in (30, 60))

AGENT: Final = """\
agent:
  max_handshakes: 9
  identities:
    default: {users: 7, allow: one, services: s,
      connect: [{match: "10.0.0.0/8:1", peer: one, service: s}]
    }
"""
"""The agent of a file. A change of it is text that is replaced: `old => new`."""

Change = tuple[str, str, str]
"""Where a setting is put (whole, listen, connect, intercept, service, route, file), its key and its value."""

CHANGES: Final[dict[str, list[Change]]] = {
    "ConfigModel": [
        ("whole", "identity", "[host.key, other.key]"),
        ("file", "psk", "psk: a.psk\ntunnels: {a: {mode: listen, bind: 127.0.0.1:1, to: 127.0.0.1:2}}\n"),
        ("whole", "peers", f'{{one: "{PUBLIC[1]}", two: "{PUBLIC[2]}", three: "{PUBLIC[3]}"}}'),
        ("file", "tunnels", "psk: a.psk\ntunnels: {b: {mode: listen, bind: 127.0.0.1:1, to: 127.0.0.1:2}}\n"),
        ("whole", "suite", "classic"),
        ("whole", "engine", "python"),
        ("whole", "drain", "1s"),
        ("whole", "drain_outbound", "keep"),
        ("whole", "revoke_grace", "1s"),
        ("whole", "workers", "2"),
        ("whole", "stalled_mib", "5"),
        ("whole", "watch", "10s"),
        ("whole", "takeover", "unix:/tmp/takeover-test.sock"),
        ("takeover", "takeover_drain", "1m"),
        ("whole", "sandbox", "required"),
        ("whole", "log", "{level: debug}"),
        ("whole", "admin", "127.0.0.1:9"),
        ("whole", "admin_token", "a.token"),
        ("whole", "ready", "target"),
        ("whole", "dns", "{ttl: 1s}"),
        ("whole", "otlp", "{endpoint: https://collector:4318}"),
        ("certificates", "certificate", "a.crt, key: a-tls.key => b.crt, key: b-tls.key"),
        ("certificates", "authorities", "{prod: {bundle => {test: {bundle"),
        ("certificates", "revoked", "a.revoked => b.revoked"),
        ("certificates", "expired", "keep => end"),
        ("agent", "agent", f"{AGENT} => tunnels: {{a: {{mode: listen, allow: one, bind: '127.0.0.1:1', to: '127.0.0.1:2'}}}}"),
    ],
    "AgentModel": [
        ("agent", "identities", "default: => other:"),
        ("agent", "max_handshakes", "max_handshakes: 9 => max_handshakes: 8"),
    ],
    "IdentityModel": [
        ("agent", "users", "users: 7 => users: [7, 8]"),
        ("agent", "allow", "allow: one => allow: two"),
        ("agent", "services", "services: s => services: [s, t]"),
        ("agent", "connect", "connect: => connect: [{match: '10.0.0.1', peer: two}] #"),
        ("agent", "identity", "users: 7, => users: 7, identity: other.key,"),
        ("agent", "psk", "users: 7, => users: 7, psk: a.psk,"),
        ("agent", "suite", "users: 7, => users: 7, suite: classic,"),
    ],
    "ExpectedPeerModel": [
        ("agent", "match", "10.0.0.0/8:1 => 10.0.0.0/8:2"),
        ("agent", "peer", "peer: one => peer: two"),
        ("agent", "service", "service: s} => service: t}"),
    ],
    "CertificateModel": [
        ("certificates", "chain", "a.crt => renewed.crt"),
        ("certificates", "key", "a.crt, key: a-tls.key => b.crt, key: b-tls.key"),
    ],
    "AuthorityModel": [
        ("certificates", "bundle", "a-ca.crt => b-ca.crt"),
        ("certificates", "crl", "a.crl => b.crl"),
        ("certificates", "crl_overdue", "crl: a.crl => crl: a.crl, crl_overdue: refuse"),
        ("certificates", "names", "dns:* => dns:*.prod"),
    ],
    "PeersModel": [("peers", "include", "peers.d")],
    "LogModel": [("log", "level", "debug"), ("log", "format", "json"), ("log", "quiet", "connections")],
    "DnsModel": [("dns", "ttl", "1s"), ("dns", "stale", "1s"), ("dns", "keep", "1s"), ("dns", "servers", "10.0.0.1")],
    "OtlpModel": [
        ("otlp", "endpoint", "https://another:4318"),
        ("otlp", "headers_file", "a.headers"),
        ("otlp", "ca", "a-ca.crt"),
        ("otlp-plain", "insecure", "true"),
        ("otlp", "service_name", "db-side"),
        ("otlp", "attributes", "{deployment.environment.name: prod}"),
        ("otlp", "sample", "0.5"),
        ("otlp", "timeout", "5s"),
    ],
    "TunnelModel": [
        ("connect", "mode", "listen"),
        ("listen", "bind", "127.0.0.1:99"),
        ("unix", "bind_mode", '"0660"'),
        ("listen", "freebind", "true"),
        ("listen", "to", "127.0.0.1:99"),
        ("listen", "balance", "round-robin"),
        ("listen", "allow", "two"),
        ("listen", "allow_mode", f"{{audit: {SOON}}}"),
        ("listen", "proxy_protocol", "v2"),
        ("listen", "source", "transparent"),
        ("clients", "allow_clients", "10.0.0.0/8"),
        ("original", "allow_targets", "10.0.0.0/8:1"),
        ("connect", "peer", "two"),
        ("listen", "services", "{t: 127.0.0.1:8}"),
        ("connect", "service", "s"),
        ("connect", "accept_proxy_protocol", "true"),
        ("listen", "identity", "other.key"),
        ("listen", "psk", "a.psk"),
        ("listen", "suite", "[hybrid, classic]"),
        ("listen", "engine", "python"),
        ("listen", "max_connections", "5"),
        ("listen", "max_handshakes", "5"),
        ("listen", "max_connections_per_peer", "5"),
        ("listen", "rate_per_peer", "5"),
        ("listen", "handshake_timeout", "1s"),
        ("listen", "dial_timeout", "1s"),
        ("listen", "idle_timeout", "1s"),
        ("listen", "max_lifetime", "1s"),
        ("listen", "half_close_timeout", "1s"),
        ("connect", "intercept", "redirect"),
        ("intercept", "routes", '[{match: "10.0.0.0/8:99"}]'),
        ("intercept", "unmatched", "pass-in-the-clear"),
        ("intercept", "capture", "routes"),
        ("intercept", "exclude", '":53"'),
        ("intercept-all", "forwarded", "eth0"),
        ("intercept", "mark", "77"),
        ("connect", "health", "{interval: 1s}"),
        ("connect", "keep", "off"),
        ("listen", "ready", "target"),
    ],
    "ServiceModel": [
        ("service", "to", "127.0.0.1:99"),
        ("service", "balance", "round-robin"),
        ("service", "allow", "two"),
        ("service", "proxy_protocol", "v1"),
        ("service", "source", "transparent"),
        ("service-clients", "allow_clients", "10.0.0.0/8"),
        ("service-original", "allow_targets", "10.0.0.0/8:1"),
    ],
    "RouteModel": [
        ("route", "match", '"10.0.0.0/8:99"'),
        ("route", "to", "127.0.0.1:99"),
        ("route", "peer", "two"),
        ("route", "service", "s"),
    ],
    "AcceptProxyModel": [("proxy", "from", "127.0.0.1")],
    "AllowModeModel": [("allow_mode", "audit", LATER)],
    "HealthModel": [("health", "interval", "1s"), ("health", "timeout", "1s")],
    "KeepModel": [("keep", "idle", "5s"), ("keep", "max_age", "1m"), ("keep", "legs", "7"), ("keep", "ready", "2")],
}
"""For each field of each model one change. A new field needs one."""


CERTIFIED: Final = """\
certificate: {chain: a.crt, key: a-tls.key}
authorities: {prod: {bundle: a-ca.crt, crl: a.crl, names: "dns:*"}}
revoked: a.revoked
expired: keep
tunnels: {a: {mode: listen, bind: 127.0.0.1:1, to: 127.0.0.1:2, allow: "dns:app"}}
"""
"""A file with certificates. A change of it is text that is replaced: `old => new`."""


class Config:
    """A file with every kind of tunnel, and what a change puts into it."""

    def __init__(self) -> None:
        self.whole: dict[str, str] = {"identity": "host.key", "peers": f'{{one: "{PUBLIC[1]}", two: "{PUBLIC[2]}"}}'}
        self.listen = {"mode": "listen", **LISTEN}
        self.connect = {"mode": "connect", **CONNECT}
        self.intercept = {"mode": "connect", **INTERCEPT}
        self.service = {"to": "127.0.0.1:6"}
        self.route = {"match": '"10.0.0.0/8:1"'}
        self.text: str | None = None

    def prepare(self, where: str) -> dict[str, str] | None:
        """Whatever a setting needs beside it, before and after. Returns the mapping that the setting goes into."""
        if where == "unix":
            self.listen["bind"] = "unix:/tmp/settings-test.sock"
            return self.listen
        if where == "takeover":
            self.whole["takeover"] = "unix:/tmp/takeover-test.sock"
            return self.whole
        if where in ("clients", "service-clients"):
            self.listen["proxy_protocol"] = "v2"
        if where == "original":
            self.listen |= {"to": "[original, 127.0.0.1:2]", "allow_targets": '"10.0.0.0/8:2"'}
        if where == "service-original":
            self.service |= {"to": "[original, 127.0.0.1:2]", "allow_targets": '"10.0.0.0/8:2"'}
        if where == "intercept-all":
            self.intercept["bind"] = '":5"'
        if where == "certificates":
            self.text = CERTIFIED
            return None
        if where == "agent":
            self.text = f"identity: host.key\npeers: {self.whole['peers']}\n{AGENT}"
            return None
        if where == "file":
            self.text = "psk: b.psk\ntunnels: {a: {mode: listen, bind: 127.0.0.1:1, to: 127.0.0.1:2}}\n"
            return None
        name = {"clients": "listen", "original": "listen", "intercept-all": "intercept"}.get(where, where.partition("-")[0])
        return getattr(self, name, None)

    def write(self, path: Path) -> Plan:
        path.write_text(self.text if self.text is not None else self._text())
        return load_plan(path)

    def _text(self) -> str:
        services = self.listen.pop("services", None) or f"{{s: {_flow(self.service)}}}"
        routes = self.intercept.pop("routes", None) or f"[{_flow(self.route)}]"
        tunnels = {
            "in": self.listen | {"services": services},
            "out": self.connect,
            "intercepting": self.intercept | ({"routes": routes} if "intercept" in self.intercept else {}),
        }
        lines = [f"{key}: {value}" for key, value in self.whole.items()]
        return "\n".join([*lines, "tunnels:", *(f"  {name}: {_flow(one)}" for name, one in tunnels.items()), ""])


def _flow(mapping: dict[str, str]) -> str:
    return "{" + ", ".join(f"{key}: {value}" for key, value in mapping.items()) + "}"


def _write_certificates(folder: Path) -> None:
    authority, other = TestAuthority(), TestAuthority(name="other")
    leaves = {name: authority.issue(f"dns:{name}") for name in ("a", "b")}
    for name, leaf in leaves.items():
        leaf.write(folder, name)
    authority.issue("dns:a", key=leaves["a"].key).write(folder, "renewed")
    authority.bundle(folder / "a-ca.crt")
    authority.bundle(folder / "b-ca.crt", other)
    authority.revoke(folder / "a.crl")
    authority.revoke(folder / "b.crl", leaves["b"], next_update=2 * DAY)
    (folder / "a.revoked").write_text("")
    (folder / "b.revoked").write_text(f"{PUBLIC[3]}\n")


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name, key in (("host", KEYS[0]), ("other", keys.PrivateKey.generate())):
        keys.write_secret_file(f"{name}.key", keys.format_private_key(key))
    for name in ("a", "b"):
        keys.write_secret_file(f"{name}.psk", keys.format_psk(keys.generate_psk()))
    keys.write_secret_file("a.token", "0123456789abcdef")
    keys.write_secret_file("a.headers", "authorization: Bearer 0123456789abcdef")
    Path("peers.d").mkdir()
    Path("peers.d/five.pub").write_text(str(keys.PrivateKey.generate().public))
    _write_certificates(tmp_path)
    return tmp_path / "c.yaml"


EVERY = [(model, change) for model, changes in CHANGES.items() for change in changes]


def plans(file: Path, model: str, change: Change) -> tuple[Plan, Plan]:
    """The plan without a setting, and with it."""
    where, key, value = change
    found = []
    for wanted in (False, True):
        config = Config()
        mapping = config.prepare(where)
        if where == "peers" and wanted:
            config.whole["peers"] = config.whole["peers"].replace("}", f", {key}: {value}}}")
        elif where.startswith("otlp"):
            collector = {"endpoint": "http://collector:4318" if wanted and where == "otlp-plain" else "https://collector:4318"}
            config.whole["otlp"] = _flow(collector | ({key: value} if wanted else {}))
        elif where in ("log", "dns"):
            config.whole[where] = _flow({key: value} if wanted else {})
        elif where == "allow_mode":
            config.listen[where] = _flow({key: value if wanted else SOON})
        elif where in ("proxy", "health", "keep"):
            name = {"proxy": "accept_proxy_protocol"}.get(where, where)
            config.connect[name] = _flow({key: value} if wanted else {})
        elif where == "file" and wanted:
            config.text = value
        elif where in ("certificates", "agent") and wanted:
            before = config.text or ""
            config.text = before.replace(*value.split(" => "), 1)
            assert config.text != before
        elif mapping is not None and wanted:
            _put(config, mapping, key, value)
        elif key == "admin_token":
            config.whole["admin"] = "127.0.0.1:9"
        found.append(config.write(file))
    return found[0], found[1]


def _put(config: Config, mapping: dict[str, str], key: str, value: str) -> None:
    mapping[key] = value
    if key == "admin_token":
        config.whole["admin"] = "127.0.0.1:9"
    if (mapping is config.connect, key, value) == (True, "mode", "listen"):
        mapping["allow"] = mapping.pop("peer")
    if key == "psk":
        del mapping["allow"]
    if (mapping is config.connect, key) == (True, "intercept"):
        mapping |= {"routes": '[{match: "10.0.0.0/8:1"}]'}
        config.intercept = {"mode": "connect", **CONNECT, "bind": "127.0.0.1:8"}


@pytest.mark.parametrize(("model", "change"), EVERY, ids=[f"{model}-{change[1]}" for model, change in EVERY])
def test_it_changes_the_plan(file: Path, model: str, change: Change) -> None:
    before, after = plans(file, model, change)
    assert before != after or before.known != after.known


def test_every_field_of_every_model_is_here() -> None:
    wanted = {(model.__name__, key) for _, model in reference.TABLES for key, _, _ in settings(model)}
    assert {(model, change[1]) for model, change in EVERY} == wanted


@pytest.mark.parametrize(("model", "change"), EVERY, ids=[f"{model}-{change[1]}" for model, change in EVERY])
def test_check_shows_it(file: Path, model: str, change: Change) -> None:
    """What `stcp-proxy check` prints differs: nothing is set that nobody sees."""
    if change[1] in ("admin_token",) or (model, change[1]) in {
        ("ConfigModel", "psk"),
        ("ConfigModel", "peers"),
        ("PeersModel", "include"),
    }:
        return  # a secret is not shown, and a peer that nobody uses is not either
    before, after = plans(file, model, change)
    assert describe_plan(before) != describe_plan(after)
