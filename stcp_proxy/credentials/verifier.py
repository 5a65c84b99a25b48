"""Verification of a peer's credential, with a bounded memory.

Invariants:
- Certificates are remembered with the role in which they were verified. Each new key of a handshake is bound to them anew.
- A credential is remembered together with the static key and the role for which it was verified. Its bytes are public: alone they
  prove nothing.
- Each use of a remembered credential checks its times. A change of authorities or revocations makes a new verifier.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from cryptography import x509

from stcp_proxy.credentials.authority import Authority, key_bytes, key_id
from stcp_proxy.credentials.binding import check_binding
from stcp_proxy.credentials.certificate import UNREADABLE, read_certificate
from stcp_proxy.credentials.names import NamePattern
from stcp_proxy.credentials.path import LEEWAY, check_time, find_chain, time_text
from stcp_proxy.credentials.revocation import Issued, Revocations
from stcp_proxy.errors import (
    CertificateChainRefused,
    CertificateExpired,
    CertificateNameRefused,
    CertificateRevoked,
    RevocationListOverdue,
    UnknownAuthority,
)
from stcp_proxy.protocol.credential import Credential
from stcp_proxy.protocol.wire import Role

MAX_REMEMBERED: Final = 10_000
"""Most credentials that a verifier remembers. The one that was used longest ago is forgotten first."""
_CREDENTIALS_FOR_A_CHAIN: Final = 4
"""Remembered credentials for each remembered chain: a peer takes less than 2 KiB in all."""


@dataclass(frozen=True, slots=True)
class Verified:
    """What a verified credential says of a peer.

    Attributes:
        all_names: names of the certificate that its authority may vouch for, one a line: one text takes the least memory.
        authority: name of the authority.
        serial: serial number of the leaf.
        not_after: first end of the validity of a certificate in the chain or of the binding, in unix seconds.
        key_ids: public keys of the chain without its root, as `authority.key_id` names them.
        issued: issuer's key and serial number of each certificate in the chain without its root.
    """

    all_names: str
    authority: str
    serial: int
    not_after: float
    key_ids: tuple[bytes, ...]
    issued: tuple[Issued, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the certificate that its authority may vouch for."""
        return tuple(self.all_names.split("\n"))

    @property
    def issuer_key(self) -> bytes:
        """The public key of the authority (SubjectPublicKeyInfo, DER)."""
        return self.issued[-1][0]

    def has_ended(self, now: float) -> bool:
        """Whether the credential has expired at `now`, in unix seconds."""
        return now > self.not_after + LEEWAY

    def matches(self, patterns: Sequence[NamePattern]) -> str | None:
        """The first name that one of `patterns` matches, or None."""
        return next((name for name in self.names if any(pattern.matches(name) for pattern in patterns)), None)


class Verifier:
    """Decides whether credentials vouch for peers.

    Args:
        authorities: authorities that may vouch for peers.
        revocations: what is revoked.
        remember: most credentials to remember.
    """

    def __init__(
        self, authorities: Sequence[Authority], revocations: Revocations | None = None, *, remember: int = MAX_REMEMBERED
    ) -> None:
        self._authorities = tuple(authorities)
        self._revocations = revocations or Revocations()
        self._remember = remember
        self._known: OrderedDict[bytes, Verified] = OrderedDict()
        self._chains: OrderedDict[bytes, Verified] = OrderedDict()
        """What verified certificates say, without the end of a binding. A peer that starts again presents the same certificates
        with another key of the handshake; so does each of its worker processes."""
        self._root_keys = {key_bytes(root): (authority, root) for authority in authorities for root in authority.roots}

    def __len__(self) -> int:
        """Number of remembered credentials."""
        return len(self._known)

    def verify(self, credential: Credential, static: bytes, *, role: Role, now: float) -> Verified:
        """Verify a peer's credential.

        Args:
            credential: the credential from the handshake.
            static: the peer's Noise static public key, 32 bytes.
            role: the peer's role.
            now: the time, in unix seconds.

        Raises:
            CredentialRefused: the credential does not vouch for the peer.
        """
        digest = hashlib.sha256(bytes([role]) + static + credential.encode()).digest()
        known = self._known.get(digest)
        if known is not None and now <= known.not_after:
            self._known.move_to_end(digest)
            self._check_lists(known, now)
            return known
        self._known.pop(digest, None)
        certificates = _digest(credential.certificates, role)
        _check_end(credential.not_after, now)
        try:
            said = self._verify(credential, static, role, now, self._chains.get(certificates))
        except UNREADABLE:
            # `cryptography` reads many fields only when they are used.
            raise CertificateChainRefused("a certificate of the peer cannot be read") from None
        verified = said if said.not_after <= credential.not_after else replace(said, not_after=credential.not_after)
        self._check_lists(verified, now)
        _put(self._chains, certificates, said, most=max(1, self._remember // _CREDENTIALS_FOR_A_CHAIN))
        _put(self._known, digest, verified, most=self._remember)
        return verified

    def check_again(self, verified: Verified, now: float) -> None:
        """Check at a later time, and after a change of authorities or revocations, what another verifier accepted.

        Raises:
            CredentialRefused: the credential has expired, is revoked, or its authority is gone.
        """
        _check_end(verified.not_after, now)
        check_time(self.check_trust(verified), now)
        self._check_lists(verified, now)

    def check_trust(self, verified: Verified) -> x509.Certificate:
        """Check everything of `check_again` but the times. Returns the certificate of the authority.

        Raises:
            CredentialRefused: the credential is revoked, or its authority is gone.
        """
        authority, certificate = self._root_keys.get(verified.issuer_key, (None, None))
        if authority is None or certificate is None:
            raise UnknownAuthority("the authority that issued the peer's certificate is no longer in the configuration")
        if authority.vouches_for(verified.names) != verified.names:
            raise CertificateNameRefused("the authority of the peer's certificate may no longer vouch for its names")
        self._check_revocation(verified, authority.name, key_id(verified.issuer_key))
        return certificate

    def _verify(self, credential: Credential, static: bytes, role: Role, now: float, before: Verified | None) -> Verified:
        """Verify the certificates of a peer, and that its key of the handshake is bound to them.

        Args:
            credential, static, role, now: as for `verify`.
            before: what the same certificates said in the same role; None where they are new.

        Returns:
            What they say, without the end of the binding.
        """
        if before is not None and now <= before.not_after:
            leaf = x509.load_der_x509_certificate(credential.certificates[0])
            check_binding(credential, leaf.public_key(), role=role, static=static)
            return before
        presented = [read_certificate(der) for der in credential.certificates]
        chain = find_chain(presented, self._authorities, role=role, now=now)
        leaf, issuers, authority = chain.leaf, chain.issuers, chain.authority
        key = leaf.public_key()
        check_binding(credential, key, role=role, static=static)
        names = authority.vouches_for(chain.names)
        if not names:
            raise CertificateNameRefused(f"authority {authority.name!r} may not vouch for {', '.join(chain.names)}")
        serial = leaf.serial_number
        serials = (serial, *(issuer.certificate.serial_number for issuer in issuers[:-1]))
        verified = Verified(
            "\n".join(names),
            authority.name,
            serial,
            chain.not_after,
            (key_id(key_bytes(leaf, key)), *(issuer.key_id for issuer in issuers[:-1])),
            tuple((issuer.key, number) for issuer, number in zip(issuers, serials, strict=True)),
        )
        self._check_revocation(verified, authority.name, issuers[-1].key_id)
        return verified

    def _check_lists(self, verified: Verified, now: float) -> None:
        """Raises RevocationListOverdue where a list of an authority in the peer's chain is overdue, and has to be fresh."""
        for key, _ in verified.issued:
            authority, _ = self._root_keys.get(key, (None, None))
            if authority is not None and now > authority.vouches_until + LEEWAY:
                raise RevocationListOverdue(
                    f"a revocation list of authority {authority.name!r} should have been replaced at "
                    f"{time_text(authority.vouches_until)}, and the time here is {time_text(now)}"
                )

    def _check_revocation(self, verified: Verified, authority: str, root: bytes) -> None:
        """Look for the certificates of a peer, and the keys of its chain, in everything that is revoked.

        Args:
            verified: the peer.
            authority: the present name of its authority: a reload may have given it another.
            root: the public key of the authority, as `key_id` names it.

        Raises:
            CertificateRevoked: one of them is revoked.
        """
        above, under = {authority}, []
        for key, serial in reversed(verified.issued):
            if key in self._root_keys:  # a cross certificate puts one authority below another
                above.add(self._root_keys[key][0].name)
            under += [(name, serial) for name in above]
        if self._revocations.covers((*verified.key_ids, root), verified.issued, under):
            raise CertificateRevoked(f"a certificate of {verified.names[0]} (serial {verified.serial:x}) is revoked")


def _put(memory: OrderedDict[bytes, Verified], digest: bytes, verified: Verified, *, most: int) -> None:
    """Remember something as the latest of at most `most`."""
    memory[digest] = verified
    memory.move_to_end(digest)
    if len(memory) > most:
        memory.popitem(last=False)


def _digest(certificates: Sequence[bytes], role: Role) -> bytes:
    """A name for certificates in a role."""
    return hashlib.sha256(bytes([role]) + b"".join(len(der).to_bytes(4, "big") + der for der in certificates)).digest()


def _check_end(not_after: float, now: float) -> None:
    if now > not_after + LEEWAY:
        raise CertificateExpired(f"the peer's credential ended {now - not_after:.0f} seconds ago")
