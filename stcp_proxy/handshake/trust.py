"""Who may talk to whom, in the form that handshakes use, and which connections a new rule no longer covers."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from stcp_proxy.config import KeyAuth, PskAuth
from stcp_proxy.errors import KeyRevoked
from stcp_proxy.handshake.key_order import Choice
from stcp_proxy.keys import PUBLIC_PREFIX, PublicKey
from stcp_proxy.protocol.handshake import Credentials
from stcp_proxy.protocol.noise import KeyPair
from stcp_proxy.protocol.secret import Secret


@dataclass(frozen=True, slots=True)
class Trust:
    """A tunnel's access rule.

    Attributes:
        credentials: what this side proves itself with.
        names: peers by public key, 32 bytes; empty with a shared secret.
        choice: what a connect tunnel tries, in which order.
        own: this side's public keys, 32 bytes each; empty with a shared secret.
    """

    credentials: Credentials
    names: dict[bytes, str]
    choice: Choice
    own: frozenset[bytes] = frozenset()

    @classmethod
    def of(cls, auth: KeyAuth | PskAuth) -> Trust:
        """The rule of a plan."""
        if isinstance(auth, KeyAuth):
            names = {key.raw: name for key, name in auth.peers.items()}
            first, *further = ring = [KeyPair(identity.secret) for identity in auth.ring]
            choice = Choice(ring, tuple(names))
            return cls(Credentials(first, further=tuple(further)), names, choice, frozenset(pair.public for pair in ring))
        return cls(Credentials(psk=auth.secret), {}, Choice((None,), (None,)))

    def name(self, peer: bytes | None) -> str:
        """The configured name of an authenticated peer; a shared secret names nobody."""
        return "(shared secret)" if peer is None else self.names.get(peer, "")

    def full_name(self, peer: bytes | None) -> str:
        """The same for others to read: a peer without a name by its whole key, and nothing for a shared secret."""
        if peer is None:
            return ""
        name = self.name(peer)
        return str(PublicKey(peer)) if name.startswith(PUBLIC_PREFIX) else name

    def covers(self, before: Trust, *, own: bytes | None, peer: bytes | None) -> bool:
        """Whether a connection could come to be by this rule too.

        Args:
            before: the rule by which it came to be.
            own: the key of this side's that the peer knows it by; None with a shared secret.
            peer: the key that the peer proved; likewise.
        """
        if before is self:
            return True
        if own is None or peer is None:
            return self.credentials.psk is not None and self.credentials.psk == before.credentials.psk
        return own in self.own and peer in self.names

    def remains(self, keys: Collection[PublicKey], secrets: Collection[Secret]) -> Trust:
        """What is left of the rule of a tunnel that was removed, for its connections: the keys that the file still names.

        Args:
            keys: public keys in the file, own ones among them.
            secrets: shared secrets that the file still names.
        """
        raw = {key.raw for key in keys}
        psk = self.credentials.psk if any(secret == self.credentials.psk for secret in secrets) else None
        names = {key: name for key, name in self.names.items() if key in raw}
        return Trust(Credentials(psk=psk), names, self.choice, self.own & raw)


def revoked() -> KeyRevoked:
    """Why a connection was ended whose key, or this side's, has been taken out of the file."""
    return KeyRevoked("the key that it came by has been taken out of this side's file")
