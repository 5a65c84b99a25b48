"""The stress client speaking STCP itself, against a responder made of the protocol package and plain sockets."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from stcp_proxy.errors import Code, ConfigError, StcpError
from stcp_proxy.keys import PrivateKey, format_private_key, write_secret_file
from stcp_proxy.lab.channel import Identity, link_maker
from stcp_proxy.lab.link import Link
from stcp_proxy.lab.stress import Mode, Options, Run
from stcp_proxy.lab.tally import Summary
from stcp_proxy.protocol.frames import Opener, Sealer, sealed_size
from stcp_proxy.protocol.handshake import Credentials, Responder
from stcp_proxy.protocol.noise import KeyPair
from stcp_proxy.protocol.opening import encode_reason
from stcp_proxy.protocol.wire import FrameType, Suite

pytest.importorskip("hdrh", reason="hdrhistogram is not installed")


@dataclass
class Listener:
    """Echoes the bytes of DATA frames, as a listening proxy before an echo server does."""

    allowed: bytes
    key: KeyPair
    reject: bool = False
    corrupt: bool = False
    finished: list[bool] = field(default_factory=list)

    def serve(self, sock: socket.socket) -> None:
        with sock, suppress(OSError, StcpError):
            self._serve(sock)

    def _serve(self, sock: socket.socket) -> None:
        responder = Responder({Suite.HYBRID_KEYS, Suite.CLASSIC_KEYS}, Credentials(static=self.key), allowed={self.allowed})
        while (answer := responder.receive(sock.recv(4096))) is None:
            pass
        sock.sendall(answer.reply)
        keys = answer.established
        sealer, opener, data = Sealer(keys.send_key), Opener(keys.receive_key), bytearray(keys.rest)
        while chunk := sock.recv(65536):
            data += chunk
            while (opened := opener.open(bytes(data))) is not None:
                used, kind, plaintext = opened
                del data[:used]
                if kind == FrameType.FIN:
                    self.finished.append(True)
                    sock.sendall(sealer.seal(FrameType.FIN))
                    return
                sock.sendall(self._reply(sealer, kind, plaintext))

    def _reply(self, sealer: Sealer, kind: int, plaintext: bytes) -> bytes:
        if kind == FrameType.OPEN:
            if self.reject:
                return sealer.seal(FrameType.REJECT, encode_reason(Code.TARGET_REFUSED, "nobody home"))
            return sealer.seal(FrameType.ACCEPT)
        out = bytearray(sealed_size(len(plaintext)))
        sealer.seal_data(memoryview(plaintext), memoryview(out))
        if self.corrupt:
            out[-1] ^= 1
        return bytes(out)


@contextmanager
def listening(listener: Listener) -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        threads = []

        def accept() -> None:
            with suppress(OSError):
                while True:
                    sock, _ = server.accept()
                    threads.append(threading.Thread(target=listener.serve, args=(sock,)))
                    threads[-1].start()

        acceptor = threading.Thread(target=accept)
        acceptor.start()
        yield server.getsockname()[1]
        server.shutdown(socket.SHUT_RDWR)
        acceptor.join()
        for thread in threads:
            thread.join()


OURS, THEIRS = PrivateKey.generate(), PrivateKey.generate()
CLIENT, SERVER = KeyPair(OURS.secret), KeyPair(THEIRS.secret)


def stress(listener: Listener, suite: Suite = Suite.HYBRID_KEYS, **options: object) -> tuple[Summary, Run]:
    with listening(listener) as port:
        settings: dict[str, object] = {"port": port, "clients": 3, "duration": 0.4, "timeout": 5.0}
        run = Run(Options(**(settings | options)), Identity(CLIENT, SERVER.public, suite).link)  # type: ignore[arg-type]
        return run.execute(), run


@pytest.mark.parametrize("suite", [Suite.HYBRID_KEYS, Suite.CLASSIC_KEYS])
@pytest.mark.parametrize("size", [1, 256, 200_000])
def test_messages_go_through_frames(suite: Suite, size: int) -> None:
    listener = Listener(CLIENT.public, SERVER)
    summary, run = stress(listener, suite, size=size)
    assert summary.clean, run.tally.first_error
    assert summary.requests > 3
    assert summary.connections == 3
    assert len(listener.finished) == 3, "every connection ended with FIN"


def test_churn_ends_each_connection_with_fin() -> None:
    listener = Listener(CLIENT.public, SERVER)
    summary, run = stress(listener, mode=Mode.CHURN, messages=3)
    assert summary.clean, run.tally.first_error
    assert len(listener.finished) >= summary.connections - 3 > 3


def test_a_listener_that_does_not_know_us_is_a_connection_error() -> None:
    summary, run = stress(Listener(bytes(32), SERVER))
    assert summary.connection_errors > 0
    assert "--allow" in run.tally.first_error


def test_a_rejected_connection_is_a_connection_error_with_the_peers_words() -> None:
    summary, run = stress(Listener(CLIENT.public, SERVER, reject=True))
    assert summary.connection_errors > 0
    assert "nobody home" in run.tally.first_error


def test_a_flipped_bit_is_an_operation_error() -> None:
    summary, run = stress(Listener(CLIENT.public, SERVER, corrupt=True))
    assert summary.operation_errors > 0
    assert "authenticate" in run.tally.first_error


def test_keys_come_from_a_file_and_the_command_line(tmp_path: Path) -> None:
    path = tmp_path / "key"
    write_secret_file(path, format_private_key(OURS) + "\n")
    made = link_maker(path, str(THEIRS.public), "classic")
    assert made.__self__ == Identity(made.__self__.key, SERVER.public, Suite.CLASSIC_KEYS)  # type: ignore[attr-defined]
    assert made.__self__.key.public == CLIENT.public  # type: ignore[attr-defined]
    assert link_maker(None, None, "hybrid") is Link


@pytest.mark.parametrize(
    ("key", "peer", "suite"), [(Path("k"), None, "hybrid"), (None, "stcp-pub:x", "hybrid"), (Path("k"), "p", "best")]
)
def test_half_of_an_identity_is_refused(key: Path | None, peer: str | None, suite: str) -> None:
    with pytest.raises(ConfigError):
        link_maker(key, peer, suite)
