"""Access rules in the form that handshakes use, and the connections that a new rule no longer covers."""

from __future__ import annotations

import time
from collections.abc import Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from stcp_proxy.config import KeyAuth, PskAuth
from stcp_proxy.config.audit import AUDITED, Audit
from stcp_proxy.config.certificate_plan import CertificateAuth, Trusted
from stcp_proxy.errors import KeyRevoked
from stcp_proxy.handshake.exchange import AnyResponder
from stcp_proxy.handshake.key_order import Choice
from stcp_proxy.keys import PUBLIC_PREFIX, PublicKey
from stcp_proxy.protocol.established import Established
from stcp_proxy.protocol.handshake import Credentials, Responder
from stcp_proxy.protocol.noise import KeyPair
from stcp_proxy.protocol.responder_choice import ResponderChoice
from stcp_proxy.protocol.secret import Secret
from stcp_proxy.protocol.wire import Suite

if TYPE_CHECKING:
    from stcp_proxy.credentials.verifier import Verified
    from stcp_proxy.handshake.certified import Admission, Certified


class Peer(NamedTuple):
    """The identity of a peer that has completed a handshake.

    Attributes:
        name: its name for logs: the configured one, or the name of its certificate.
        rule: the part of the configuration that admits it, for metrics: its name, or the pattern that covers its certificate.
        key: its public key, 32 bytes; None with a shared secret or a certificate.
        own: the public key of this side in the handshake; likewise.
        certificate: what its certificate says; None without one.
        audited: whether no entry of the rule names it, and audit mode alone admits it.
    """

    name: str
    rule: str = ""
    key: bytes | None = None
    own: bytes | None = None
    certificate: Verified | None = None
    audited: bool = False

    @property
    def names(self) -> tuple[str, ...]:
        """The names of its certificate; empty without one."""
        return () if self.certificate is None else self.certificate.names

    @property
    def has_expired(self) -> bool:
        """Whether its certificate has reached its end."""
        return self.certificate is not None and self.certificate.has_ended(time.time())

    @property
    def full_name(self) -> str:
        """Its name for a target: its whole key where it has no name; empty with a shared secret."""
        if self.certificate is not None:
            return self.name
        if self.key is None:
            return ""
        return str(PublicKey(self.key)) if self.name.startswith(PUBLIC_PREFIX) else self.name


@dataclass(frozen=True, slots=True)
class Trust:
    """A tunnel's access rule.

    Attributes:
        credentials: the keys of this side, the shared secret, or both; none of them where all peers have certificates.
        names: peers by public key, 32 bytes; empty with a shared secret.
        choice: the order in which a connect tunnel tries pairs of keys.
        own: this side's public keys, 32 bytes each; empty with a shared secret.
        certified: the rule for peers with certificates; None without one.
        audit: its audit mode; None where it refuses.
    """

    credentials: Credentials
    names: dict[bytes, str]
    choice: Choice
    own: frozenset[bytes] = frozenset()
    certified: Certified | None = None
    audit: Audit | None = None

    @classmethod
    def of(cls, auth: KeyAuth | PskAuth) -> Trust:
        """The rule of a plan."""
        if isinstance(auth, PskAuth):
            return cls(Credentials(psk=auth.secret), {}, Choice((None,), (None,)))
        certified = None if auth.certificates is None else _certified(auth.certificates, auth.audit)
        if not auth.ring:
            return cls(Credentials(), {}, Choice((None,), (None,)), certified=certified, audit=auth.audit)
        names = {key.raw: name for key, name in auth.peers.items()}
        first, *further = ring = [KeyPair(identity.secret) for identity in auth.ring]
        credentials = Credentials(first, auth.psk, further=tuple(further))
        own = frozenset(pair.public for pair in ring)
        return cls(credentials, names, Choice(ring, tuple(names)), own, certified, auth.audit)

    def responder(self, suites: Collection[Suite]) -> AnyResponder:
        """The listening side of one handshake.

        Args:
            suites: suites that the configuration allows.
        """
        if self.certified is None:
            return self._keyed(suites)
        certified = self.certified
        fitting = [suite for suite in suites if self.credentials.fit(suite)]
        keyed = {suite: lambda: self._keyed(suites) for suite in fitting}
        return ResponderChoice({**keyed, Suite.HYBRID_CERTIFICATES: lambda: certified.responder()})

    def _keyed(self, suites: Collection[Suite]) -> Responder:
        return Responder(suites, self.credentials, allowed=self.names if self.audit is None else self.admits)

    def admits(self, key: bytes) -> bool:
        """Whether a peer with this key may connect: the rule names it, or audit mode admits it.

        Revoked keys and this side's own key are never admitted by audit.
        """
        if key in self.names:
            return True
        if self.audit is None or not self.audit.is_on(time.time()):
            return False
        return key not in self.own and PublicKey(key) not in self.audit.revoked

    def peer(self, established: Established) -> Peer:
        """The identity of an authenticated peer. A shared secret names nobody."""
        if established.verified is not None:
            admission: Admission = established.verified  # type: ignore[assignment]
            return Peer(admission.name, admission.rule, certificate=admission.certificate, audited=admission.audited)
        if established.peer is None:
            return Peer("(shared secret)", "(shared secret)")
        name = self.names.get(established.peer, "")
        if not name and self.audit is not None:
            return Peer(str(PublicKey(established.peer)), AUDITED, established.peer, established.own, audited=True)
        return Peer(name, name, established.peer, established.own)

    def covers(self, before: Trust, peer: Peer) -> bool:
        """Whether this rule would also admit a connection.

        Args:
            before: the rule that admitted it.
            peer: the identity of its peer.
        """
        if before is self and not peer.audited:
            return True
        if peer.certificate is not None:
            return self.certified is not None and self.certified.covers(peer.certificate)
        same_secret = self.credentials.psk == before.credentials.psk
        if peer.own is None or peer.key is None:
            return self.credentials.psk is not None and same_secret
        return peer.own in self.own and self.admits(peer.key) and same_secret

    def remains(self, keys: Collection[PublicKey], secrets: Collection[Secret | None], trusted: Trusted) -> Trust:
        """The rule for the connections of a removed tunnel: the part that the file still trusts. It begins no handshake.

        Args:
            keys: public keys in the file, own ones among them.
            secrets: shared secrets that the file still names; None stands for a tunnel without one.
            trusted: authorities of the file, and what is revoked.
        """
        raw = {key.raw for key in keys}
        psk = self.credentials.psk if any(secret == self.credentials.psk for secret in secrets) else None
        names = {key: name for key, name in self.names.items() if key in raw}
        certified = None if self.certified is None else self.certified.under(trusted)
        return Trust(Credentials(psk=psk), names, Choice((), ()), self.own & raw, certified)


def _certified(auth: CertificateAuth, audit: Audit | None) -> Certified:
    from stcp_proxy.handshake.certified import Certified

    return Certified(auth, audit)


def revoked() -> KeyRevoked:
    """The failure of a connection whose key or certificate, the peer's or this side's, is no longer good here."""
    what = (
        "a key or certificate of this connection was revoked, removed from this side's file, or admitted by an audit that is over"
    )
    return KeyRevoked(what)
