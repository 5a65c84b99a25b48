"""From flags to a plan, and every mistake on a command line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from stcp_proxy.config import EngineChoice, KeyAuth, Mode, PskAuth, plan_from_flags
from stcp_proxy.errors import ConfigError
from stcp_proxy.net.address import TcpAddress
from stcp_proxy.protocol.wire import Suite

from .plan_files import APP, DB, PSK, SECRET


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
