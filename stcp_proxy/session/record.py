"""The record of one connection, from accept to its one log line."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Protocol

import structlog

from stcp_proxy.config import Mode
from stcp_proxy.config.certificate_plan import time_text
from stcp_proxy.counters import UNKNOWN, KeyUse, Ledger, Refusal
from stcp_proxy.errors import (
    CertificateNotAllowed,
    Code,
    Judgement,
    KeyRevoked,
    LifetimeOver,
    LogClass,
    PeerRejected,
    Severity,
    StcpError,
    TargetError,
    UnknownPeer,
    code_for,
    describe,
    remedy_for,
)
from stcp_proxy.handshake.trust import Peer
from stcp_proxy.keys import PublicKey
from stcp_proxy.logs import log
from stcp_proxy.logs.rate_limit import ONCE_MORE
from stcp_proxy.protocol.wire import Suite
from stcp_proxy.relay.engine import EndReason, Relay, RelayEnd
from stcp_proxy.session import span
from stcp_proxy.spans import sink
from stcp_proxy.upstream.endpoint import Endpoint

if TYPE_CHECKING:
    from stcp_proxy.credentials.verifier import Verified

_log = structlog.get_logger("stcp_proxy.connection")
_DEBUG: Final = Severity.DEBUG.value


@dataclass(slots=True)
class Totals:
    """Totals of a process since its start.

    Attributes:
        served: connections that were relayed and have ended.
        refused: connections that were not relayed.
        bytes_to_wire: application bytes read from plain legs.
        bytes_to_plain: application bytes given to plain legs.
    """

    served: int = 0
    refused: int = 0
    bytes_to_wire: int = 0
    bytes_to_plain: int = 0

    @classmethod
    def of(cls, ledger: Ledger) -> Totals:
        """The totals of a tunnel."""
        return cls(ledger.total_ended, ledger.total_refused, ledger.bytes_to_wire, ledger.bytes_to_plain)

    def add(self, other: Totals) -> None:
        """Add `other`."""
        self.served += other.served
        self.refused += other.refused
        self.bytes_to_wire += other.bytes_to_wire
        self.bytes_to_plain += other.bytes_to_plain


class Owner(Protocol):
    """Keeps the live connections of a tunnel."""

    @property
    def ledger(self) -> Ledger:
        """The counters of the tunnel."""

    @property
    def mode(self) -> Mode:
        """The end of the wire leg at which the tunnel is."""

    def settle(self, connection: Connection, end: RelayEnd) -> None:
        """Call `connection.ended(end)` in Trio's thread. Called from an engine's thread."""

    def forget(self, connection: Connection) -> None:
        """Drop a connection that has ended. Called in Trio's thread."""


def once_more(failure: StcpError, tunnel: str) -> None:
    """Count a failure like one that was logged just now: the log adds it to the `times` of a line. No `Connection` is needed."""
    judgement = failure.judgement
    say = getattr(_log, judgement.severity.value)
    say(_event(failure), tunnel=tunnel, reason=failure.label, log_class=judgement.log_class, **{ONCE_MORE: True})


def _event(failure: StcpError) -> str:
    """The log event of a connection that a failure ended before it was relayed."""
    return "health check received" if failure.judgement.is_check else "connection refused"


class Connection:
    """One accepted connection.

    Args:
        tunnel: the tunnel's name.
        client: address of the client, as text.
        owner: keeps the connection.
        waited: seconds since it was accepted.
        ephemeral: the ephemeral key of its first message; empty where it was not read.

    Attributes:
        channel: the channel id that both sides log; empty before the handshake.
        peer: the peer's name in this side's configuration; empty before it has authenticated.
        key: the public key of the authenticated peer, 32 bytes; None before that, and with a shared secret.
        own: the public key of this side in that handshake; None in the same cases.
        rule: the part of the configuration that admits the peer, which is its label in metrics; see `Peer.rule`.
        certificate: the verified certificate of the peer; None without one.
        suite: the suite of its wire leg; None before the handshake.
        service: the service that the initiator asks for.
        leg: whether its wire leg is `new` or `kept`; empty before OPEN.
        origin: address of the application's client from the peer or a PROXY header; empty without one.
        target: the address that this side dialled.
        original: the destination that the application dialled, where the connection was intercepted; empty elsewhere.
        endpoint: the endpoint that counts this connection as live; None before and afterwards.
        in_the_clear: whether it is passed on unencrypted; the removal of a key does not end it then.
        relay: the engine's handle; None before the handover.
        early: application bytes that were sent with OPEN, which the engine does not count.
        cut: why this side cancelled the session; None where it did not.
        ephemeral: the ephemeral key of its first message; empty once it was noted.
        waited: seconds that it had waited when its session began. They count as a part of `handshake_timeout`.
        audited: whether audit mode alone admits the peer.
        unit: the peer or host for which the connection counts in `PeerLimits`; None where it does not count.
    """

    __slots__ = (
        "_identity",
        "_owner",
        "audited",
        "certificate",
        "channel",
        "client",
        "cut",
        "early",
        "endpoint",
        "ephemeral",
        "in_the_clear",
        "key",
        "leg",
        "origin",
        "original",
        "own",
        "peer",
        "relay",
        "rule",
        "service",
        "started",
        "suite",
        "target",
        "tunnel",
        "unit",
        "waited",
    )

    def __init__(self, tunnel: str, client: str, owner: Owner, *, waited: float = 0.0, ephemeral: bytes = b"") -> None:
        self.tunnel = tunnel
        self.client = client
        self.started = time.monotonic() - waited
        self.waited = waited
        self.ephemeral = ephemeral
        self.channel = ""
        self.peer = ""
        self.key: bytes | None = None
        self.own: bytes | None = None
        self.rule = ""
        self.certificate: Verified | None = None
        self.audited = False
        self.suite: Suite | None = None
        self.service = ""
        self.leg = ""
        self.origin = ""
        self.target = ""
        self.original = ""
        self.endpoint: Endpoint | None = None
        self.early = 0
        self.in_the_clear = False
        self.cut: StcpError | None = None
        self.unit: str | None = None
        self.relay: Relay | None = None
        self._owner = owner
        self._identity: Peer | None = None
        """The peer that has proved it; the fields above say the same."""

    @property
    def ledger(self) -> Ledger:
        """The counters of the tunnel."""
        return self._owner.ledger

    @property
    def mode(self) -> Mode:
        """The end of the wire leg at which the tunnel is."""
        return self._owner.mode

    @property
    def has_authenticated(self) -> bool:
        """Whether the peer has authenticated."""
        return self._identity is not None

    @property
    def identity(self) -> Peer:
        """The identity of the authenticated peer."""
        return self._identity or Peer(self.peer, self.rule, self.key, self.own, self.certificate, self.audited)

    def proved(self, peer: Peer) -> None:
        """Note that the peer has authenticated."""
        self.peer, self.rule, self.key, self.own, self.certificate = peer.name, peer.rule, peer.key, peer.own, peer.certificate
        self.audited, self._identity = peer.audited, peer
        if peer.key is not None and peer.own is not None and not peer.audited:  # strangers make any number of keys
            pairs = self.ledger.pairs
            use = pairs.get((peer.own, peer.key))
            if use is None:
                use = pairs[peer.own, peer.key] = KeyUse()
            use.total += 1
            use.last = time.time()
        if (certificate := peer.certificate) is not None:
            self.ledger.issuers.note(certificate.issuer_key, peer.name, certificate.not_after, time.time())

    def admitted_by_audit(self) -> None:
        """Count and log that audit mode alone admits the peer."""
        refusal, named = (UnknownPeer, "key") if self.certificate is None else (CertificateNotAllowed, "certificate")
        self.ledger.audited[refusal.label] += 1
        why = f"no entry of 'allow' names the peer's {named}; it would be refused without audit mode"
        remedy = f"if it belongs here, add {'the key' if self.certificate is None else 'a name of the certificate'} to 'allow'"
        names = {} if self.certificate is None else {"names": list(self.certificate.names)}
        _log.warning("peer admitted by audit", **self._facts(why, remedy), **names, reason=refusal.label)

    def unproved(self) -> None:
        """Forget the peer and its address, because the next one is tried."""
        self.channel = self.peer = self.rule = self.target = self.leg = ""
        self.key = self.own = self.certificate = self._identity = self.suite = None

    def served_by(self, relay: Relay) -> None:
        """Note the handover to an engine."""
        self.relay = relay
        self.ledger.refusals.note_served(self.client, time.time())
        if not log.is_hidden(_DEBUG):
            _log.debug("connection opened", **self._facts(), engine=relay.engine, log_class=LogClass.CONNECTIONS)

    def _facts(self, why: str = "", remedy: str = "") -> dict[str, str]:
        """The known facts about the connection, for a log line."""
        first = {"tunnel": self.tunnel, "peer": self.peer, "why": why, "remedy": remedy} | _of_certificate(self.certificate)
        first["client"] = self.client
        known = {name: getattr(self, name) for name in ("origin", "channel", "leg", "service", "original", "target")}
        return {name: value for name, value in (first | known).items() if value}

    def relay_ended(self, end: RelayEnd) -> None:
        """Take the end of the relay from the engine, in the engine's thread."""
        self._owner.settle(self, end)

    def ended(self, end: RelayEnd) -> None:
        """Count and log the end of a relayed connection."""
        ledger, relay = self.ledger, self.relay
        engine = relay.engine if relay is not None else ""
        to_wire, reason = end.bytes_to_wire + self.early, end.reason.value
        ledger.ended[self.rule or UNKNOWN, engine, reason] += 1
        ledger.bytes_to_wire += to_wire
        ledger.bytes_to_plain += end.bytes_to_plain
        by_peer = end.code is not None and end.reason is EndReason.PEER_RESET
        remedy = remedy_for(end.code) if by_peer and end.code is not None else end.reason.remedy
        if end.reason is EndReason.ABORTED and end.code is Code.KEY_REVOKED:
            remedy = KeyRevoked.usual_remedy
        elif end.reason is EndReason.ABORTED and end.code is Code.OVER_LIMIT:
            remedy = LifetimeOver.usual_remedy
        self._say(
            end.reason.judgement,
            "connection closed",
            why=end.text if end.code is None else describe(end.code, end.text),
            remedy=remedy,
            reason=reason,
            bytes_to_wire=to_wire,
            bytes_to_plain=end.bytes_to_plain,
            engine=engine,
            code=end.code,
            **({"why_engine": relay.why_engine} if relay is not None and relay.why_engine else {}),
        )

    def made_ready(self) -> None:
        """Note that the peer has made its wire leg ready for a later connection. The record ends."""
        if not log.is_hidden(_DEBUG):
            _log.debug("wire leg made ready", **self._facts(), log_class=LogClass.CONNECTIONS)
        self._owner.forget(self)

    def failed(self, exc: BaseException) -> None:
        """Count and log a connection that was not relayed."""
        if not isinstance(exc, StcpError):
            kind, reason = type(exc).__name__, EndReason.INTERNAL_ERROR
            self._count(self._refusal(reason.value, kind, "", judgement=reason.judgement))
            why = f"{kind}: {exc}"
            self._say(reason.judgement, "connection refused", why=why, remedy=reason.remedy, reason=reason.value, exc_info=exc)
            return
        judgement, remedy = exc.judgement, exc.remedy or ""
        key = str(PublicKey(exc.peer)) if isinstance(exc, UnknownPeer) else ""
        at_target = isinstance(exc, TargetError)
        self._count(self._refusal(exc.label, exc.what, remedy, key=key, judgement=judgement, at_target=at_target))
        event = _event(exc)
        named = {"key": key} if key else {}
        self._say(
            judgement, event, why=exc.what, remedy=remedy, **named, reason=exc.label, cause=exc.cause.value, code=self._code(exc)
        )

    def _code(self, exc: StcpError) -> int | None:
        """The wire code of a failure: the peer's, or this side's to an authenticated peer."""
        if isinstance(exc, PeerRejected):
            return exc.reason
        return code_for(exc) if self.has_authenticated else None

    def _refusal(self, reason: str, why: str, remedy: str, **fields: Any) -> Refusal:
        return Refusal(time.time(), self.client, self.peer, reason, why, remedy, **fields)

    def _count(self, refusal: Refusal) -> None:
        if refusal.judgement.is_check:
            self.ledger.checks[refusal.reason] = self.ledger.checks.get(refusal.reason, 0) + 1
        else:
            self.ledger.refused[self.rule or UNKNOWN, refusal.reason] += 1
        if not refusal.judgement.is_noise:
            self.ledger.refusals.add(refusal)

    def _say(self, judgement: Judgement, event: str, *, why: str, remedy: str, code: int | None = None, **fields: object) -> None:
        """Write the one log line of the connection, and make its span. The record ends."""
        level = judgement.severity.value
        if not log.is_hidden(level):
            seconds = round(time.monotonic() - self.started, 3)
            getattr(_log, level)(event, **self._facts(why, remedy), **fields, seconds=seconds, log_class=judgement.log_class)
        if (spans := sink.current()) is not None:
            span.offer(spans, self, judgement, why, code, fields)
        if self.endpoint is not None:
            self.endpoint.live -= 1
            self.endpoint = None
        self._owner.forget(self)


def _of_certificate(certificate: Verified | None) -> dict[str, str]:
    """The fields of a log line about the peer's certificate."""
    if certificate is None:
        return {}
    return {
        "authority": certificate.authority,
        "serial": f"{certificate.serial:x}",
        "not_after": time_text(certificate.not_after),
    }
