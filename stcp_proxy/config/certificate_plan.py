"""Certificates in a plan: this side's own, the authorities that may vouch for peers, and what is revoked.

A certificate is its DER encoding here. So a process without certificates never imports `cryptography.x509`, and a change of a
file's content is a change of the plan.
"""

from __future__ import annotations

import datetime
import math
from dataclasses import dataclass
from typing import ClassVar

from stcp_proxy.protocol.secret import Secret


class CertificateKey(Secret):
    """The private key of a certificate: PKCS #8 in DER."""

    __slots__ = ()
    size: ClassVar[int | None] = None


@dataclass(frozen=True, slots=True)
class Facts:
    """The facts by which a person recognizes a certificate or a revocation list.

    Attributes:
        subject: its names, or its subject where it has none; of a list, its issuer.
        serial: its serial number in hexadecimal digits; of a list, its number, empty where it has none.
        not_before: beginning of its validity, in unix seconds.
        not_after: end of its validity, in unix seconds; infinite for a list without the time of its next update.
        issuer: subject of its issuer.
        key_id: SHA-256 of its public key (SubjectPublicKeyInfo, DER) in hexadecimal digits; of a list, the
            identifier of the key that signed it, empty where it names none.
    """

    subject: str
    serial: str
    not_before: float
    not_after: float
    issuer: str = ""
    key_id: str = ""

    def __str__(self) -> str:
        serial = f" (serial {self.serial})" if self.serial else ""
        return f"{self.subject}{serial} until {time_text(self.not_after)}"


def time_text(seconds: float) -> str:
    """A time in unix seconds for a person."""
    if seconds == float("inf"):
        return "further notice"
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


@dataclass(frozen=True, slots=True)
class OwnCertificate:
    """The certificate of this side.

    Attributes:
        chain: DER encodings, the leaf first.
        key: the leaf's private key.
        names: its names.
        facts: the facts of the leaf.
    """

    chain: tuple[bytes, ...]
    key: CertificateKey
    names: tuple[str, ...]
    facts: Facts

    def __str__(self) -> str:
        return str(self.facts)


@dataclass(frozen=True, slots=True)
class Encoded:
    """A certificate of an authority, or one of its revocation lists.

    Attributes:
        der: its DER encoding.
        facts: its facts.
    """

    der: bytes
    facts: Facts

    def __str__(self) -> str:
        return str(self.facts)


@dataclass(frozen=True, slots=True)
class AuthorityPlan:
    """One entry of `authorities`.

    Attributes:
        name: its name.
        roots: its certificates; several while one replaces another.
        names: patterns for the names that it may vouch for; empty for all names.
        lists: its revocation lists.
        refuses_overdue: whether its certificates are refused while one of its lists is overdue.
    """

    name: str
    roots: tuple[Encoded, ...]
    names: tuple[str, ...] = ()
    lists: tuple[Encoded, ...] = ()
    refuses_overdue: bool = False

    @property
    def vouches_until(self) -> float:
        """The time from which its certificates are refused because a list is overdue, in unix seconds; infinity for never.

        Of several lists of one issuer the newest counts.
        """
        ends: dict[tuple[str, str], float] = {}
        for each in self.lists if self.refuses_overdue else ():
            issuer = each.facts.issuer, each.facts.key_id
            ends[issuer] = max(ends.get(issuer, 0.0), each.facts.not_after)
        return min(ends.values(), default=math.inf)


@dataclass(frozen=True, slots=True)
class Revoked:
    """The content of the `revoked` file.

    Attributes:
        keys: public keys of certificates (SubjectPublicKeyInfo, DER).
        serials: names of authorities, each with a serial number.
    """

    keys: tuple[bytes, ...] = ()
    serials: tuple[tuple[str, int], ...] = ()


@dataclass(frozen=True, slots=True)
class Trusted:
    """The authorities that this side trusts to vouch for peers, and the revoked keys and certificates.

    Attributes:
        authorities: authorities that may vouch for peers.
        revoked: revoked keys and certificates.
    """

    authorities: tuple[AuthorityPlan, ...] = ()
    revoked: Revoked = Revoked()


@dataclass(frozen=True, slots=True)
class CertificateAuth:
    """Authentication by certificates.

    Attributes:
        own: the certificate of this side.
        trusted: authorities, and what is revoked.
        allow: patterns for names of peers, in the order of the file; exactly one on the connect side.
        ends_expired: whether connections end when the peer's certificate expires.
    """

    own: OwnCertificate
    trusted: Trusted
    allow: tuple[str, ...]
    ends_expired: bool = False
