"""The difference between two plans: complete, minimal, and silent about secrets."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stcp_proxy.config import EngineChoice, KeyAuth, LogPlan, Mode, Plan, PskAuth, TunnelPlan
from stcp_proxy.config.diff import NamedKey, apply, difference
from stcp_proxy.keys import PrivateKey, PublicKey
from stcp_proxy.net.address import TcpAddress, UnixAddress
from stcp_proxy.protocol.secret import Secret
from stcp_proxy.protocol.wire import Suite

SECRETS = [Secret(hashlib.sha256(bytes([n])).digest()) for n in range(1, 4)]
IDENTITIES = [PrivateKey(secret) for secret in SECRETS]
PEERS = [PublicKey(bytes([n]) * 32) for n in range(10, 14)]

addresses = st.sampled_from([TcpAddress("127.0.0.1", 1), TcpAddress("::1", 2), TcpAddress("", 3), UnixAddress("/run/x")])
peers = st.dictionaries(st.sampled_from(PEERS), st.sampled_from(["app", "db"]), min_size=1)
auths = st.one_of(
    st.builds(KeyAuth, identity=st.sampled_from(IDENTITIES), peers=peers),
    st.builds(PskAuth, secret=st.sampled_from(SECRETS)),
)
tunnels = st.builds(
    TunnelPlan,
    name=st.sampled_from(["a", "b", "c", "d"]),
    mode=st.sampled_from(Mode),
    bind=addresses,
    to=st.lists(addresses, min_size=1, max_size=2).map(tuple),
    auth=auths,
    suites=st.lists(st.sampled_from(Suite), min_size=1, max_size=2, unique=True).map(tuple),
    engine=st.sampled_from(EngineChoice),
    max_connections=st.integers(1, 3),
    idle_timeout=st.none() | st.floats(1, 3),
)
plans = st.builds(
    Plan,
    tunnels=st.lists(tunnels, max_size=4, unique_by=lambda tunnel: tunnel.name).map(tuple),
    drain=st.floats(0, 2),
    workers=st.integers(1, 2),
    log=st.builds(LogPlan, level=st.sampled_from(["info", "debug"])),
)


@given(plans, plans)
def test_applying_the_difference_gives_the_new_plan(old: Plan, new: Plan) -> None:
    assert apply(difference(old, new), old) == new


@given(plans)
def test_no_difference_to_itself(plan: Plan) -> None:
    diff = difference(plan, plan)
    assert diff.empty
    assert list(diff.untouched) == [tunnel.name for tunnel in plan.tunnels]
    assert not diff.keys_in
    assert not diff.keys_out


@given(plans, plans)
def test_every_tunnel_is_in_one_place(old: Plan, new: Plan) -> None:
    diff = difference(old, new)
    names = [tunnel.name for tunnel in (*diff.added, *diff.removed)]
    names += [*(change.name for change in diff.changed), *diff.untouched]
    assert sorted(names) == sorted({tunnel.name for tunnel in (*old.tunnels, *new.tunnels)})
    assert all(change.settings for change in diff.changed)


@given(plans, plans)
def test_nothing_secret_in_it(old: Plan, new: Plan) -> None:
    diff = difference(old, new)
    text = "\n".join([*diff.lines(), json.dumps(diff.as_json()), repr(diff)])
    for raw in (secret.reveal() for secret in SECRETS):
        assert not any(spelled in text for spelled in (repr(raw[:8])[2:-1], raw[:8].hex(), base64.b64encode(raw).decode()[:16]))


def base(**settings: Any) -> TunnelPlan:
    tunnel = TunnelPlan(
        "in", Mode.LISTEN, TcpAddress("", 1), (TcpAddress("127.0.0.1", 2),), KeyAuth(IDENTITIES[0], {PEERS[0]: "app"}),
        (Suite.HYBRID_KEYS,),
    )  # fmt: skip
    return dataclasses.replace(tunnel, **settings)


def test_words() -> None:
    """What a person reads, and what a program does."""
    old = Plan((base(), base(name="gone"), base(name="same")))
    auth = KeyAuth(IDENTITIES[0], {PEERS[1]: "app", PEERS[2]: "db"})
    new = Plan((base(max_connections=5, idle_timeout=90.0, auth=auth), base(name="same"), base(name="new")), drain=5.0)
    diff = difference(old, new)
    assert diff.lines() == [
        "+ tunnel new (listen, :1)",
        "- tunnel gone (listen, :1)",
        f"~ tunnel in: auth app {PEERS[0]} -> app {PEERS[1]}, db {PEERS[2]}",
        "~ tunnel in: max_connections 10000 -> 5",
        "~ tunnel in: idle_timeout none -> 90",
        "~ drain 30 -> 5",
        f"+ key app {PEERS[1]}",
        f"+ key db {PEERS[2]}",
        "= untouched: same",
    ]
    assert diff.as_json() == {
        "added": ["new"],
        "removed": ["gone"],
        "changed": {
            "in": {
                "auth": [f"app {PEERS[0]}", f"app {PEERS[1]}, db {PEERS[2]}"],
                "max_connections": ["10000", "5"],
                "idle_timeout": ["none", "90"],
            }
        },
        "untouched": ["same"],
        "settings": {"drain": ["30", "5"]},
        "keys_in": [{"role": "peer", "name": name, "key": str(key)} for name, key in (("app", PEERS[1]), ("db", PEERS[2]))],
        "keys_out": [],
    }


def test_key_that_leaves_the_last_tunnel_is_out() -> None:
    old = Plan((base(), base(name="b", auth=KeyAuth(IDENTITIES[1], {PEERS[0]: "app"}))))
    diff = difference(old, Plan((base(auth=KeyAuth(IDENTITIES[0], {PEERS[1]: "app"})),)))
    assert [str(key) for key in diff.keys_out] == [f"(own) {IDENTITIES[1].public}", f"app {PEERS[0]}"]
    assert [str(key) for key in diff.keys_in] == [f"app {PEERS[1]}"]


def test_change_of_a_shared_secret_is_told_without_it() -> None:
    psk = [Plan((base(auth=PskAuth(secret), suites=(Suite.HYBRID_PSK,)),)) for secret in SECRETS[:2]]
    assert difference(*psk).lines() == ["~ tunnel in: auth another shared secret -> another shared secret"]
    assert difference(psk[0], Plan((base(suites=(Suite.HYBRID_PSK,)),))).lines()[0] == (
        f"~ tunnel in: auth a shared secret -> own key {IDENTITIES[0].public}, app {PEERS[0]}"
    )


def test_thousands_of_peers_are_looked_up_not_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    """A reload happens in the loop that carries the connections: the work grows with the number of keys, not with its square."""
    work = 0

    def counted(method: Callable[..., Any]) -> Callable[..., Any]:
        def count(*arguments: Any) -> Any:
            nonlocal work
            work += 1
            return method(*arguments)

        return count

    for kind, name in ((NamedKey, "__eq__"), (NamedKey, "__hash__"), (PublicKey, "__hash__"), (PublicKey, "__str__")):
        monkeypatch.setattr(kind, name, counted(getattr(kind, name)))

    def with_peers(count: int) -> Plan:
        auth = KeyAuth(IDENTITIES[0], {PublicKey(number.to_bytes(32, "big")): f"peer-{number}" for number in range(1, count)})
        return Plan(tunnels=(base(auth=auth),))

    found = difference(with_peers(1000), with_peers(1001))
    assert [key.name for key in found.keys_in] == ["peer-1000"]
    assert len(found.lines()) == 2
    assert len(found.as_json()["changed"]) == 1
    assert work < 30_000
