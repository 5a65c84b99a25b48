"""What is known of one connection, from accept to its one log line."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Final, Protocol

import structlog

from stcp_proxy.counters import UNKNOWN, KeyUse, Ledger, Refusal
from stcp_proxy.errors import Cause, ClientGone, PeerLeft, ShuttingDown, StcpError, Truncated, UnknownPeer, describe, remedy_for
from stcp_proxy.keys import PublicKey
from stcp_proxy.logs import log
from stcp_proxy.relay.engine import EndReason, Relay, RelayEnd
from stcp_proxy.upstream.endpoint import Endpoint

_log = structlog.get_logger("stcp_proxy.connection")

_ORDINARY = {
    EndReason.FINISHED,
    EndReason.PLAIN_RESET,
    EndReason.PEER_RESET,
    EndReason.IDLE_TIMEOUT,
    EndReason.HALF_CLOSE_TIMEOUT,
    EndReason.ABORTED,
}
"""Ends that are the applications' own business, or what was configured."""

_REMEDIES: Final = {
    EndReason.PLAIN_RESET: "look at the application on this side if it should not have",
    EndReason.TRUNCATED: Truncated.usual_remedy,
    EndReason.BAD_FRAME: "look for what changes bytes between the two sides: bad hardware, or somebody; versions that differ",
    EndReason.IDLE_TIMEOUT: "raise idle_timeout, or let the application send something now and then",
    EndReason.HALF_CLOSE_TIMEOUT: "raise half_close_timeout if an answer may take longer",
    EndReason.ABORTED: "connect again",
    EndReason.INTERNAL_ERROR: "tell the authors",
}
"""What helps, for every end that somebody may not have wanted; the peer's RESET has its own by its code."""


@dataclass(slots=True)
class Totals:
    """What a process has done so far.

    Attributes:
        served: connections that were relayed and have ended.
        refused: connections that did not come to be relayed.
        bytes_to_wire: application bytes read from plain legs.
        bytes_to_plain: application bytes given to plain legs.
    """

    served: int = 0
    refused: int = 0
    bytes_to_wire: int = 0
    bytes_to_plain: int = 0

    @classmethod
    def of(cls, ledger: Ledger) -> Totals:
        """What a tunnel has done so far."""
        return cls(ledger.total_ended, ledger.total_refused, ledger.bytes_to_wire, ledger.bytes_to_plain)

    def add(self, other: Totals) -> None:
        """Count `other` in."""
        self.served += other.served
        self.refused += other.refused
        self.bytes_to_wire += other.bytes_to_wire
        self.bytes_to_plain += other.bytes_to_plain


_NOBODYS_TROUBLE: Final = (ClientGone, PeerLeft, ShuttingDown)
"""Failures that nobody would do something about."""


class Owner(Protocol):
    """Who keeps the live connections."""

    @property
    def ledger(self) -> Ledger:
        """Where it is counted."""

    def settle(self, connection: Connection, end: RelayEnd) -> None:
        """From an engine's thread: see to it that `connection.ended(end)` is called in Trio's."""

    def forget(self, connection: Connection) -> None:
        """In Trio's thread: the connection has ended, whatever its end was."""


class Connection:
    """One accepted connection.

    Args:
        tunnel: the tunnel's name.
        client: address of whoever connected, as text.
        owner: who keeps it.

    Attributes:
        channel: the channel id that both sides log; empty before the handshake.
        peer: the peer's name in this side's configuration; empty before the handshake.
        key: the key that the peer has proved, 32 bytes; None before that, and with a shared secret.
        own: the key of this side's that it was proved to, likewise.
        service: what the peer asked for, or is asked for.
        origin: address of the application's client where that is not who connected: as the peer told it, or a PROXY header.
        target: address this side dialled.
        original: where the application was going before it was intercepted; empty where it was not.
        endpoint: the same with what is known of it, for as long as this connection counts as one of its own.
        in_the_clear: whether it is passed on unencrypted: it came by no key, and none that goes takes it along.
        relay: the engine's handle, once an engine carries it.
        early: application bytes that went with OPEN, before the engine counted.
        cut: why its way to an engine was cut short, where this side decided that.
    """

    __slots__ = (
        "_owner",
        "channel",
        "client",
        "cut",
        "early",
        "endpoint",
        "in_the_clear",
        "key",
        "origin",
        "original",
        "own",
        "peer",
        "relay",
        "service",
        "started",
        "target",
        "tunnel",
    )

    def __init__(self, tunnel: str, client: str, owner: Owner) -> None:
        self.tunnel = tunnel
        self.client = client
        self.started = time.monotonic()
        self.channel = ""
        self.peer = ""
        self.key: bytes | None = None
        self.own: bytes | None = None
        self.service = ""
        self.origin = ""
        self.target = ""
        self.original = ""
        self.endpoint: Endpoint | None = None
        self.early = 0
        self.in_the_clear = False
        self.cut: StcpError | None = None
        self.relay: Relay | None = None
        self._owner = owner

    @property
    def ledger(self) -> Ledger:
        """The tunnel's."""
        return self._owner.ledger

    def proved(self, peer: str, key: bytes | None, own: bytes | None = None) -> None:
        """The peer has proved who it is.

        Args:
            peer: its configured name.
            key: its key; None with a shared secret.
            own: the key of this side's that it was proved to.
        """
        self.peer, self.key, self.own = peer, key, own
        if key is not None and own is not None:
            pairs = self.ledger.pairs
            use = pairs.get((own, key))
            if use is None:
                use = pairs[own, key] = KeyUse()
            use.total += 1
            use.last = time.time()

    def relay_ended(self, end: RelayEnd) -> None:
        """The engine's callback, in its thread."""
        self._owner.settle(self, end)

    def ended(self, end: RelayEnd) -> None:
        """The engine is done with it: count it and say so."""
        ledger = self.ledger
        engine = self.relay.engine if self.relay is not None else ""
        ledger.ended[self.peer or UNKNOWN, engine, end.reason.value] += 1
        ledger.bytes_to_wire += end.bytes_to_wire + self.early
        ledger.bytes_to_plain += end.bytes_to_plain
        ours = end.reason is EndReason.INTERNAL_ERROR
        level = "info" if end.reason in _ORDINARY else "error" if ours else "warning"
        extra: dict[str, object] = {}
        if end.code is not None:
            extra["why"] = describe(end.code, end.text)
        elif end.text:
            extra["why"] = end.text
        remedy = (
            remedy_for(end.code) if end.code is not None and end.reason is EndReason.PEER_RESET else _REMEDIES.get(end.reason)
        )
        if remedy:
            extra["remedy"] = remedy
        relay = self.relay
        if relay is not None and relay.why_engine:
            extra["why_engine"] = relay.why_engine
        self._say(
            level,
            "connection closed",
            reason=end.reason.value,
            bytes_to_wire=end.bytes_to_wire + self.early,
            bytes_to_plain=end.bytes_to_plain,
            engine=relay.engine if relay is not None else "",
            **extra,
        )

    def failed(self, exc: BaseException) -> None:
        """It did not come to be relayed."""
        self._count(exc)
        extra: dict[str, object] = {}
        if isinstance(exc, StcpError):
            extra = {"reason": exc.label, "cause": exc.cause.value, "why": exc.what}
            if exc.remedy:
                extra["remedy"] = exc.remedy
            if isinstance(exc, UnknownPeer):
                extra["key"] = str(PublicKey(exc.peer))
            level = "info" if isinstance(exc, _NOBODYS_TROUBLE) else "error" if exc.cause is Cause.OURS else "warning"
            self._say(level, "connection refused", **extra)
        else:
            why, remedy = f"{type(exc).__name__}: {exc}", _REMEDIES[EndReason.INTERNAL_ERROR]
            self._say("error", "connection refused", reason="internal_error", why=why, remedy=remedy, exc_info=exc)

    def _count(self, exc: BaseException) -> None:
        label, why, remedy = "internal_error", type(exc).__name__, ""
        if isinstance(exc, StcpError):
            label, why, remedy = exc.label, exc.what, exc.remedy or ""
        self.ledger.refused[self.peer or UNKNOWN, label] += 1
        if not isinstance(exc, _NOBODYS_TROUBLE):
            self.ledger.refusals.add(Refusal(time.time(), self.client, self.peer, label, why, remedy))

    def _say(self, level: str, event: str, **fields: object) -> None:
        if not log.is_hidden(level):
            known: dict[str, object] = {"tunnel": self.tunnel, "client": self.client}
            for name in ("origin", "channel", "peer", "service", "original", "target"):
                value = getattr(self, name)
                if value:
                    known[name] = value
            seconds = round(time.monotonic() - self.started, 3)
            getattr(_log, level)(event, **known, **fields, seconds=seconds)
        if self.endpoint is not None:
            self.endpoint.live -= 1
            self.endpoint = None
        self._owner.forget(self)
