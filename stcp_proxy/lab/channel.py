"""A connection of the stress client that speaks STCP itself, directly to a listening proxy."""

from __future__ import annotations

import errno
import select
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from stcp_proxy.errors import ConfigError, StcpError, describe
from stcp_proxy.keys import PublicKey, load_private_key
from stcp_proxy.lab.link import MAX_READ, READ, Link, Owner
from stcp_proxy.lab.stress import MakeLink
from stcp_proxy.protocol.frames import Opener, Sealer, sealed_size
from stcp_proxy.protocol.handshake import Credentials, Established, Initiator
from stcp_proxy.protocol.lifecycle import Phase, follow
from stcp_proxy.protocol.noise import KeyPair
from stcp_proxy.protocol.opening import Opening, decode_reason
from stcp_proxy.protocol.wire import FrameType, Suite


@dataclass(frozen=True, slots=True)
class Identity:
    """The keys of the stress client and of the proxy that it expects.

    Attributes:
        key: the stress client's key pair.
        peer: the listening proxy's public key, 32 bytes.
        suite: the suite of the handshake.
    """

    key: KeyPair
    peer: bytes
    suite: Suite = Suite.HYBRID_KEYS

    def link(self, owner: Owner, queue: Sequence[bytes], first: int) -> Link:
        """A connection of this identity, for `stress.Run`."""
        return SecureLink(owner, queue, first, self)


def link_maker(key: Path | None, peer: str | None, suite: str) -> MakeLink:
    """Choose the connections of a run: plain ones without a key, STCP ones with a key.

    Args:
        key: private key file of the stress client.
        peer: the listening proxy's public key, as text.
        suite: "hybrid" or "classic".

    Raises:
        ConfigError: only one of key and peer is given, or the suite is unknown.
        KeyFileError: the key cannot be used.
    """
    if key is None and peer is None:
        return Link
    if key is None or peer is None:
        raise ConfigError("--key and --peer need each other", remedy="give both to speak STCP, or neither")
    suites = {"hybrid": Suite.HYBRID_KEYS, "classic": Suite.CLASSIC_KEYS}
    if suite not in suites:
        raise ConfigError(f"there is no suite called {suite!r}", remedy="write hybrid or classic")
    return Identity(KeyPair(load_private_key(key).secret), PublicKey.parse(peer).raw, suites[suite]).link


class SecureLink(Link):
    """A `Link` that sends its messages in frames. It counts as a connection once the responder has sent ACCEPT.

    Args:
        identity: keys and suite.
    """

    __slots__ = ("_buffer", "_finished", "_identity", "_initiator", "_opener", "_phase", "_sealer")

    def __init__(self, owner: Owner, queue: Sequence[bytes], first: int, identity: Identity) -> None:
        super().__init__(owner, queue, first)
        self._identity = identity
        self._buffer = bytearray()
        self._phase = Phase.EXPECT_ACCEPT
        self._finished = False

    def established(self) -> None:
        """Begin the handshake: TCP is connected."""
        credentials = Credentials(static=self._identity.key)
        self._initiator = Initiator(self._identity.suite, credentials, remote_static=self._identity.peer)
        self._handle = self._on_handshake
        self.put(self._initiator.message_1())

    def _on_handshake(self, mask: int) -> None:
        if mask & select.EPOLLOUT:
            self._send_rest()
        if mask == select.EPOLLOUT:
            return
        try:
            data = self.sock.recv(MAX_READ)
            established = self._initiator.receive(data) if data else None
        except BlockingIOError:
            return
        except (OSError, StcpError) as exc:
            self._fail_to_connect(str(exc))
            return
        if not data:
            self._fail_to_connect("the peer closed the connection in the handshake; add this side's key to its --allow")
        elif established:
            self._open(established)

    def _open(self, established: Established) -> None:
        self._sealer, self._opener = Sealer(established.send_key), Opener(established.receive_key)
        self._buffer += established.rest
        self._handle = self._on_answer
        self.put(self._sealer.seal(FrameType.OPEN, Opening().encode()))

    def _on_answer(self, mask: int) -> None:
        """Wait for ACCEPT. A different frame before the first request is an error."""
        try:
            self._read_frames()
        except BlockingIOError:
            if self._phase is Phase.STREAM:
                self.receive = self._receive
                super().established()
        except OSError as exc:
            self._fail_to_connect(exc.strerror or str(exc))
        else:
            self._fail_to_connect("the peer ended the connection before ACCEPT")

    def encode(self, message: bytes) -> bytes:
        """The message in DATA frames."""
        out = bytearray(sealed_size(len(message)))
        self._sealer.seal_data(memoryview(message), memoryview(out))
        return bytes(out)

    def _receive(self, room: int) -> bytes:
        return self._read_frames()

    def _read_frames(self) -> bytes:
        """Return the application bytes received so far.

        Returns:
            Bytes; empty when the peer has sent FIN.

        Raises:
            BlockingIOError: no frame with application bytes has arrived.
            OSError: the connection or the protocol failed.
        """
        chunk = self.sock.recv(MAX_READ)
        if not chunk:
            raise OSError(errno.ECONNABORTED, "the wire leg ended without FIN")
        self._buffer += chunk
        try:
            plain = self._open_frames()
        except StcpError as exc:
            raise OSError(errno.EPROTO, str(exc)) from exc
        if not plain and not self._finished:
            raise BlockingIOError
        return plain

    def _open_frames(self) -> bytes:
        parts, at, whole = [], 0, bytes(self._buffer)
        view = memoryview(whole)
        while (opened := self._opener.open(view[at:])) is not None:
            used, kind, plaintext = opened
            at += used
            self._phase = follow(self._phase, kind)
            if kind == FrameType.DATA:
                parts.append(plaintext)
            elif kind == FrameType.FIN:
                self._finished = True
            elif kind in (FrameType.RESET, FrameType.REJECT):
                raise OSError(errno.ECONNRESET, describe(*decode_reason(plaintext)))
        del self._buffer[:at]
        return parts[0] if len(parts) == 1 else b"".join(parts)

    # -- ends --------------------------------------------------------------------------------------------------------------

    def rest(self) -> None:
        """Stop requests at the end of the run. Events are still needed for FIN."""
        self.busy = False
        self._handle = self._on_goodbye

    def finish(self) -> None:
        """Send FIN and keep the socket until the peer's FIN. Meanwhile a new connection replaces this one."""
        self.leave()
        self._owner.ended(self, failed=False)

    def leave(self) -> None:
        """Send FIN and wait for the FIN of the peer."""
        if self._phase is not Phase.STREAM:
            self.close()
            return
        self.busy = False
        self._handle = self._on_goodbye
        try:
            self.sock.send(self._sealer.seal(FrameType.FIN))
            self._owner.epoll.modify(self.sock.fileno(), READ)
        except OSError:
            self.close()

    def _on_goodbye(self, mask: int) -> None:
        try:
            self._read_frames()
        except BlockingIOError:
            return
        except OSError:
            pass
        self.close()
