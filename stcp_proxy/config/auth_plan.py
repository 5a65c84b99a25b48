"""The part of a plan for authentication: own keys, admitted peers and shared secrets."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias

from stcp_proxy.config.audit import Audit
from stcp_proxy.config.certificate_plan import CertificateAuth
from stcp_proxy.keys import PrivateKey, PublicKey
from stcp_proxy.protocol.secret import Secret

Admitted: TypeAlias = PublicKey | str
"""One peer of an access list: a public key, or a pattern for names of certificates."""


@dataclass(frozen=True, slots=True)
class KeyAuth:
    """Authentication of peers that are known by name: each side proves its own key, or presents a certificate.

    Attributes:
        identity: our key; on the connect side the key that is tried first. None where all peers are known by certificates.
        peers: the peers' keys with their names for logs; on the connect side the keys of exactly one name, in order of
            preference.
        further: other own keys during a key exchange. A listen side answers for each of them; a connect side tries the next one
            after a denial.
        psk: a shared secret that each handshake needs beside the keys; None without one.
        certificates: authentication by certificates, which a listen side may have beside keys; None without certificates.
        audit: the audit mode of a listen side's rule; None where the rule refuses.
    """

    identity: PrivateKey | None
    peers: Mapping[PublicKey, str]
    further: tuple[PrivateKey, ...] = ()
    psk: Secret | None = None
    certificates: CertificateAuth | None = None
    audit: Audit | None = None

    def __eq__(self, other: object) -> bool:
        """Compare with order: the order decides which key is tried first."""
        return isinstance(other, KeyAuth) and self._parts == other._parts

    @property
    def _parts(self) -> tuple[object, ...]:
        return self.ring, list(self.peers.items()), self.psk, self.certificates, self.audit

    @property
    def ring(self) -> tuple[PrivateKey, ...]:
        """All own keys, in order."""
        return () if self.identity is None else (self.identity, *self.further)

    @property
    def admitted(self) -> frozenset[Admitted]:
        """Everybody who may connect."""
        return frozenset(self.peers) | frozenset(() if self.certificates is None else self.certificates.allow)

    @property
    def peer_names(self) -> list[str]:
        """Names of the peers by key, and patterns for names of certificates."""
        return [*self.peers.values(), *(() if self.certificates is None else self.certificates.allow)]


@dataclass(frozen=True, slots=True)
class PskAuth:
    """Authentication by a shared secret, which does not identify the peer.

    Attributes:
        secret: the shared secret.
    """

    secret: Secret
