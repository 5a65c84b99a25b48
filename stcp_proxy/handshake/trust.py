"""Access rules in the form that handshakes use, and the connections that a new rule no longer covers."""

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
        credentials: the keys of this side, the shared secret, or both.
        names: peers by public key, 32 bytes; empty with a shared secret.
        choice: the order in which a connect tunnel tries pairs of keys.
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
            credentials = Credentials(first, auth.psk, further=tuple(further))
            return cls(credentials, names, choice, frozenset(pair.public for pair in ring))
        return cls(Credentials(psk=auth.secret), {}, Choice((None,), (None,)))

    def name(self, peer: bytes | None) -> str:
        """The configured name of an authenticated peer; a shared secret names nobody."""
        return "(shared secret)" if peer is None else self.names.get(peer, "")

    def full_name(self, peer: bytes | None) -> str:
        """The name of an authenticated peer for a target: its whole key where it has no name; empty with a shared secret."""
        if peer is None:
            return ""
        name = self.name(peer)
        return str(PublicKey(peer)) if name.startswith(PUBLIC_PREFIX) else name

    def covers(self, before: Trust, *, own: bytes | None, peer: bytes | None) -> bool:
        """Whether this rule would also admit a connection.

        Args:
            before: the rule that admitted it.
            own: the public key of this side in its handshake; None with a shared secret.
            peer: the public key of the peer; None with a shared secret.
        """
        if before is self:
            return True
        if own is None or peer is None:
            return self.credentials.psk is not None and self.credentials.psk == before.credentials.psk
        return own in self.own and peer in self.names and self.credentials.psk == before.credentials.psk

    def remains(self, keys: Collection[PublicKey], secrets: Collection[Secret | None]) -> Trust:
        """The rule for the connections of a removed tunnel: the part whose keys the file still names.

        Args:
            keys: public keys in the file, own ones among them.
            secrets: shared secrets that the file still names; None stands for a tunnel without one.
        """
        raw = {key.raw for key in keys}
        psk = self.credentials.psk if any(secret == self.credentials.psk for secret in secrets) else None
        names = {key: name for key, name in self.names.items() if key in raw}
        return Trust(Credentials(psk=psk), names, self.choice, self.own & raw)


def revoked() -> KeyRevoked:
    """The failure of a connection whose key, the peer's or this side's, was removed from the file."""
    return KeyRevoked("a key of this connection was removed from this side's file")
