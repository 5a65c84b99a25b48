"""The order in which a connect tunnel tries pairs of keys, while keys are rotated.

A responder closes the connection when it refuses a handshake, and gives no reason. So after a close the next pair of keys is
tried, on a new connection to the same address. The pair that worked is remembered for the address and tried first from then
on. Once in `LOOK_AGAIN` seconds one connection starts with the first pair of the file: an old key must not stay in use
because it was once the only one that worked.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from stcp_proxy.protocol.noise import KeyPair

LOOK_AGAIN: Final = 60.0
"""Seconds after which the first pair of the file is tried again."""
_MOST: Final = 256
"""Most addresses that are remembered."""


@dataclass(frozen=True, slots=True)
class Pair:
    """The keys of one handshake.

    Attributes:
        own: this side's key pair; None with a shared secret.
        peer: the peer's public key, 32 bytes; None with a shared secret.
    """

    own: KeyPair | None
    peer: bytes | None


@dataclass(slots=True)
class _Known:
    """The pair that worked at an address, and until when it is tried first."""

    pair: Pair
    until: float


class Choice:
    """The pairs of keys of a connect tunnel.

    Args:
        own: this side's key pairs, the preferred first; a single None with a shared secret.
        peers: the peer's public keys, the preferred first; a single None with a shared secret.
    """

    def __init__(self, own: Sequence[KeyPair | None], peers: Sequence[bytes | None]) -> None:
        ranked = [(i + j, Pair(mine, theirs)) for i, mine in enumerate(own) for j, theirs in enumerate(peers)]
        self._pairs = [pair for _, pair in sorted(ranked, key=lambda entry: entry[0])]
        self._known: dict[str, _Known] = {}

    def order(self, address: str, now: float) -> list[Pair]:
        """The pairs to try at an address, in this order.

        Args:
            address: text of where the connection goes.
            now: seconds, monotonic.
        """
        known = self._known.get(address)
        if known is None:
            return list(self._pairs)
        if now >= known.until:
            known.until = now + LOOK_AGAIN  # this connection tries the first pair, the others need not
            return list(self._pairs)
        return [known.pair, *(pair for pair in self._pairs if pair != known.pair)]

    def is_settled(self, address: str, now: float) -> bool:
        """Whether the first pair of `order` is the only one, or has worked at an address lately.

        Args:
            address: text of where the connection goes.
            now: seconds, monotonic.
        """
        known = self._known.get(address)
        return len(self._pairs) <= 1 or (known is not None and now < known.until)

    @property
    def is_empty(self) -> bool:
        """Whether there is no pair: then no handshake is begun."""
        return not self._pairs

    def is_preferred(self, pair: Pair) -> bool:
        """Whether it is the first pair of the file."""
        return pair == self._pairs[0]

    def forget(self) -> None:
        """Forget which pairs worked: keys may have changed on either side."""
        self._known.clear()

    def worked(self, address: str, pair: Pair, now: float) -> None:
        """Note that a handshake with `pair` succeeded at an address."""
        if len(self._pairs) == 1:
            return
        known = self._known.get(address)
        if known is not None and known.pair == pair:
            return
        if len(self._known) >= _MOST:
            self._known.clear()
        self._known[address] = _Known(pair, float("inf") if pair == self._pairs[0] else now + LOOK_AGAIN)
