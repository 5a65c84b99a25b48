"""The part of a report about certificates."""

from __future__ import annotations

import collections
import hashlib
import math
from typing import Final

from stcp_proxy.admin.certificate_schema import AuthorityUse, CertificateStatus, PeerCertificate, most_used
from stcp_proxy.admin.cooperate import Steps
from stcp_proxy.admin.interface import Host, Tunnel
from stcp_proxy.admin.report import Report
from stcp_proxy.config import KeyAuth
from stcp_proxy.config.certificate_plan import CertificateAuth
from stcp_proxy.config.lifetimes import CertificateKind, Lifetime, lifetimes

_MOST_OF_WORKER: Final = 1000
"""Most certificates of peers in the report of one process. `/status` lists fewer, so that the merged list is right."""


async def add_certificates(host: Host, report: Report, steps: Steps, *, full: bool) -> None:
    """Add certificates to the report of a process.

    Args:
        host: the process.
        report: its report without them.
        steps: lets the event loop run between steps.
        full: whether to add the peers too, which may be thousands.
    """
    tunnels = [(tunnel, auth) for tunnel in host.tunnels if (auth := _auth(tunnel)) is not None]
    issued: collections.Counter[bytes] = collections.Counter()
    by_tunnel: collections.Counter[str] = collections.Counter()
    peers: dict[tuple[str, str, int, float], PeerCertificate] = {}
    for tunnel in host.tunnels:
        for link in list(tunnel.connections):
            if (certificate := link.certificate) is not None:
                issued[certificate.issuer_key] += 1
                by_tunnel[tunnel.plan.name] += 1
                if full:
                    key = (link.peer, certificate.authority, certificate.serial, certificate.not_after)
                    _count(peers, key, tunnel.plan.name)
            await steps.pause()
    report.peer_certificates, report.connections_of_others = most_used(list(peers.values()), _MOST_OF_WORKER)
    by_key = collections.Counter({_key_id(key): count for key, count in issued.items()})
    last = await _add_uses(tunnels, report, steps) if full else {}
    for each in lifetimes(host.plan):
        status = _certificate(each, report.time)
        status.tunnels = [tunnel.plan.name for tunnel, auth in tunnels if _uses(auth, each)]
        if each.kind is CertificateKind.OWN:
            status.connections = sum(by_tunnel[name] for name in status.tunnels)
        elif each.kind is CertificateKind.AUTHORITY:
            status.connections = by_key[each.facts.key_id]
            status.last_use = last.get(each.facts.key_id)
        report.certificates.append(status)


def _auth(tunnel: Tunnel) -> CertificateAuth | None:
    return tunnel.plan.auth.certificates if isinstance(tunnel.plan.auth, KeyAuth) else None


def _count(peers: dict[tuple[str, str, int, float], PeerCertificate], key: tuple[str, str, int, float], tunnel: str) -> None:
    name, authority, serial, not_after = key
    status = peers.get(key)
    if status is None:
        status = peers[key] = PeerCertificate(
            name=name, authority=authority, serial=f"{serial:x}", not_after=not_after, tunnels=[], connections=0
        )
    status.connections += 1
    if tunnel not in status.tunnels:
        status.tunnels.append(tunnel)


async def _add_uses(tunnels: list[tuple[Tunnel, CertificateAuth]], report: Report, steps: Steps) -> dict[str, float]:
    """Add the evidence of all tunnels. Returns the last handshake by the key of the authority."""
    found: dict[tuple[str, str], AuthorityUse] = {}
    last: dict[str, float] = {}
    names: dict[bytes, str] = {}
    for tunnel, _ in tunnels:
        issuers = tunnel.ledger.issuers
        for key, peer, use in issuers:
            name = names.get(key) or names.setdefault(key, _key_id(key))
            last[name] = max(last.get(name, 0.0), use.last)
            if use.not_after > report.time:
                known = found.setdefault(
                    (name, peer), AuthorityUse(key_id=name, peer=peer, first=use.first, last=0.0, not_after=0.0)
                )
                known.first = min(known.first, use.first)
                known.last = max(known.last, use.last)
                known.not_after = max(known.not_after, use.not_after)
            await steps.pause()
        for key, count in issuers.forgotten.items():
            name = _key_id(key)
            report.forgotten_uses[name] = report.forgotten_uses.get(name, 0) + count
    report.authority_uses = list(found.values())
    return last


def _certificate(each: Lifetime, now: float) -> CertificateStatus:
    facts = each.facts
    what, remedy = each.problem(now) or ("", "")
    return CertificateStatus(
        kind=each.kind.value,
        name=each.name,
        subject=facts.subject,
        issuer=facts.issuer,
        serial=facts.serial,
        key_id=facts.key_id,
        not_before=facts.not_before,
        not_after=None if math.isinf(facts.not_after) else facts.not_after,
        overdue=what,
        remedy=remedy,
        binds=each.binds or each.kind is not CertificateKind.LIST,
    )


def _uses(auth: CertificateAuth, each: Lifetime) -> bool:
    """Whether a tunnel uses a certificate or a list."""
    if each.kind is CertificateKind.OWN:
        return auth.own.facts == each.facts
    return any(authority.name == each.name for authority in auth.trusted.authorities)


def _key_id(key: bytes) -> str:
    return hashlib.sha256(key).hexdigest()
