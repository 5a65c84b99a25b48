"""Every number of STCP/1 on the wire. Sizes are computed from sizes.

The section beside each block is that of docs/PROTOCOL.md. `kernel/stcp.h` has the same list in C, and a test compares the two.
"""

from __future__ import annotations

import enum
from typing import Final

from stcp_proxy.errors import Code as Code

# -- section 1: handshake --------------------------------------------------------------------------------------------------

MAGIC: Final = b"STCP"
VERSION: Final = 1
PROLOGUE_LEN: Final = len(MAGIC) + 1 + 1
"""magic ‖ version (u8) ‖ suite (u8): sent first, and the Noise prologue."""
MESSAGE_LENGTH_LEN: Final = 2

KEY_LEN: Final = 32
"""Bytes of an X25519 key, of the shared secret and of an AES-256 key."""
HASH_LEN: Final = 32
TAG_LEN: Final = 16
KEM_PUBLIC_LEN: Final = 1184
KEM_CIPHERTEXT_LEN: Final = 1088
CHANNEL_ID_LEN: Final = 8
"""Bytes of the final handshake hash that make the channel id, written in hex."""


def is_canonical_key(public: bytes) -> bool:
    """Whether an X25519 public key is a number below the prime of its field, 2^255 - 19 (RFC 7748, section 5).

    X25519 ignores the highest bit and computes modulo this prime. So every other number is a second form of some key. A list of
    revoked keys has the first form alone.

    Args:
        public: the key, 32 bytes, the lowest first.
    """
    return int.from_bytes(public, "little") < (1 << 255) - 19


class Suite(enum.IntEnum):
    """Noise protocol of a connection. The configuration chooses it; nothing is negotiated."""

    HYBRID_KEYS = 1
    CLASSIC_KEYS = 2
    HYBRID_PSK = 3
    CLASSIC_PSK = 4
    HYBRID_CERTIFICATES = 5
    HYBRID_KEYS_PSK = 6


class Role(enum.IntEnum):
    """Side of a wire leg, as the signature of a credential covers it (section 8)."""

    INITIATOR = 1
    RESPONDER = 2


MESSAGE_1_LEN: Final = {
    Suite.HYBRID_KEYS: KEY_LEN + (KEM_PUBLIC_LEN + TAG_LEN) + (KEY_LEN + TAG_LEN) + TAG_LEN,
    Suite.CLASSIC_KEYS: KEY_LEN + (KEY_LEN + TAG_LEN) + TAG_LEN,
    Suite.HYBRID_PSK: KEY_LEN + (KEM_PUBLIC_LEN + TAG_LEN) + TAG_LEN,
    Suite.CLASSIC_PSK: KEY_LEN + TAG_LEN,
    Suite.HYBRID_CERTIFICATES: KEY_LEN + KEM_PUBLIC_LEN,
    Suite.HYBRID_KEYS_PSK: KEY_LEN + (KEM_PUBLIC_LEN + TAG_LEN) + (KEY_LEN + TAG_LEN) + TAG_LEN,
}
MESSAGE_2_LEN: Final = {
    Suite.HYBRID_KEYS: KEY_LEN + (KEM_CIPHERTEXT_LEN + TAG_LEN) + TAG_LEN,
    Suite.CLASSIC_KEYS: KEY_LEN + TAG_LEN,
    Suite.HYBRID_PSK: KEY_LEN + (KEM_CIPHERTEXT_LEN + TAG_LEN) + TAG_LEN,
    Suite.CLASSIC_PSK: KEY_LEN + TAG_LEN,
    Suite.HYBRID_CERTIFICATES: KEY_LEN + (KEM_CIPHERTEXT_LEN + TAG_LEN) + (KEY_LEN + TAG_LEN) + TAG_LEN,
    Suite.HYBRID_KEYS_PSK: KEY_LEN + (KEM_CIPHERTEXT_LEN + TAG_LEN) + TAG_LEN,
}
"""Bytes of message 2 without its payload. Only suite 5 has a payload: the responder's credential."""
MESSAGE_3_LEN: Final = (KEY_LEN + TAG_LEN) + TAG_LEN
"""Bytes of message 3 of suite 5 without its payload, the initiator's credential."""

# -- section 8: credentials of suite 5 --------------------------------------------------------------------------------------

CREDENTIAL_VERSION: Final = 1
MAX_CREDENTIAL: Final = 16384
LENGTH_LEN: Final = 2
"""Bytes of a length field in a credential."""
TIME_LEN: Final = 8
"""Bytes of a time: seconds since 1970 (u64)."""
MIN_CREDENTIAL: Final = 1 + 1 + (LENGTH_LEN + 1) + TIME_LEN + LENGTH_LEN
BINDING_LABEL: Final = b"STCP/1 static key binding\0"

# -- section 2: frames -----------------------------------------------------------------------------------------------------

HEADER_LEN: Final = 4
"""type (u8) ‖ 0 (u8) ‖ length (u16) of ciphertext and tag."""
NONCE_LEN: Final = 12
MAX_FRAME: Final = 65536
MIN_LENGTH: Final = TAG_LEN
MAX_LENGTH: Final = MAX_FRAME - HEADER_LEN
FRAME_OVERHEAD: Final = HEADER_LEN + TAG_LEN
MAX_PLAINTEXT: Final = MAX_FRAME - FRAME_OVERHEAD
REKEY_INTERVAL: Final = 1 << 20
"""Before using n where n > 0 and n mod REKEY_INTERVAL = 0, the direction's key is replaced."""
REKEY_NONCE: Final = (1 << 64) - 1
"""Reserved for REKEY: no frame may use it."""


class FrameType(enum.IntEnum):
    DATA = 0
    FIN = 1
    RESET = 2
    OPEN = 3
    ACCEPT = 4
    REJECT = 5
    BYE = 6


CODE_LEN: Final = 2
MAX_TEXT: Final = 256
"""Bytes of UTF-8 after the code of RESET and REJECT."""


class Attribute(enum.IntEnum):
    """Types of the attributes in OPEN and ACCEPT: type (u8) ‖ length (u16) ‖ value."""

    SERVICE = 1
    CLIENT = 2
    ORIGINAL = 3
    KEEP = 4


ATTRIBUTE_HEADER_LEN: Final = 3
MAX_ATTRIBUTES: Final = 64
"""Most attributes of one frame, unknown ones included."""
MAX_SERVICE: Final = 255
ADDRESS_LEN: Final = {4: 1 + 4 + 2, 6: 1 + 16 + 2}
"""Length of an address, family (u8) ‖ address ‖ port (u16), by family."""

# -- section 7: kept wire legs ----------------------------------------------------------------------------------------------

KEEP_LEN: Final = 2
"""Bytes of attribute KEEP: seconds (u16), 1 to MAX_KEEP."""
MAX_KEEP: Final = 65535
MAX_CONNECTIONS: Final = 1 << 16
"""Most connections that one wire leg carries, one after the other."""
READY_SERVICE: Final = ":ready"
"""The service that makes a leg ready: no target, no byte, an end at once. No configured name begins with a colon."""
