"""Keys and pieces of configuration files for tests, and the mistakes that a file has."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from stcp_proxy import keys
from stcp_proxy.config import ConfigProblems, Plan
from stcp_proxy.errors import ConfigError
from stcp_proxy.protocol.secret import Secret

OURS = keys.PrivateKey(Secret(bytes(range(1, 33))))
DB = keys.PrivateKey(Secret(bytes(range(2, 34)))).public
APP = keys.PrivateKey(Secret(bytes(range(3, 35)))).public
PSK = Secret(bytes(range(100, 132)))
SECRET = keys.format_private_key(OURS)
"""The text that no message may repeat."""

HEAD = """\
identity: host.key
peers: {db-host: $DB, app-host: $APP}
tunnels:
"""
CONNECT = "  out: {mode: connect, bind: 127.0.0.1:5432, to: db1:7443, peer: db-host%s}\n"
LISTEN = "  in: {mode: listen, bind: :7443, to: :6379, allow: app-host%s}\n"


def problems(load: Callable[[str], Plan], text: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load(text)
    assert isinstance(caught.value, ConfigProblems)
    assert all(str(finding) in str(caught.value) for finding in caught.value.findings)
    return [str(finding).split("/c.yaml:", 1)[1] for finding in caught.value.findings]
