"""What a listen tunnel offers, and whom a connect tunnel believes: from a file and from flags, with every mistake."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from stcp_proxy import keys
from stcp_proxy.config import (
    AcceptProxy,
    ConfigProblems,
    HandOn,
    KeyAuth,
    Mode,
    Plan,
    ServicePlan,
    describe_plan,
    load_plan,
    plan_from_flags,
)
from stcp_proxy.net.address import TcpAddress
from stcp_proxy.net.pattern import parse_pattern
from stcp_proxy.protocol.secret import Secret

OURS = keys.PrivateKey(Secret(bytes(range(1, 33))))
DB = keys.PrivateKey(Secret(bytes(range(2, 34)))).public
APP = keys.PrivateKey(Secret(bytes(range(3, 35)))).public
Load = Callable[[str], Plan]

LISTEN = """\
identity: host.key
peers: {db-host: $DB, app-host: $APP}
tunnels:
  in:
    mode: listen
    bind: 0.0.0.0:7443
"""
CONNECT = """\
identity: host.key
peers: {db-host: $DB, app-host: $APP}
tunnels:
  out:
    mode: connect
    bind: 127.0.0.1:5432
    to: db1:7443
    peer: db-host
"""


@pytest.fixture
def load(tmp_path: Path) -> Load:
    keys.write_secret_file(tmp_path / "host.key", keys.format_private_key(OURS) + "\n")
    keys.write_secret_file(tmp_path / "shared.psk", keys.format_psk(Secret(bytes(range(32)))) + "\n")

    def load_text(text: str) -> Plan:
        path = tmp_path / "c.yaml"
        path.write_text(text.replace("$DB", f'"{DB}"').replace("$APP", f'"{APP}"'))
        return load_plan(path)

    return load_text


def problems(load: Load, text: str) -> list[str]:
    with pytest.raises(ConfigProblems) as caught:
        load(text)
    return [re.sub(r"^.*c\.yaml:", "", str(finding)) for finding in caught.value.findings]


# -- services --------------------------------------------------------------------------------------------------------------


def test_services(load: Load) -> None:
    (tunnel,) = load(
        LISTEN
        + """\
    to: 127.0.0.1:9
    allow: app-host
    services:
      redis: 127.0.0.1:6379
      web: [10.0.0.1:80, 10.0.0.2:80]
      postgres: {to: 127.0.0.1:5432, allow: [db-host, app-host], proxy_protocol: v2}
      mail: {to: 127.0.0.1:25, allow: db-host}
"""
    ).tunnels
    assert isinstance(tunnel.auth, KeyAuth)
    assert set(tunnel.auth.peers.values()) == {"app-host", "db-host"}
    assert tunnel.allow == frozenset({APP})
    assert tunnel.services == {
        "redis": ServicePlan((TcpAddress("127.0.0.1", 6379),), frozenset({APP})),
        "web": ServicePlan((TcpAddress("10.0.0.1", 80), TcpAddress("10.0.0.2", 80)), frozenset({APP})),
        "postgres": ServicePlan((TcpAddress("127.0.0.1", 5432),), None, HandOn("v2")),
        "mail": ServicePlan((TcpAddress("127.0.0.1", 25),), frozenset({DB})),
    }


def test_services_alone(load: Load) -> None:
    (tunnel,) = load(LISTEN + "    services: {redis: {to: 127.0.0.1:6379, allow: app-host}}\n").tunnels
    assert tunnel.to == ()
    assert tunnel.services["redis"].allow is None


def test_services_behind_a_shared_secret(load: Load) -> None:
    (tunnel,) = load(
        LISTEN.replace("0.0.0.0", "127.0.0.1") + "    psk: shared.psk\n    services: {redis: 127.0.0.1:6379}\n"
    ).tunnels
    assert tunnel.services["redis"].allow is None


def test_what_the_tunnel_says_holds_for_its_services(load: Load) -> None:
    (tunnel,) = load(
        LISTEN
        + """\
    allow: app-host
    proxy_protocol: v2
    allow_clients: 10.0.0.0/8
    services:
      redis: 127.0.0.1:6379
      plain: {to: 127.0.0.1:1, proxy_protocol: none}
      other: {to: 127.0.0.1:2, proxy_protocol: v1, allow_clients: ["10.1.0.0/16", "[fd00::/8]"]}
"""
    ).tunnels
    ten = (parse_pattern("10.0.0.0/8"),)
    assert tunnel.hand_on == tunnel.services["redis"].hand_on == HandOn("v2", ten)
    assert tunnel.services["plain"].hand_on.proxy_protocol is None
    assert tunnel.services["other"].hand_on == HandOn("v1", (parse_pattern("10.1.0.0/16"), parse_pattern("[fd00::/8]")))


def test_a_connect_tunnel_names_a_service(load: Load) -> None:
    (tunnel,) = load(CONNECT + "    service: redis\n").tunnels
    assert tunnel.service == "redis"


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ("    allow: app-host\n", "tunnels.in.to: 'to' is missing; name the target of the connections, or name 'services'"),
        ("    services: {redis: 127.0.0.1:6379}\n", "neither 'allow' nor 'psk' is given"),
        (
            "    services: {redis: 127.0.0.1:6379, web: {to: 127.0.0.1:80, allow: app-host}}\n",
            "tunnels.in.services.redis: neither the service nor its tunnel has 'allow'",
        ),
        (
            "    to: 127.0.0.1:9\n    services: {web: {to: 127.0.0.1:80, allow: app-host}}\n",
            "tunnels.in.allow: 'allow' is missing, so no peer could reach 'to'",
        ),
        ("    allow: app-host\n    services: {}\n", "tunnels.in.services: this is empty"),
        ("    allow: app-host\n    services: redis\n", "tunnels.in.services: a mapping belongs here"),
        ("    allow: app-host\n    services: {redis: 6379}\n", "tunnels.in.services.redis: a mapping belongs here"),
        ("    allow: app-host\n    services: {redis: '6379'}\n", "tunnels.in.services.redis: '6379' has no port"),
        ("    allow: app-host\n    services: {'no name': 127.0.0.1:1}\n", "'no name' is not a name"),
        ("    allow: app-host\n    services: {redis: {allow: app-host}}\n", "tunnels.in.services.redis.to: 'to' is missing"),
        (
            "    allow: app-host\n    services: {redis: {to: 127.0.0.1:1, alow: x}}\n",
            "redis.alow: there is no such key; did you mean 'allow'",
        ),
        (
            "    allow: app-host\n    services: {redis: {to: 127.0.0.1:1, bind: x}}\n",
            "known here: to, balance, allow, proxy_protocol, source, allow_clients, allow_targets",
        ),
        ("    allow: app-host\n    services: {redis: {to: 127.0.0.1:1, allow: ap-host}}\n", "did you mean 'app-host'"),
        (
            "    allow: app-host\n    services: {redis: 127.0.0.1:7443}\n",
            "services.redis: 127.0.0.1:7443 is where this tunnel itself listens",
        ),
        ("    allow: app-host\n    services: {redis: unix:/no/such/x}\n", "services.redis: the folder /no/such"),
        ("    allow: app-host\n    to: 127.0.0.1:1\n    service: redis\n", "a listen tunnel has no 'service'"),
        (
            "    allow: app-host\n    to: 127.0.0.1:1\n    accept_proxy_protocol: true\n",
            "a listen tunnel has no 'accept_proxy_protocol'",
        ),
        ("    allow: app-host\n    to: 127.0.0.1:1\n    proxy_protocol: v3\n", "'v1', 'v2' or 'none' belongs here"),
        ("    allow: app-host\n    to: 127.0.0.1:1\n    allow_clients: 10.0.0.0/8\n", "no target is told the client's address"),
        (
            "    allow: app-host\n    to: 127.0.0.1:1\n    proxy_protocol: v2\n    allow_clients: db.internal\n",
            "db.internal is a name",
        ),
        (
            "    allow: app-host\n    to: 127.0.0.1:1\n    proxy_protocol: v2\n    allow_clients: [10.1.1.1:80]\n",
            "allow_clients[0]: 10.1.1.1:80 has a port",
        ),
    ],
)
def test_mistakes_of_a_listen_tunnel(load: Load, settings: str, says: str) -> None:
    found = problems(load, LISTEN + settings)
    assert len(found) == 1
    assert says in found[0]


# -- headers that are believed ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("setting", "rule"),
    [
        ("true", AcceptProxy()),
        ("false", None),
        ("{from: 10.0.0.0/8}", AcceptProxy((parse_pattern("10.0.0.0/8"),))),
        ("{from: [10.0.0.1, '[fd00::/8]']}", AcceptProxy((parse_pattern("10.0.0.1"), parse_pattern("[fd00::/8]")))),
    ],
)
def test_accept_proxy_protocol(load: Load, setting: str, rule: AcceptProxy | None) -> None:
    (tunnel,) = load(CONNECT + f"    accept_proxy_protocol: {setting}\n").tunnels
    assert tunnel.accept_proxy == rule


@pytest.mark.parametrize("bind", ["127.0.0.9:1", "'[::1]:1'", "localhost:1", "unix:/tmp/x.sock"])
def test_anybody_on_this_host_may_be_believed(load: Load, bind: str) -> None:
    text = CONNECT.replace("127.0.0.1:5432", bind) + "    accept_proxy_protocol: true\n"
    assert load(text).tunnels[0].accept_proxy == AcceptProxy()


@pytest.mark.parametrize(
    ("bind", "setting", "says"),
    [
        (
            "0.0.0.0:1",
            "true",
            "tunnels.out.accept_proxy_protocol: every host that reaches 0.0.0.0:1 could claim any client address; list",
        ),
        ("':1'", "true", "could claim any client address"),
        ("10.0.0.1:1", "{}", "could claim any client address"),
        ("lb.internal:1", "true", "could claim any client address"),
        ("unix:/tmp/x.sock", "{from: 10.0.0.1}", "a unix socket has no address"),
        ("127.0.0.1:1", "{from: lb.internal}", "lb.internal is a name"),
        ("127.0.0.1:1", "{from: 10.0.0.1:80}", "has a port"),
        ("127.0.0.1:1", "{from: []}", "from: this is empty"),
        ("127.0.0.1:1", "{form: 10.0.0.1}", "did you mean 'from'"),
        ("127.0.0.1:1", "10.0.0.1", "a mapping belongs here"),
        ("127.0.0.1:1", "{from: 10.0.0.1/8}", "bits behind its prefix length"),
    ],
)
def test_mistakes_of_a_connect_tunnel(load: Load, bind: str, setting: str, says: str) -> None:
    found = problems(load, CONNECT.replace("127.0.0.1:5432", bind) + f"    accept_proxy_protocol: {setting}\n")
    assert len(found) == 1
    assert says in found[0]


@pytest.mark.parametrize(
    "setting",
    ["services: {redis: 127.0.0.1:1}", "proxy_protocol: v2", "allow_clients: 10.0.0.1", "allow_targets: 10.0.0.1", "source: own"],
)
def test_what_a_connect_tunnel_does_not_have(load: Load, setting: str) -> None:
    found = problems(load, CONNECT + f"    {setting}\n")
    assert len(found) == 1
    assert f"a connect tunnel has no '{setting.partition(':')[0]}'" in found[0]


# -- original destinations -------------------------------------------------------------------------------------------------


def test_original_destinations(load: Load) -> None:
    (tunnel,) = load(
        LISTEN
        + """\
    to: [original, 127.0.0.1:6379]
    allow: app-host
    allow_targets: [10.0.0.0/8:6379, "[fd00::/8]:1-1024", ":443"]
    services:
      alone: {to: original}
      narrow: {to: original, allow_targets: 10.1.0.0/16}
      fixed: 127.0.0.1:80
"""
    ).tunnels
    rules = tuple(map(parse_pattern, ("10.0.0.0/8:6379", "[fd00::/8]:1-1024", ":443")))
    assert (tunnel.to, tunnel.hand_on.allow_targets) == ((TcpAddress("127.0.0.1", 6379),), rules)
    assert (tunnel.services["alone"].to, tunnel.services["alone"].hand_on.allow_targets) == ((), rules)
    assert tunnel.services["narrow"].hand_on.allow_targets == (parse_pattern("10.1.0.0/16"),)
    assert tunnel.services["fixed"].hand_on.allow_targets is None


def test_original_destinations_in_words(load: Load) -> None:
    text = describe_plan(
        load(LISTEN + "    allow: app-host\n    to: [original, 127.0.0.1:1]\n    allow_targets: [10.0.0.0/8:6379]\n")
    )
    assert "to plain     the client's original destination\n               127.0.0.1:1\n" in text
    assert "may go to    10.0.0.0/8:6379\n" in text


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ("to: original", "without 'allow_targets' a peer could reach every address that this host can reach"),
        ("to: 127.0.0.1:1\n    allow_targets: 10.0.0.1", "no original destination is dialled here"),
        ("to: [127.0.0.1:1, original]\n    allow_targets: 10.0.0.1", "'original' must be first, and once"),
        ("to: [original, original]\n    allow_targets: 10.0.0.1", "'original' must be first, and once"),
        ("to: original\n    allow_targets: db.internal:5432", "allow_targets: db.internal:5432 is a name"),
        ("to: original\n    allow_targets: []", "allow_targets: this is empty"),
        ("to: Original\n    allow_targets: 10.0.0.1", "'Original' has no port"),
        ("services: {a: original}", "services.a: without 'allow_targets'"),
        ("services: {a: {to: 127.0.0.1:1, allow_targets: 10.0.0.1}}", "services.a.allow_targets: no original destination"),
        (
            "services: {a: {to: original, allow_targets: 10.0.0.1}}\n    allow_targets: 10.0.0.1",
            "in.allow_targets: no original destination",
        ),
    ],
)
def test_mistakes_about_original_destinations(load: Load, settings: str, says: str) -> None:
    found = problems(load, LISTEN + f"    allow: app-host\n    {settings}\n")
    assert len(found) == 1
    assert says in found[0]


def test_a_connect_tunnel_dials_its_peer(load: Load) -> None:
    (found,) = problems(load, CONNECT.replace("db1:7443", "original"))
    assert "'original' is not the address of a peer" in found


# -- the client's own address ----------------------------------------------------------------------------------------------


def test_the_clients_own_address(load: Load) -> None:
    plan = load(
        LISTEN
        + """\
    to: 127.0.0.1:1
    allow: app-host
    source: transparent
    allow_clients: 10.0.0.0/8
    services: {a: 127.0.0.1:2, b: {to: "unix:/tmp/b.sock", source: own}}
"""
    )
    (tunnel,) = plan.tunnels
    found = [tunnel.hand_on, tunnel.services["a"].hand_on, tunnel.services["b"].hand_on]
    assert [each.transparent for each in found] == [True, True, False]
    assert "  source       the client's own address\n" in describe_plan(plan)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ("to: 127.0.0.1:1\n    source: Transparent", "source: 'own' or 'transparent' belongs here"),
        ("to: unix:/tmp/x.sock\n    source: transparent", "and unix:/tmp/x.sock is a unix socket"),
        ("source: transparent\n    services: {a: unix:/tmp/x.sock}", "and unix:/tmp/x.sock is a unix socket"),
    ],
)
def test_mistakes_about_the_clients_own_address(load: Load, settings: str, says: str) -> None:
    (found,) = problems(load, LISTEN + f"    allow: app-host\n    {settings}\n")
    assert says in found


# -- flags and words -------------------------------------------------------------------------------------------------------


def flags(tmp_path: Path, **settings: Any) -> Plan:
    if not (tmp_path / "host.key").exists():
        keys.write_secret_file(tmp_path / "host.key", keys.format_private_key(OURS) + "\n")
    return plan_from_flags(bind="127.0.0.1:7443", key=tmp_path / "host.key", **settings)


def test_services_from_flags(tmp_path: Path) -> None:
    services = ["redis=127.0.0.1:6379", "web=10.0.0.1:80", "web=10.0.0.2:80"]
    plan = flags(tmp_path, mode=Mode.LISTEN, to=[], allow=[str(APP)], service=services, proxy_protocol="v2")
    (tunnel,) = plan.tunnels
    assert [str(target) for target in tunnel.services["web"].to] == ["10.0.0.1:80", "10.0.0.2:80"]
    assert tunnel.services["redis"].hand_on == HandOn("v2")
    assert flags(tmp_path, mode=Mode.CONNECT, to=["db:1"], peer=str(DB), service="redis").tunnels[0].service == "redis"


@pytest.mark.parametrize(
    ("services", "says"),
    [(["redis"], "--service: 'redis' has no target"), (["redis=x"], "'x' has no port"), (["=127.0.0.1:1"], "is not a name")],
)
def test_mistakes_in_flags(tmp_path: Path, services: list[str], says: str) -> None:
    with pytest.raises(Exception, match=re.escape(says)):
        flags(tmp_path, mode=Mode.LISTEN, to=[], allow=[str(APP)], service=services)


def test_a_plan_in_words(load: Load) -> None:
    text = describe_plan(
        load(
            LISTEN
            + """\
    allow: app-host
    proxy_protocol: v2
    services:
      redis: 127.0.0.1:6379
      mail: {to: 127.0.0.1:25, allow: db-host, allow_clients: [10.0.0.0/8]}
"""
        )
    )
    assert "service      redis: 127.0.0.1:6379\n  header       PROXY protocol v2\n  allowed here app-host\n" in text
    assert (
        "service      mail: 127.0.0.1:25\n  header       PROXY protocol v2\n  clients      10.0.0.0/8\n  allowed here db-host\n"
        in text
    )
    assert "a PROXY header is required, from 10.0.0.1" in describe_plan(
        load(CONNECT + "    service: redis\n    accept_proxy_protocol: {from: 10.0.0.1}\n")
    )
