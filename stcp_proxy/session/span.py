"""The record of an ended connection for its span: what the exporter makes a span of.

A connection makes a span when it was relayed, or when it failed; health checks make none. On a listen tunnel only a peer that has
authenticated makes spans: strangers shall not fill a collector. They are counted and logged all the same.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any, Final, Protocol

from stcp_proxy.config import Mode
from stcp_proxy.errors import Code, Judgement, Severity
from stcp_proxy.protocol.wire import Suite
from stcp_proxy.spans.sink import Sink

_MOST: Final = 200
"""The largest number of characters of one text: the record has to fit into one write."""
_OF_CONNECTION: Final = ("tunnel", "channel", "peer", "client", "origin", "original", "target", "service", "leg")
_OF_ITS_END: Final = {"reason": "reason", "engine": "engine", "bytes_to_wire": "to_wire", "bytes_to_plain": "to_plain"}
"""Fields of the log line, and their names in the record."""
_FAILURES: Final = (Severity.WARNING, Severity.ERROR)


class Ended(Protocol):
    """A connection that has ended; the texts of `_OF_CONNECTION` are attributes of it too."""

    @property
    def channel(self) -> str:
        """The channel id; empty before the handshake."""

    @property
    def started(self) -> float:
        """When it was accepted, on the monotonic clock."""

    @property
    def mode(self) -> Mode:
        """The end of the wire leg at which the tunnel is."""

    @property
    def suite(self) -> Suite | None:
        """The suite of its wire leg; None before the handshake."""

    @property
    def has_authenticated(self) -> bool:
        """Whether the peer has authenticated."""


def offer(to: Sink, connection: Ended, judgement: Judgement, why: str, code: int | None, fields: Mapping[str, object]) -> None:
    """Give the record of a connection to the exporter. Never waits.

    Args:
        to: takes the record.
        connection: it has ended.
        judgement: of its end.
        why: the failure in a sentence.
        code: the wire code of its end; None without one.
        fields: of its log line.
    """
    mode = connection.mode
    if judgement.is_check or (mode is Mode.LISTEN and not connection.has_authenticated) or not to.wants(connection.channel):
        return
    found: dict[str, Any] = {name: getattr(connection, name)[:_MOST] for name in _OF_CONNECTION}
    found |= {name: fields.get(field) for field, name in _OF_ITS_END.items()}
    record = {name: value for name, value in found.items() if value not in (None, "")}
    record |= {"mode": mode.value, "seconds": time.monotonic() - connection.started, "ended": time.time_ns()}
    if connection.suite is not None:
        record["suite"] = connection.suite.name.lower().replace("_", "-")
    if code is not None:
        record["code"] = _code_text(code)
    if judgement.severity in _FAILURES:
        record |= {"failed": True, "why": why[:_MOST]}
    to.offer(record)


def _code_text(code: int) -> str:
    try:
        return Code(code).name.lower()
    except ValueError:
        return str(code)
