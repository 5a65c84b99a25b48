"""Every number of STCP/1 on the wire, in one place; sizes are computed from sizes.

The section beside each block is PROTOCOL.md's. `kernel/` has the same list as a C header, and a test compares the two.
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
"""X25519 keys, the shared secret and AES-256 keys alike."""
HASH_LEN: Final = 32
TAG_LEN: Final = 16
KEM_PUBLIC_LEN: Final = 1184
KEM_CIPHERTEXT_LEN: Final = 1088
CHANNEL_ID_LEN: Final = 8
"""The channel id is this many bytes of the final handshake hash, in hex."""


class Suite(enum.IntEnum):
    """Noise protocol of a connection. Chosen by policy, never negotiated."""

    HYBRID_KEYS = 1
    CLASSIC_KEYS = 2
    HYBRID_PSK = 3
    CLASSIC_PSK = 4


MESSAGE_1_LEN: Final = {
    Suite.HYBRID_KEYS: KEY_LEN + (KEM_PUBLIC_LEN + TAG_LEN) + (KEY_LEN + TAG_LEN) + TAG_LEN,
    Suite.CLASSIC_KEYS: KEY_LEN + (KEY_LEN + TAG_LEN) + TAG_LEN,
    Suite.HYBRID_PSK: KEY_LEN + (KEM_PUBLIC_LEN + TAG_LEN) + TAG_LEN,
    Suite.CLASSIC_PSK: KEY_LEN + TAG_LEN,
}
MESSAGE_2_LEN: Final = {
    Suite.HYBRID_KEYS: KEY_LEN + (KEM_CIPHERTEXT_LEN + TAG_LEN) + TAG_LEN,
    Suite.CLASSIC_KEYS: KEY_LEN + TAG_LEN,
    Suite.HYBRID_PSK: KEY_LEN + (KEM_CIPHERTEXT_LEN + TAG_LEN) + TAG_LEN,
    Suite.CLASSIC_PSK: KEY_LEN + TAG_LEN,
}

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


CODE_LEN: Final = 2
MAX_TEXT: Final = 256
"""Bytes of UTF-8 behind the code of RESET and REJECT."""


class Attribute(enum.IntEnum):
    """Types of the attributes in OPEN and ACCEPT: type (u8) ‖ length (u16) ‖ value."""

    SERVICE = 1
    CLIENT = 2
    ORIGINAL = 3


ATTRIBUTE_HEADER_LEN: Final = 3
MAX_SERVICE: Final = 255
ADDRESS_LEN: Final = {4: 1 + 4 + 2, 6: 1 + 16 + 2}
"""Length of an address, family (u8) ‖ address ‖ port (u16), by family."""
