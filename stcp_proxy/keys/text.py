"""Keys as text: a prefix that names the kind of key, and 32 bytes in standard base64.

    stcp-pub:…   a host's public key: give it to the other side
    stcp-key:…   its private key: stays in a file that only the user who runs the proxy can read
    stcp-psk:…   a shared secret: the same file on both sides

Invariants:
- No message of this module repeats its input: text that does not parse may be a mistyped secret.
"""

from __future__ import annotations

import base64
import binascii
import secrets
from dataclasses import dataclass
from functools import cache, cached_property
from typing import TYPE_CHECKING, Final

from stcp_proxy.errors import KeyFileError
from stcp_proxy.protocol.secret import Secret
from stcp_proxy.protocol.wire import KEY_LEN, is_canonical_key

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

PUBLIC_PREFIX: Final = "stcp-pub:"
PRIVATE_PREFIX: Final = "stcp-key:"
PSK_PREFIX: Final = "stcp-psk:"

_NAMES: Final = {PUBLIC_PREFIX: "a public key", PRIVATE_PREFIX: "a private key", PSK_PREFIX: "a shared secret"}
_MIN_DISTINCT: Final = 8
"""Fewest distinct byte values in a secret. 32 random bytes never have fewer in practice."""


@dataclass(frozen=True, slots=True, repr=False)
class PublicKey:
    """A host's X25519 public key.

    Args:
        raw: exactly 32 bytes.

    Raises:
        ValueError: the length is different.
    """

    raw: bytes

    def __post_init__(self) -> None:
        if len(self.raw) != KEY_LEN:
            raise ValueError(f"a public key is {KEY_LEN} bytes, not {len(self.raw)}")

    @classmethod
    def parse(cls, text: str) -> PublicKey:
        """Read a key from its text.

        Raises:
            KeyFileError: the text is no public key. The message says so when the text is a secret.
        """
        lowered = text.lower()
        if PRIVATE_PREFIX in lowered or PSK_PREFIX in lowered:
            raise KeyFileError(
                "a secret stands where a public key belongs: command lines show in ps and configuration files travel, "
                "so consider it exposed",
                remedy="make a new one with 'stcp-proxy keygen --out FILE' and put what 'stcp-proxy pubkey FILE' prints here",
            )
        raw = _decode(text.strip(), PUBLIC_PREFIX)
        if not is_canonical_key(raw):
            what = "this public key is not in the form that 'stcp-proxy pubkey' prints"
            raise KeyFileError(what, remedy="ask its owner for what that command prints")
        if _low_order(raw):
            raise KeyFileError("this public key is not usable: nobody can hold its private key", remedy="ask its owner again")
        return cls(raw)

    def __str__(self) -> str:
        return PUBLIC_PREFIX + _encode(self.raw)

    def __repr__(self) -> str:
        return f"PublicKey({str(self)!r})"


@dataclass(frozen=True, repr=False)
class PrivateKey:
    """A host's X25519 private key. Its repr shows the public half only."""

    secret: Secret

    @classmethod
    def generate(cls) -> PrivateKey:
        """A new key from the system's random source."""
        return cls(Secret(secrets.token_bytes(KEY_LEN)))

    @classmethod
    def parse(cls, text: str) -> PrivateKey:
        """Read a key from its text.

        Raises:
            KeyFileError: the text is no private key.
        """
        return cls(Secret(_decode(text.strip(), PRIVATE_PREFIX)))

    @cached_property
    def public(self) -> PublicKey:
        """The public half of this key pair."""
        from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

        return PublicKey(X25519PrivateKey.from_private_bytes(self.secret.reveal()).public_key().public_bytes_raw())

    def __repr__(self) -> str:
        return f"PrivateKey(…, public={str(self.public)!r})"


def parse_psk(text: str) -> Secret:
    """Read a shared secret from its text.

    Raises:
        KeyFileError: the text is no shared secret, or its bytes are clearly not random. Message 1 lets an observer test
            guesses (PROTOCOL.md section 1), so a passphrase is refused.
    """
    raw = _decode(text.strip(), PSK_PREFIX)
    if len(set(raw)) < _MIN_DISTINCT or all(0x20 <= byte < 0x7F for byte in raw):
        raise KeyFileError(
            "this shared secret is not random: an eavesdropper could guess it",
            remedy="make one with 'stcp-proxy keygen --psk --out FILE' and copy the file to both sides",
        )
    return Secret(raw)


def generate_psk() -> Secret:
    """A new shared secret from the system's random source."""
    return Secret(secrets.token_bytes(KEY_LEN))


def format_private_key(key: PrivateKey) -> str:
    """Write a private key as `PrivateKey.parse` reads it."""
    return PRIVATE_PREFIX + _encode(key.secret.reveal())


def format_psk(secret: Secret) -> str:
    """Write a shared secret as `parse_psk` reads it."""
    return PSK_PREFIX + _encode(secret.reveal())


def _encode(raw: bytes) -> str:
    return base64.b64encode(raw).decode("ascii")


def _decode(text: str, prefix: str) -> bytes:
    """The 32 bytes after `prefix`. Only the canonical base64 spelling is accepted."""
    if not text.startswith(prefix):
        raise _wrong_prefix(text, prefix)
    body = text.removeprefix(prefix)
    try:
        raw = base64.b64decode(body.encode("ascii"), validate=True)
    except (binascii.Error, UnicodeEncodeError):
        raw = b""
    if len(raw) != KEY_LEN or _encode(raw) != body:
        raise KeyFileError(
            f"{_NAMES[prefix]} is '{prefix}' and {KEY_LEN} bytes in base64 (44 characters); this one is damaged or cut short",
            remedy="copy the whole line again",
        )
    return raw


def _wrong_prefix(text: str, wanted: str) -> KeyFileError:
    """The refusal of a text that does not start with the prefix `wanted`."""
    for prefix, name in _NAMES.items():
        if text.lower().startswith(prefix):
            if prefix == wanted:
                return KeyFileError(f"the prefix '{wanted}' is written in small letters", remedy="correct it")
            return KeyFileError(f"this is {name}, where {_NAMES[wanted]} belongs", remedy=_SWAPPED[wanted])
    return KeyFileError(f"this is not {_NAMES[wanted]}: it does not start with '{wanted}'", remedy=_SWAPPED[wanted])


_SWAPPED: Final = {
    PUBLIC_PREFIX: "put what 'stcp-proxy pubkey FILE' prints here",
    PRIVATE_PREFIX: "name a file made with 'stcp-proxy keygen --out FILE'",
    PSK_PREFIX: "name a file made with 'stcp-proxy keygen --psk --out FILE'",
}


def _low_order(raw: bytes) -> bool:
    """Whether this public key is a point of small order: X25519 with it gives zero for every private key."""
    from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PublicKey

    try:
        _any_private_key().exchange(X25519PublicKey.from_public_bytes(raw))
    except ValueError:
        return True
    return False


@cache
def _any_private_key() -> X25519PrivateKey:
    """A private key that is no secret. It is made once: that costs as much as a key agreement, and a fleet has many keys."""
    from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

    return X25519PrivateKey.from_private_bytes(bytes(KEY_LEN))
