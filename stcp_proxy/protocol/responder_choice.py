"""A listening side that accepts suites of both handshakes: by keys or a shared secret, and by certificates."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeAlias

from stcp_proxy.protocol.certified_handshake import CertifiedResponder, Reply
from stcp_proxy.protocol.established import Answer, Established
from stcp_proxy.protocol.handshake import Responder
from stcp_proxy.protocol.prologue import read_prologue
from stcp_proxy.protocol.wire import Suite

OneResponder: TypeAlias = Responder | CertifiedResponder


class ResponderChoice:
    """Reads the prologue, and leaves the rest to the responder of its suite.

    Invariants:
    - The bytes before the choice are at most one prologue and what one read brought behind it.

    Args:
        makers: a function for each accepted suite, which makes its responder.
    """

    def __init__(self, makers: Mapping[Suite, Callable[[], OneResponder]]) -> None:
        self._makers = makers
        self._chosen: OneResponder | None = None
        self._buffer = b""

    def receive(self, data: bytes) -> Answer | Reply | Established | None:
        """Process bytes from the initiator; see the responder of each suite.

        Raises:
            HandshakeError: the handshake failed. Close the wire leg without a reply.
        """
        if self._chosen is None:
            self._buffer += data
            suite = read_prologue(self._buffer, self._makers)
            if suite is None:
                return None
            self._chosen = self._makers[suite]()
            data, self._buffer = self._buffer, b""
        return self._chosen.receive(data)
