"""A peer in the test itself: it speaks STCP/1 correctly, or with the faults that a test requests."""

from __future__ import annotations

import socket

from harness.proxies import Keys
from harness.sockets import read_exactly
from stcp_proxy.keys import PrivateKey
from stcp_proxy.protocol.frames import Opener, Sealer
from stcp_proxy.protocol.handshake import Credentials, Established, Initiator, prologue
from stcp_proxy.protocol.noise import KeyPair
from stcp_proxy.protocol.secret import Secret
from stcp_proxy.protocol.wire import HEADER_LEN, MESSAGE_2_LEN, MESSAGE_LENGTH_LEN, FrameType, Suite


def default_suite(keys: Keys) -> Suite:
    return Suite.HYBRID_PSK if keys.psk else Suite.HYBRID_KEYS


def initiator(
    keys: Keys, *, key: PrivateKey | None = None, secret: Secret | None = None, suite: Suite | None = None
) -> Initiator:
    """An initiator towards the listening side of `keys`; with a key or a secret of its own, a stranger."""
    suite = suite or default_suite(keys)
    if keys.psk:
        return Initiator(suite, Credentials(psk=secret or keys.secret))
    credentials = Credentials(static=KeyPair((key or keys.client).secret))
    return Initiator(suite, credentials, remote_static=keys.server.public.raw)


def message_1(keys: Keys) -> bytes:
    """The first flight of an allowed peer: prologue, length, message."""
    return initiator(keys).message_1()


class Peer:
    """An initiator on a connected socket, after its handshake."""

    def __init__(self, sock: socket.socket, keys: Keys, *, suite: Suite | None = None) -> None:
        self.sock = sock
        suite = suite or default_suite(keys)
        noise = initiator(keys, suite=suite)
        first = noise.message_1()
        assert first.startswith(prologue(suite))
        sock.sendall(first)
        established: Established | None = noise.receive(read_exactly(sock, MESSAGE_LENGTH_LEN + MESSAGE_2_LEN[suite]))
        assert established is not None
        self.channel = established.channel_id
        self.sealer = Sealer(established.send_key)
        self.opener = Opener(established.receive_key)

    def send(self, kind: FrameType, plaintext: bytes = b"") -> None:
        self.sock.sendall(self.sealer.seal(kind, plaintext))

    def open(self) -> None:
        """Send OPEN, and receive ACCEPT."""
        self.send(FrameType.OPEN)
        assert self.receive() == (FrameType.ACCEPT, b"")

    def receive(self) -> tuple[FrameType, bytes] | None:
        """The next frame, or None at the end of the wire leg."""
        head = read_exactly(self.sock, HEADER_LEN)
        if not head:
            return None
        body = read_exactly(self.sock, int.from_bytes(head[2:], "big"))
        opened = self.opener.open(head + body)
        assert opened is not None
        return FrameType(opened[1]), opened[2]
