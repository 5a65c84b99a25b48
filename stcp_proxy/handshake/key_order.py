"""Which of several keys a connect tunnel uses, while keys are rotated.

A listening side does not say why it refuses a handshake: it closes. So where this side has several keys of its own, or knows
several of the peer's, a handshake that is closed is tried again with the next pair, on a new connection to the same address. The
pair that worked is remembered for each address and comes first from then on. Every so often one connection starts again from the
beginning of the configured order: an old key must not stay in use because it once was the only one that worked.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from stcp_proxy.protocol.noise import KeyPair

LOOK_AGAIN: Final = 60.0
"""Seconds after which a pair that is not the first of the configuration is questioned."""
_MOST: Final = 256
"""Addresses that are remembered."""


@dataclass(frozen=True, slots=True)
class Pair:
    """What one handshake is tried with.

    Attributes:
        own: this side's key pair; None with a shared secret.
        peer: the peer's public key, 32 bytes; None with a shared secret.
    """

    own: KeyPair | None
    peer: bytes | None


@dataclass(slots=True)
class _Known:
    """What worked for an address, and when to doubt it."""

    pair: Pair
    until: float


class Choice:
    """The pairs of a connect tunnel.

    Args:
        own: this side's key pairs, the preferred first; a single None with a shared secret.
        peers: the peer's public keys, the preferred first; a single None with a shared secret.
    """

    def __init__(self, own: Sequence[KeyPair | None], peers: Sequence[bytes | None]) -> None:
        ranked = [(i + j, Pair(mine, theirs)) for i, mine in enumerate(own) for j, theirs in enumerate(peers)]
        self._pairs = [pair for _, pair in sorted(ranked, key=lambda entry: entry[0])]
        self._known: dict[str, _Known] = {}

    def order(self, address: str, now: float) -> list[Pair]:
        """The pairs to try at an address, one after the other.

        Args:
            address: text of where the connection goes.
            now: seconds, monotonic.
        """
        known = self._known.get(address)
        if known is None:
            return list(self._pairs)
        if now >= known.until:
            known.until = now + LOOK_AGAIN  # this connection finds out, the others need not
            return list(self._pairs)
        return [known.pair, *(pair for pair in self._pairs if pair != known.pair)]

    def forget(self) -> None:
        """Start again from the beginning everywhere: somebody has changed keys, here or there."""
        self._known.clear()

    def worked(self, address: str, pair: Pair, now: float) -> None:
        """A handshake with `pair` came through at an address."""
        if len(self._pairs) == 1:
            return
        known = self._known.get(address)
        if known is not None and known.pair == pair:
            return
        if len(self._known) >= _MOST:
            self._known.clear()
        self._known[address] = _Known(pair, float("inf") if pair == self._pairs[0] else now + LOOK_AGAIN)
