"""Options that more than one command has. Values stay text: the configuration's models judge them, in one set of words."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from stcp_proxy.cli import completion


def _option(metavar: str, words: str, panel: str | None = None, *, values: completion.Completion | None = None) -> Any:
    return typer.Option(metavar=metavar, help=words, rich_help_panel=panel, autocompletion=values or completion.of(metavar))


_KEYS = "Who may talk to whom"
_LIMITS = "Limits and deadlines"
_LOGS = "Logs"

Bind = Annotated[str, _option("ADDR", "Accept here: host:port, \\[v6]:port, :port or unix:/path.")]
BindMode = Annotated[str | None, _option("0600|0660|0666", "Mode of a unix socket that is bound; 0600 unless said.")]
To = Annotated[list[str], _option("ADDR", "Hand on to here, an address or srv:_service._tcp.domain; repeatable.")]
Balance = Annotated[
    str | None, _option("failover|round-robin|least-connections", "In which order targets are tried; failover unless said.")
]
ListenTo = Annotated[list[str] | None, _option("ADDR", "Hand on to here, an address or srv:_service._tcp.domain; repeatable.")]
Services = Annotated[list[str] | None, _option("NAME=ADDR", "Hand on to here for peers that ask for this service; repeatable.")]
Service = Annotated[str | None, _option("NAME", "Ask the peer for this service.")]
ProxyProtocol = Annotated[str | None, _option("v1|v2", "Tell the target its client's address ahead of each connection's bytes.")]
Engine = Annotated[str | None, _option("auto|kernel|python", "Which engine relays; auto unless said.")]

Key = Annotated[Path | None, _option("FILE", "This side's private key.", _KEYS)]
Psk = Annotated[Path | None, _option("FILE", "A shared secret instead of keys, the same on both sides.", _KEYS)]
Allow = Annotated[list[str] | None, _option("[NAME=]PUBKEY", "A public key that may connect; repeat it for more.", _KEYS)]
Peer = Annotated[str | None, _option("PUBKEY", "The other side's public key.", _KEYS)]
Suite = Annotated[str | None, _option("hybrid|classic", "The key exchange to send; hybrid unless said.", _KEYS)]
Suites = Annotated[
    list[str] | None, _option("hybrid|classic", "A key exchange to accept, repeatable; hybrid unless said.", _KEYS)
]

MaxConnections = Annotated[int | None, _option("N", "Connections at a time; 10000 unless said.", _LIMITS)]
MaxHandshakes = Annotated[int | None, _option("N", "Handshakes under way at a time; 256 unless said.", _LIMITS)]
HandshakeTimeout = Annotated[str | None, _option("TIME", "For the peer's proof; 10s unless said.", _LIMITS)]
DialTimeout = Annotated[str | None, _option("TIME", "For reaching a target, names included; 10s unless said.", _LIMITS)]
IdleTimeout = Annotated[str | None, _option("TIME", "End a connection that is silent for this long; never unless said.", _LIMITS)]
HalfCloseTimeout = Annotated[str | None, _option("TIME", "The same once one direction has ended; 15m unless said.", _LIMITS)]
Drain = Annotated[str | None, _option("TIME", "How long connections may finish after a stop; 30s unless said.", _LIMITS)]
Workers = Annotated[int | None, _option("N", "Processes that share the load; 1 unless said.", _LIMITS)]

LogLevel = Annotated[str | None, _option("debug|info|warning|error", "How much is logged; info unless said.", _LOGS)]
LogFormat = Annotated[str | None, _option("text|json", "Text on a terminal and JSON elsewhere unless said.", _LOGS)]
Quiet = Annotated[
    list[str] | None,
    _option(
        "CLASS",
        "Say nothing about connections, handshake-errors or connection-errors; repeat it for more.",
        _LOGS,
        values=completion.words("connections", "handshake-errors", "connection-errors"),
    ),
]
_LOOK = "Looking into it"
Admin = Annotated[
    str | None, _option("ADDR", "Answer here with status and metrics: a loopback address or unix:/path; none unless said.", _LOOK)
]
AdminToken = Annotated[
    Path | None, _option("FILE", "The token that a request has to bring; for another address it must be there.", _LOOK)
]
ConfigFile = Annotated[
    Path,
    typer.Argument(metavar="CONFIG", help="The YAML file.", show_default=False, autocompletion=completion.files),
]
