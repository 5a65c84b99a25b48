"""The framed echo server."""

import contextlib
import socket
from collections.abc import Iterator

import pytest
from structlog.testing import capture_logs

from stcp_proxy.lab.echo import MAX_MESSAGE, BadLengthError, EchoServer, whole
from stcp_proxy.lab.loadgen import LabError


def framed(message: bytes) -> bytes:
    return len(message).to_bytes(4, "big") + message


@pytest.fixture(params=[1, 2])
def server(request: pytest.FixtureRequest) -> Iterator[EchoServer]:
    with EchoServer(port=0, threads=request.param) as running:
        yield running


@pytest.fixture
def client(server: EchoServer) -> Iterator[socket.socket]:
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as sock:
        yield sock


def receive(sock: socket.socket, size: int) -> bytes:
    out = bytearray()
    while len(out) < size:
        chunk = sock.recv(1 << 20)
        if not chunk:
            break
        out += chunk
    return bytes(out)


@pytest.mark.parametrize(
    ("data", "end"),
    [
        (b"", 0),
        (b"\0\0\0", 0),
        (framed(b""), 4),
        (framed(b"abc"), 7),
        (framed(b"abc")[:-1], 0),
        (framed(b"abc") + framed(b"de"), 13),
        (framed(b"abc") + framed(b"de")[:-1], 7),
        (framed(b"abc") + b"\0", 7),
        (MAX_MESSAGE.to_bytes(4, "big"), 0),
    ],
)
def test_whole_messages(data: bytes, end: int) -> None:
    assert whole(data) == end


def test_a_length_beyond_the_limit_is_refused_as_soon_as_it_is_there() -> None:
    with pytest.raises(BadLengthError):
        whole((MAX_MESSAGE + 1).to_bytes(4, "big"))


@pytest.mark.parametrize("size", [0, 1, 256, 65536, 300_000, 5_000_000])
def test_a_message_comes_back_whole(client: socket.socket, size: int) -> None:
    message = framed(bytes(range(251)) * (size // 251 + 1))[: size + 4]
    message = size.to_bytes(4, "big") + message[4:]
    client.sendall(message)
    assert receive(client, len(message)) == message


def test_byte_by_byte(client: socket.socket) -> None:
    message = framed(b"slowly")
    client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    for at in range(len(message)):
        client.sendall(message[at : at + 1])
    assert receive(client, len(message)) == message


def test_nothing_comes_back_before_the_message_is_whole(client: socket.socket) -> None:
    client.sendall(framed(b"abcdef")[:-1])
    client.settimeout(0.2)
    with pytest.raises(TimeoutError):
        client.recv(1)
    client.settimeout(10)
    client.sendall(b"f")
    assert receive(client, 10) == framed(b"abcdef")


def test_messages_sent_at_once_come_back_in_order(client: socket.socket) -> None:
    messages = b"".join(framed(bytes([number]) * number) for number in range(200))
    client.sendall(messages)
    assert receive(client, len(messages)) == messages


def test_a_client_that_does_not_read_gets_everything_later(client: socket.socket) -> None:
    message = framed(b"x" * 100_000)
    client.settimeout(1)
    sent = 0
    try:
        while sent < 400 * len(message):
            client.sendall(message)
            sent += len(message)
    except TimeoutError:
        pass
    assert sent < 400 * len(message), "the server kept reading"
    client.settimeout(10)
    assert receive(client, sent)[:sent] == message * (sent // len(message))


def test_a_bad_length_closes_the_connection_and_is_logged(client: socket.socket) -> None:
    with capture_logs() as logs:
        client.sendall((MAX_MESSAGE + 1).to_bytes(4, "big") + b"whatever")
        with contextlib.suppress(ConnectionResetError):
            assert client.recv(1) == b""
    assert [entry["event"] for entry in logs] == ["bad length: connection closed"]


def test_other_connections_go_on(server: EchoServer, client: socket.socket) -> None:
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as other, capture_logs():
        other.sendall(b"\xff\xff\xff\xff")
        assert other.recv(1) == b""
    client.sendall(framed(b"still here"))
    assert receive(client, 14) == framed(b"still here")


def test_a_port_that_is_taken_is_an_error(server: EchoServer) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(LabError, match="cannot listen"):
        EchoServer(port=taken.getsockname()[1])
