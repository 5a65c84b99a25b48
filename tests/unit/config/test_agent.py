"""The agent of kernel sockets in a file and in flags: identities, users, peers, and every contradiction."""

from __future__ import annotations

import os
import pwd
from collections.abc import Callable
from pathlib import Path

import pytest

from stcp_proxy import keys
from stcp_proxy.config import KeyAuth, Plan, PskAuth, plan_from_flags
from stcp_proxy.config.agent_plan import AgentPlan
from stcp_proxy.config.diff import difference
from stcp_proxy.config.plan_bytes import dump
from stcp_proxy.config.plan_bytes import load as load_bytes
from stcp_proxy.config.plan_text import describe_plan
from stcp_proxy.errors import ConfigError
from stcp_proxy.net.pattern import parse_pattern
from stcp_proxy.protocol.wire import Suite

from .plan_files import APP, DB, OURS, PSK

Load = Callable[[str], Plan]

FILE = """\
identity: host.key
peers: {db: $DB, app: $APP}
agent:
  identities:
    default:
      users: [0, 1001]
      allow: app
      services: [orders, stock]
      connect:
        - {match: "10.0.0.5:6379", peer: db, service: cache}
        - {match: "[fd00::/8]", peer: $APP}
    old: {users: all, psk: shared.psk, suite: classic, connect: [{match: 10.9.0.0/16}]}
"""


def agent_of(plan: Plan) -> AgentPlan:
    assert plan.agent is not None
    return plan.agent


def test_a_file_with_an_agent_alone(load: Load) -> None:
    plan = load(FILE)
    agent = agent_of(plan)
    assert plan.tunnels == ()
    assert agent.max_handshakes == 256
    default, old = agent.identities["default"], agent.identities["old"]
    assert default.users == {0, 1001}
    assert isinstance(default.auth, KeyAuth)
    assert (default.auth.identity, default.auth.peers, default.suites) == (OURS, {APP: "app"}, (Suite.HYBRID_KEYS,))
    assert default.services == {"orders", "stock"}
    first, second = default.peers
    assert (first.match, first.suite, first.service) == (parse_pattern("10.0.0.5:6379"), Suite.HYBRID_KEYS, "cache")
    assert isinstance(first.auth, KeyAuth)
    assert (first.auth.peers, second.service) == ({DB: "db"}, None)
    assert (old.users, old.auth, old.suites) == (None, PskAuth(PSK), (Suite.CLASSIC_PSK,))
    assert [(peer.auth, peer.suite) for peer in old.peers] == [(PskAuth(PSK), Suite.CLASSIC_PSK)]
    assert {OURS.public, DB, APP} <= plan.known
    assert load_bytes(dump(plan)) == plan


def test_a_user_by_name(load: Load) -> None:
    name = pwd.getpwuid(os.getuid()).pw_name
    found = agent_of(load(FILE.replace("[0, 1001]", f"[{name}, '7']"))).identities["default"]
    assert found.users == {os.getuid(), 7}


def test_a_secret_beside_keys(load: Load) -> None:
    found = agent_of(load(FILE.replace("allow: app", "psk: shared.psk\n      allow: app"))).identities["default"]
    assert found.suites == (Suite.HYBRID_KEYS_PSK,)
    assert {peer.suite for peer in found.peers} == {Suite.HYBRID_KEYS_PSK}


def test_the_differences_of_a_reload(load: Load) -> None:
    """Keys appear by their public half, and no secret does."""
    lines = "\n".join(difference(load(FILE), load(FILE.replace("allow: app", "allow: db"))).lines())
    assert "allows app" in lines
    assert "allows db" in lines
    other = "\n".join(difference(load(FILE), load(FILE.replace("peer: $APP", "peer: db"))).lines())
    assert "[fd00::/8] is db" in other
    for text in (lines, other):
        assert keys.format_private_key(OURS) not in text
        assert OURS.secret.reveal().hex() not in text


def test_a_removed_key_is_named(load: Load) -> None:
    entry = '        - {match: "[fd00::/8]", peer: $APP}\n'
    lines = difference(load(FILE), load(FILE.replace(entry, "").replace("allow: app", "allow: db")))
    assert f"- key app {APP}" in lines.lines()


def test_check_shows_every_part(load: Load) -> None:
    text = describe_plan(load(FILE))
    for part in (
        "identity default",
        "0, 1001",
        "10.0.0.5:6379 is db, service cache",
        str(DB),
        str(APP),
        str(OURS.public),
        "orders, stock",
    ):
        assert part in text
    assert "every holder of the shared secret" in text


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("users: [0, 1001]", "users: [nosuchuser]", "there is no user 'nosuchuser' here; give the number"),
        ("users: [0, 1001]", "users: [all, 3]", "all users and some users exclude each other"),
        ("users: [0, 1001]", "users: [-1]", "the name or the number of a user belongs here"),
        ("users: [0, 1001]", "users: []", "this is empty"),
        ("      users: [0, 1001]\n", "", "'users' is missing"),
        ("allow: app", "allow: nobody", "nobody"),
        ("match: 10.9.0.0/16", "match: db.internal", "db.internal is a name"),
        ("match: 10.9.0.0/16", "match: 10.9.0.0/99", "prefix length"),
        (", psk: shared.psk", "", "neither 'peer' nor 'psk' is given"),
        ("peer: db, service", "service", "neither 'peer' nor 'psk' is given"),
        ("suite: classic", "suite: [hybrid, classic]", "a connect tunnel sends exactly one suite"),
        ("      allow: app\n", "", "services belong to listening sockets"),
        (
            "users: all, psk: shared.psk, suite: classic, connect: [{match: 10.9.0.0/16}]",
            "users: all",
            "this identity has no peer",
        ),
        ("identity: host.key\n", "", "a private key of this side's own is needed"),
        ("peer: $APP", "peer: $OURS", "this is this side's own public key"),
        ("  identities:", "  max_handshakes: 0\n  identities:", "from 1 to 1000000"),
        ("default:", "def ault:", "is not a name"),
    ],
)
def test_mistakes(load: Load, old: str, new: str, says: str) -> None:
    assert old in FILE
    with pytest.raises(ConfigError) as caught:
        load(FILE.replace(old, new, 1))
    assert says in str(caught.value)
    assert "agent" in str(caught.value) or "identity" in str(caught.value)


def test_neither_tunnels_nor_an_agent(load: Load) -> None:
    with pytest.raises(ConfigError, match="'tunnels' is missing; describe at least one tunnel"):
        load("identity: host.key\n")


# -- flags -------------------------------------------------------------------------------------------------------------------


def test_flags(folder: Path) -> None:
    plan = plan_from_flags(
        mode="agent",
        user=["root", "7"],
        key=folder / "host.key",
        allow=[f"app={APP}", str(DB)],
        peer=[f"10.0.0.5:6379={DB}", f"10.0.0.0/8={APP}"],
        service=["orders"],
        max_handshakes="9",
        log_level="debug",
    )
    agent = agent_of(plan)
    (found,) = agent.identities.values()
    assert [*agent.identities] == ["default"]
    assert (found.users, found.services, agent.max_handshakes, plan.log.level) == ({0, 7}, {"orders"}, 9, "debug")
    assert isinstance(found.auth, KeyAuth)
    assert found.auth.peers == {APP: "app", DB: f"{str(DB)[:21]}…"}
    assert [str(peer.match) for peer in found.peers] == ["10.0.0.5:6379", "10.0.0.0/8"]
    assert plan.tunnels == ()


def test_flags_of_a_shared_secret(folder: Path) -> None:
    plan = plan_from_flags(mode="agent", user=["all"], psk=folder / "shared.psk", peer=["10.0.0.0/8:6379"])
    (found,) = agent_of(plan).identities.values()
    assert (found.auth, found.peers[0].auth, found.users) == (PskAuth(PSK), PskAuth(PSK), None)


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        ({"peer": ["10.0.0.1"]}, "--peer: neither --peer nor --psk is given"),
        ({"peer": [str(DB)]}, "--peer: the address is missing; write ADDRESS=PEER"),
        ({"peer": ["dns:db.internal"]}, "--peer: the address is missing"),
        ({"peer": [f"10.0.0.1:0={DB}"]}, "--peer: "),
        ({}, "set --allow for listening sockets, or --peer for those that connect"),
        ({"user": ["nosuchuser"], "allow": [str(DB)]}, "--user: there is no user"),
        ({"allow": ["x"]}, "--allow: "),
    ],
)
def test_mistakes_in_flags(folder: Path, flags: dict[str, list[str]], says: str) -> None:
    with pytest.raises(ConfigError) as caught:
        plan_from_flags(mode="agent", **{"user": ["all"], "key": folder / "host.key"} | flags)
    assert says in str(caught.value)
