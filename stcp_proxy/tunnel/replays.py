"""Genuine first messages that a listener has answered lately, so that a replay costs no key exchange and gets no answer.

A first message is known by its ephemeral public key, which an honest initiator never uses twice. It is noted only after the
message has authenticated. So a stranger cannot add one: what he can replay is here already. An allowed peer can, at the price of
a handshake for each; he shortens the window for others, and no more.

Memory is bounded: two generations, the older of which is dropped when the younger is full or old. A replay that is no longer
known gets what it got before: one key exchange, an answer, and nothing else.
"""

from __future__ import annotations

from typing import Final

WINDOW: Final = 60.0
"""Seconds for which a message is known at least, unless a generation is full."""
MOST: Final = 32_768
"""Messages of a generation; about 110 bytes each."""
_KEPT: Final = 16
"""Bytes of the ephemeral key that are kept. Honest keys are random, so 128 bits tell them apart."""


class Replays:
    """The messages of one listen tunnel. The caller gives the time, in seconds on any clock that never goes back."""

    def __init__(self) -> None:
        self._young: set[bytes] = set()
        self._old: set[bytes] = set()
        self._since = float("-inf")
        """When the younger generation began."""

    def __len__(self) -> int:
        return len(self._young) + len(self._old)

    def has(self, ephemeral: bytes) -> bool:
        """Whether a genuine message with this ephemeral key was answered within the window."""
        key = ephemeral[:_KEPT]
        return key in self._young or key in self._old

    def add(self, ephemeral: bytes, now: float) -> None:
        """Note a message that has authenticated.

        Args:
            ephemeral: its ephemeral public key, 32 bytes.
            now: the time.
        """
        if now >= self._since + WINDOW or len(self._young) >= MOST:
            self._old, self._young = self._young, set()
            self._since = now
        self._young.add(ephemeral[:_KEPT])
