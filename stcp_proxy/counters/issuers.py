"""Which key of an authority vouched for which peer, and when. It shows whether the authority is still needed."""

from __future__ import annotations

import collections
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

MAX_USES: Final = 20_000
"""Most pairs of an authority's key and a peer that a tunnel remembers: 10,000 peers while one authority replaces another."""


@dataclass(slots=True)
class IssuerUse:
    """The handshakes of one peer with certificates that one key of an authority vouches for.

    Attributes:
        first, last: times of the first and the last handshake, seconds since 1970.
        not_after: the latest end of these certificates, seconds since 1970.
    """

    first: float
    last: float
    not_after: float


class Issuers:
    """The use of authorities in one tunnel.

    Attributes:
        forgotten: peers that are no longer remembered, by the key of their authority.
    """

    def __init__(self) -> None:
        self._uses: collections.OrderedDict[tuple[bytes, str], IssuerUse] = collections.OrderedDict()
        self.forgotten: Final[collections.Counter[bytes]] = collections.Counter()

    def note(self, key: bytes, peer: str, not_after: float, now: float) -> None:
        """Note a handshake. The pair that was used longest ago is forgotten when there are too many.

        Args:
            key: public key of the authority (SubjectPublicKeyInfo, DER).
            peer: name of the peer.
            not_after: end of its certificate, in seconds since 1970.
            now: the time, in seconds since 1970.
        """
        use = self._uses.get((key, peer))
        if use is None:
            self._uses[key, peer] = IssuerUse(now, now, not_after)
            if len(self._uses) > MAX_USES:
                (old, _), _ = self._uses.popitem(last=False)
                self.forgotten[old] += 1
            return
        use.last, use.not_after = now, max(use.not_after, not_after)
        self._uses.move_to_end((key, peer))

    def __iter__(self) -> Iterator[tuple[bytes, str, IssuerUse]]:
        """The key of the authority, the name of the peer, and the use."""
        return iter([(key, peer, use) for (key, peer), use in self._uses.items()])
