"""The result of a handshake."""

from __future__ import annotations

from dataclasses import dataclass

from stcp_proxy.protocol.secret import Secret
from stcp_proxy.protocol.wire import CHANNEL_ID_LEN, Suite


@dataclass(frozen=True, slots=True)
class Established:
    """A finished handshake.

    Attributes:
        suite: the suite in force.
        send_key: key of the direction from this side to the peer. Its counter starts at 0.
        receive_key: key of the other direction. Its counter starts at 0.
        handshake_hash: the final transcript hash, 32 bytes.
        peer: the peer's static public key, 32 bytes; None in suites 3 and 4, where a shared secret names nobody.
        rest: bytes after the last handshake message: the beginning of the frames.
        own: this side's static public key, by which the peer knows it; None in suites 3 and 4.
        credential: the peer's encoded credential in suite 5, None in the others.
        verified: the result of the function that verified the credential in suite 5, None in the others.
    """

    suite: Suite
    send_key: Secret
    receive_key: Secret
    handshake_hash: bytes
    peer: bytes | None
    rest: bytes
    own: bytes | None = None
    credential: bytes | None = None
    verified: object | None = None

    @property
    def channel_id(self) -> str:
        """The connection's name in the logs of both sides: 16 hex digits."""
        return self.handshake_hash[:CHANNEL_ID_LEN].hex()


@dataclass(frozen=True, slots=True)
class Answer:
    """The last handshake message to send, and the keys that follow it."""

    reply: bytes
    established: Established
