"""A peer of the tests' own behind a TCP connection: handshake and OPEN, and then what a test wants."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable

from stcp_proxy.protocol.frames import Opener, Sealer
from stcp_proxy.protocol.handshake import Credentials, Responder
from stcp_proxy.protocol.noise import KeyPair
from stcp_proxy.protocol.wire import FrameType, Suite

from .stage import CLIENT, SERVER


class Peer:
    """A peer of the test's own behind a TCP connection, in a thread."""

    def __init__(self, sock: socket.socket, behave: Callable[[Peer], None]) -> None:
        self._sock = sock
        self.opening: tuple[FrameType, bytes] | None = None
        self._thread = threading.Thread(target=self._run, args=(behave,))
        self._thread.start()

    def _run(self, behave: Callable[[Peer], None]) -> None:
        responder = Responder((Suite.CLASSIC_KEYS,), Credentials(static=KeyPair(SERVER.secret)), allowed={CLIENT.public.raw})
        while (answer := responder.receive(self._sock.recv(4096))) is None:
            pass
        self._sock.sendall(answer.reply)
        self.sealer, opener = Sealer(answer.established.send_key), Opener(answer.established.receive_key)
        data = b""
        while (opened := opener.open(data)) is None:
            data += self._sock.recv(4096)
        self.opening = FrameType(opened[1]), opened[2]
        behave(self)

    def send(self, kind: FrameType, plaintext: bytes = b"") -> None:
        self._sock.sendall(self.sealer.seal(kind, plaintext))

    def raw(self, data: bytes) -> None:
        self._sock.sendall(data)

    def close(self) -> None:
        self._sock.shutdown(socket.SHUT_RDWR)

    def join(self) -> None:
        self._thread.join(10)
