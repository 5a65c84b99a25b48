"""The two ways to a plan: a YAML file, or the flags of one tunnel."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from stcp_proxy.config.build import build, given
from stcp_proxy.config.plan import Mode, Plan
from stcp_proxy.config.source import file_source, flag_source
from stcp_proxy.errors import ConfigError
from stcp_proxy.redact import shown


def load_plan(path: str | Path, *, admin: str | None = None, admin_token: str | Path | None = None) -> Plan:
    """The plan in a YAML file.

    Args:
        path: the file.
        admin, admin_token: take the place of the file's, where they are given.

    Raises:
        ConfigError: with every mistake that was found, by file, line and key path.
    """
    source = file_source(path)
    source.data |= given({"admin": admin, "admin_token": None if admin_token is None else os.path.abspath(admin_token)})
    return build(source)


def plan_from_flags(
    *,
    mode: Mode,
    bind: str,
    to: Sequence[str],
    services: Sequence[str] = (),
    key: str | Path | None = None,
    allow: Sequence[str] = (),
    peer: str | None = None,
    psk: str | Path | None = None,
    engine: str | None = None,
    suite: Sequence[str] = (),
    log_level: str | None = None,
    log_format: str | None = None,
    quiet: Sequence[str] = (),
    drain: float | str | None = None,
    workers: int | None = None,
    admin: str | None = None,
    admin_token: str | Path | None = None,
    **settings: float | str | None,
) -> Plan:
    """The plan of one tunnel, named after its mode. What is None or empty has the default that it has in a file.

    Args:
        mode: which command it was.
        bind, to, peer, engine, suite: as in a file.
        services: each as NAME=ADDRESS; a name may come again with another address.
        key, psk: names of files.
        allow: public keys, each alone or as NAME=KEY.
        log_level, log_format, quiet, drain, workers, admin: as in a file.
        admin_token: name of a file.
        settings: max_connections and the other limits and deadlines of a tunnel, as in a file.

    Raises:
        ConfigError: with every mistake that was found, by flag.
    """
    peers, allowed = _named_keys(allow)
    tunnel: dict[str, Any] = {"mode": mode.value, "bind": bind, "to": list(to), "allow": allowed, "peer": peer}
    tunnel["services"] = _named_targets(services) or None
    tunnel |= {"identity": _text(key), "psk": _text(psk), "suite": list(suite), "engine": engine, **settings}
    log = {"level": log_level, "format": log_format, "quiet": list(quiet)}
    data = {"peers": peers, "tunnels": {mode.value: given(tunnel)}, "drain": drain, "workers": workers, "log": given(log)}
    data |= {"admin": admin, "admin_token": _text(admin_token)}
    return build(flag_source(given(data)))


def _text(path: str | Path | None) -> str | None:
    return None if path is None else str(path)


def _named_keys(allow: Sequence[str]) -> tuple[dict[str, str], list[str]]:
    """`--allow` values as the `peers` and `allow` of a file."""
    peers: dict[str, str] = {}
    allowed = []
    for text in allow:
        name, equals, key = text.partition("=")
        if equals and not name.lower().startswith("stcp-") and key.lower().startswith("stcp-"):
            if name in peers:
                raise ConfigError("--allow: the same name is given to two keys", remedy="give each key a name of its own")
            peers[name] = key
            allowed.append(name)
        else:
            allowed.append(text)
    return peers, allowed


def _named_targets(services: Sequence[str]) -> dict[str, list[str]]:
    """`--service` values as the `services` of a file."""
    found: dict[str, list[str]] = {}
    for text in services:
        name, equals, address = text.partition("=")
        if not equals:
            raise ConfigError(f"--service: {shown(text)} has no target", remedy="write NAME=ADDRESS")
        found.setdefault(name, []).append(address)
    return found
