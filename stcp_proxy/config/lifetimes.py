"""The lifetimes of certificates in a plan, and which of them a person has to renew.

A certificate in the last third of its lifetime was not renewed in time: cert-manager, SPIRE and step-ca all renew earlier. A root
certificate that expires unnoticed stops every connection of a fleet, so this side warns early.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from stcp_proxy.config.auth_plan import KeyAuth
from stcp_proxy.config.certificate_plan import Facts, time_text
from stcp_proxy.config.plan import Plan

LAST_PART: Final = 1 / 3
"""Part of a lifetime in which a certificate should have been renewed."""
OWN: Final = "(own)"
_DAY: Final = 86400.0


class CertificateKind(enum.StrEnum):
    """The use of a certificate on this side."""

    OWN = "certificate"
    AUTHORITY = "authority"
    LIST = "revocation list"


@dataclass(frozen=True, slots=True)
class Lifetime:
    """The lifetime of one certificate or revocation list.

    Attributes:
        kind: its use.
        name: the name of its authority; `(own)` for the certificate of this side.
        facts: what it is recognized by, and its validity.
        binds: whether certificates of its authority are refused after the end of this list.
    """

    kind: CertificateKind
    name: str
    facts: Facts
    binds: bool = False

    @property
    def subject(self) -> str:
        """A name for a person."""
        own = "this side's certificate" if self.kind is CertificateKind.OWN else f"{self.kind} {self.name}"
        return f"{own}: {self.facts.subject}" + (f" (serial {self.facts.serial})" if self.facts.serial else "")

    @property
    def warns_from(self) -> float:
        """The time from which its renewal is overdue, in unix seconds. A list that binds nobody is renewed at its end."""
        if self.kind is CertificateKind.LIST and not self.binds:
            return self.facts.not_after
        return self.facts.not_after - LAST_PART * (self.facts.not_after - self.facts.not_before)

    def problem(self, now: float) -> tuple[str, str] | None:
        """The problem and what to do; None while its renewal is not overdue.

        Args:
            now: the time, in unix seconds.
        """
        end = self.facts.not_after
        if now < self.warns_from or math.isinf(end):
            return None
        if self.kind is CertificateKind.LIST and not self.binds:
            what = f"it should have been replaced at {time_text(end)}; its entries still count, newer ones are missing"
            return what, "fetch the present list from the authority, and reload"
        remedy = {
            CertificateKind.OWN: "renew it, write it to its files, and reload",
            CertificateKind.LIST: "fetch the present list from the authority, and reload: 'crl_overdue: refuse' refuses new "
            "connections after its end",
            CertificateKind.AUTHORITY: "add its successor to the bundle on every host, and issue new certificates before it ends",
        }[self.kind]
        if now > end and self.kind is CertificateKind.LIST:
            return f"it should have been replaced at {time_text(end)}; new connections by its authority are refused", remedy
        if now > end:
            return f"it expired at {time_text(end)}", remedy
        left = (end - now) / _DAY
        days = f"in {left:.0f} days" if left >= 2 else f"in {left * 24:.0f} hours"
        return f"it ends at {time_text(end)}, {days}, and should have been renewed since {time_text(self.warns_from)}", remedy


def lifetimes(plan: Plan) -> list[Lifetime]:
    """The lifetimes of all certificates and lists of a plan, each once."""
    return list(dict.fromkeys(_lifetimes(plan)))


def _lifetimes(plan: Plan) -> Iterator[Lifetime]:
    for auth in plan.auths:
        if isinstance(auth, KeyAuth) and auth.certificates is not None:
            yield Lifetime(CertificateKind.OWN, OWN, auth.certificates.own.facts)
    for authority in plan.trusted.authorities:
        for root in authority.roots:
            yield Lifetime(CertificateKind.AUTHORITY, authority.name, root.facts)
        for each in authority.lists:
            yield Lifetime(CertificateKind.LIST, authority.name, each.facts, authority.refuses_overdue)
