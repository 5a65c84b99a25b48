"""Several keys for an identity and for a peer, in a file."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from stcp_proxy.config import KeyAuth, Plan, describe_plan, load_plan
from stcp_proxy.config.diff import difference
from stcp_proxy.config.source import ConfigProblems
from stcp_proxy.keys import PrivateKey, format_private_key, format_psk, generate_psk, write_secret_file
from stcp_proxy.protocol.wire import Suite

OURS = [PrivateKey.generate() for _ in range(5)]
THEIRS = [PrivateKey.generate().public for _ in range(5)]
Load = Callable[[str], Plan]


@pytest.fixture
def load(tmp_path: Path) -> Load:
    for number, key in enumerate(OURS):
        write_secret_file(tmp_path / f"{number}.key", format_private_key(key) + "\n")
    write_secret_file(tmp_path / "copy.key", format_private_key(OURS[0]) + "\n")

    def load_text(text: str) -> Plan:
        path = tmp_path / "c.yaml"
        path.write_text(re.sub(r"\$(\d)", lambda found: f'"{THEIRS[int(found[1])]}"', text))
        return load_plan(path)

    return load_text


def auth(plan: Plan, index: int = 0) -> KeyAuth:
    found = plan.tunnels[index].auth
    assert isinstance(found, KeyAuth)
    return found


LISTEN = "tunnels: {in: {mode: listen, bind: 127.0.0.1:7443, to: 127.0.0.1:1, allow: app%s}}\n"
CONNECT = "tunnels: {out: {mode: connect, bind: 127.0.0.1:7443, to: 127.0.0.1:1, peer: db}}\n"


def test_rings(load: Load) -> None:
    plan = load("identity: [1.key, 0.key]\npeers: {app: [$0, $1], db: $2}\n" + LISTEN % "")
    assert auth(plan).ring == (OURS[1], OURS[0])
    assert auth(plan).peers == {THEIRS[0]: "app", THEIRS[1]: "app"}
    text = describe_plan(plan)
    assert all(str(key) in text for key in (OURS[0].public, OURS[1].public, THEIRS[0], THEIRS[1]))


def test_peer_of_a_connect_tunnel_has_all_keys_of_its_name(load: Load) -> None:
    plan = load("identity: 0.key\npeers: {db: [$3, $0]}\n" + CONNECT)
    assert list(auth(plan).peers.items()) == [(THEIRS[3], "db"), (THEIRS[0], "db")]
    assert auth(plan).ring == (OURS[0],)


def test_ring_of_a_tunnel(load: Load) -> None:
    plan = load("identity: 0.key\npeers: {app: $0}\n" + LISTEN % ", identity: [2.key, 1.key]")
    assert auth(plan).ring == (OURS[2], OURS[1])


def test_another_order_is_another_plan(load: Load) -> None:
    """It says which key is tried first."""
    old = load("identity: 0.key\npeers: {db: [$3, $0]}\n" + CONNECT)
    new = load("identity: 0.key\npeers: {db: [$0, $3]}\n" + CONNECT)
    assert [change.name for change in difference(old, new).changed] == ["out"]
    assert not difference(new, new).changed


@pytest.mark.parametrize(
    ("head", "says"),
    [
        ("identity: [0.key, copy.key]\npeers: {app: $0}", "identity[1]: this is the same key as '0.key'; name it once"),
        ("identity: [0.key, no.key]\npeers: {app: $0}", "identity[1]: the key file"),
        (
            "identity: [0.key, 1.key, 2.key, 3.key, 4.key]\npeers: {app: $0}",
            "identity: at most 4 are allowed here, and the file has 5",
        ),
        ("identity: []\npeers: {app: $0}", "identity: this is empty"),
        ("identity: 0.key\npeers: {app: [$0, $0]}", "peers.app[1]: this key is there already; name it once"),
        ("identity: 0.key\npeers: {app: [$0, $1], db: [$2, $1]}", "peers.db[1]: 'app' has the same key"),
        ("identity: 0.key\npeers: {app: []}", "peers.app: this is empty"),
        ("identity: 0.key\npeers: {app: [$0, $1, $2, $3, $4]}", "peers.app: at most 4 are allowed here"),
        ("identity: 0.key\npeers: {app: [$0, 7]}", "peers.app[1]: text belongs here"),
        pytest.param(
            f'identity: [1.key, 0.key]\npeers: {{app: [$0, "{OURS[0].public}"]}}',
            "allow: this is this side's own public key",
            id="own key",  # else the name of the test is another in each process
        ),
    ],
)
def test_refused(load: Load, head: str, says: str) -> None:
    with pytest.raises(ConfigProblems) as caught:
        load(f"{head}\n{LISTEN % ''}")
    assert says in str(caught.value)


def test_a_secret_beside_keys(load: Load, tmp_path: Path) -> None:
    secret = generate_psk()
    write_secret_file(tmp_path / "shared.psk", format_psk(secret) + "\n")
    old = load("identity: 0.key\npeers: {app: $0}\n" + LISTEN % "")
    new = load("identity: 0.key\npeers: {app: $0}\n" + LISTEN % ", psk: shared.psk")
    assert auth(new).psk == secret
    assert new.tunnels[0].suites == (Suite.HYBRID_KEYS_PSK,)
    assert "keys and a shared secret" in describe_plan(new)
    assert any("none -> a shared secret beside keys" in line for line in difference(old, new).lines())


def test_the_files_secret_stays_for_tunnels_without_keys(load: Load, tmp_path: Path) -> None:
    write_secret_file(tmp_path / "shared.psk", format_psk(generate_psk()) + "\n")
    assert auth(load("psk: shared.psk\nidentity: 0.key\npeers: {app: $0}\n" + LISTEN % "")).psk is None
