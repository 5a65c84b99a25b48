"""What each suite is made of: its Noise pattern and the keys that a side needs for it."""

from __future__ import annotations

from typing import Final

from stcp_proxy.protocol import patterns
from stcp_proxy.protocol.patterns import Pattern
from stcp_proxy.protocol.wire import Suite

PATTERNS: Final[dict[Suite, Pattern]] = {
    Suite.HYBRID_KEYS: patterns.IK_HFS,
    Suite.CLASSIC_KEYS: patterns.IK,
    Suite.HYBRID_PSK: patterns.NN_HFS_PSK0,
    Suite.CLASSIC_PSK: patterns.NN_PSK0,
    Suite.HYBRID_CERTIFICATES: patterns.XX_HFS,
    Suite.HYBRID_KEYS_PSK: patterns.IK_HFS_PSK2,
}
KEY_SUITES: Final = frozenset({Suite.HYBRID_KEYS, Suite.CLASSIC_KEYS, Suite.HYBRID_KEYS_PSK})
"""Suites in which each side has a static key pair that the other side's configuration names."""
PSK_SUITES: Final = frozenset({Suite.HYBRID_PSK, Suite.CLASSIC_PSK, Suite.HYBRID_KEYS_PSK})
"""Suites that mix in a shared secret."""
