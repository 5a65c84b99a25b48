"""The part of `/status` about certificates. Times are seconds since 1970."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated, Final, Literal

from stcp_proxy.counters.merging import FIRST, LATEST, MAX, MIN, SUM, UNION

MAX_PEER_CERTIFICATES: Final = 100


@dataclass(slots=True, kw_only=True)
class CertificateStatus:
    """The certificate of this side, a certificate of an authority, or a revocation list.

    Attributes:
        kind: ``certificate`` for that of this side, ``authority``, or ``revocation list``.
        name: the authority's name; ``(own)`` for the certificate of this side.
        subject: the names of the certificate; of an authority and a list, the authority's subject.
        issuer: subject of the authority that issued it; of a list, its issuer.
        serial: the serial number in hexadecimal digits; of a list, its number.
        key_id: SHA-256 of the public key (SubjectPublicKeyInfo) in hexadecimal digits; of a list, the
            identifier of the key that signed it, empty where it names none.
        not_before: the begin of its validity.
        not_after: the end of its validity; None for a list that does not tell its next update.
        tunnels: names of the tunnels that use it.
        connections: open connections of peers with certificates in these tunnels; of an authority, those whose certificate this
            certificate vouches for; 0 for a list.
        last_use: the last handshake with a certificate that a certificate of an authority vouches for; None without any since the
            start, and for other kinds.
        overdue: what is wrong where its renewal is overdue; empty otherwise.
        remedy: what to do then.
        binds: whether certificates are refused after its end: false for a list whose authority has ``crl_overdue: warn``.
        may_go: whether it can be removed from the file without loss: ``yes``, ``no``, or ``unknown`` while there is no evidence.
        why: the reason, in words.
    """

    kind: Annotated[Literal["certificate", "authority", "revocation list"], FIRST]
    name: Annotated[str, FIRST]
    subject: Annotated[str, FIRST]
    issuer: Annotated[str, FIRST] = ""
    serial: Annotated[str, FIRST]
    key_id: Annotated[str, FIRST] = ""
    not_before: Annotated[float, FIRST]
    not_after: Annotated[float | None, FIRST]
    tunnels: Annotated[list[str], UNION] = field(default_factory=list)
    connections: Annotated[int, SUM] = 0
    last_use: Annotated[float | None, LATEST] = None
    overdue: Annotated[str, FIRST] = ""
    remedy: Annotated[str, FIRST] = ""
    binds: Annotated[bool, FIRST] = True
    may_go: Annotated[Literal["yes", "no", "unknown"], FIRST] = "unknown"
    why: Annotated[str, FIRST] = ""


@dataclass(slots=True, kw_only=True)
class PeerCertificate:
    """The certificate of a peer that has open connections.

    Attributes:
        name: the peer's name, which a rule admits.
        authority: name of the authority that vouches for it.
        serial: the serial number in hexadecimal digits.
        not_after: the end of its validity, or of its authority where that comes first.
        tunnels: names of the tunnels with its connections.
        connections: its open connections.
    """

    name: Annotated[str, FIRST]
    authority: Annotated[str, FIRST]
    serial: Annotated[str, FIRST]
    not_after: Annotated[float, MIN]
    tunnels: Annotated[list[str], UNION]
    connections: Annotated[int, SUM]


@dataclass(slots=True, kw_only=True)
class AuthorityUse:
    """The handshakes of one peer with certificates that one key of an authority vouches for: evidence in a report.

    Attributes:
        key_id: the authority's key, as in `CertificateStatus`.
        peer: the peer's name.
        first, last: times of the first and the last handshake.
        not_after: the latest end of these certificates.
    """

    key_id: Annotated[str, FIRST]
    peer: Annotated[str, FIRST]
    first: Annotated[float, MIN]
    last: Annotated[float, MAX]
    not_after: Annotated[float, MAX]


def most_used(found: Sequence[PeerCertificate], most: int = MAX_PEER_CERTIFICATES) -> tuple[list[PeerCertificate], int]:
    """The certificates with most open connections, and the number of the connections of all others.

    Args:
        found: certificates of peers.
        most: the largest number of certificates to return.
    """
    ranked = sorted(found, key=lambda each: (-each.connections, each.name))
    return ranked[:most], sum(each.connections for each in ranked[most:])
