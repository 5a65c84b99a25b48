"""What strangers may do to an admin address: nothing that its next user would notice."""

from __future__ import annotations

import contextlib
import select
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from harness.admin import Admin
from harness.process import wait_for
from harness.proxies import Keys, Proxy
from harness.sockets import connect, free_port, read_all

from stcp_proxy.admin.server import PLACES


@pytest.fixture(scope="module", params=["tcp", "unix"])
def proxy(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxy]:
    folder = tmp_path_factory.mktemp("strangers")
    address = "127.0.0.1:0" if request.param == "tcp" else f"unix:{folder}/admin"
    flags = ["--bind", "127.0.0.1:0", "--to", f"127.0.0.1:{free_port()}", *Keys(folder).connect()]
    with Proxy(["connect", *flags, "--admin", address, "--log-level", "debug"], log=folder / "log") as proxy:
        yield proxy.ready()
        assert not proxy.log(level="error")


@pytest.fixture
def admin(proxy: Proxy) -> Iterator[Admin]:
    """The address, which still answers when the test is over."""
    admin = Admin(proxy)
    yield admin
    assert admin.ask("/healthz") == (200, "ok\n")


def say(admin: Admin, words: bytes) -> bytes:
    """What comes back, up to the end of the connection."""
    with connect(admin.address) as sock:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            sock.sendall(words)
        with contextlib.suppress(OSError):
            sock.shutdown(socket.SHUT_WR)
        with contextlib.suppress(ConnectionResetError):
            return read_all(sock)
    return b""


def read_until(sock: socket.socket, end: bytes) -> bytes:
    """All up to and with `end`; what came before the connection's end if that is sooner."""
    found = b""
    while not found.endswith(end) and (data := sock.recv(4096)):
        found += data
    return found if found.endswith(end) else b""


def has_ended(sock: socket.socket) -> bool:
    try:
        return sock.recv(1) == b""
    except ConnectionResetError:
        return True


@pytest.mark.parametrize(
    ("words", "status"),
    [
        (b"GET /status HTTP/1.1\r\n\r\n", 400),
        (b"GET /status HTTP/1.1\r\nHost: localhost\r\nHost: evil\r\n\r\n", 400),
        (b"GET /" + b"x" * 200_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n", 431),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"x" * 200_000 + b"\r\n\r\n", 431),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\n" + b"X: y\r\n" * 50_000 + b"\r\n", 431),
        (b"BREW /status HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n", 405),
        (b"GET /%2e%2e/%2e%2e/etc/passwd HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n", 404),
        (b"GET //evil.example/status HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n", 404),
        (b"GET /healthz/ HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n", 404),
        (b"GET /status\0 HTTP/1.1\r\nHost: localhost\r\n\r\n", 400),
        (b"POST /quit HTTP/1.1\r\nHost: localhost\r\nContent-Length: -1\r\n\r\n", 400),
        (b"POST /quit HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nx", 400),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(512), 400),
    ],
    ids=lambda value: str(value)[:40],
)
def test_what_is_no_request_to_answer(admin: Admin, words: bytes, status: int) -> None:
    answer = say(admin, words)
    # What did not read all that was said to it may be heard as a reset, its answer lost.
    assert answer.startswith(b"HTTP/1.1 %d " % status) or (len(words) > 100_000 and not answer)
    assert b"stcp-pub" not in answer


@pytest.mark.parametrize(
    "words",
    [
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\xff" * 1000,
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\x00\x00\x00\x04\x00\x00\x00\x00\x00" * 1000,
        b"GET /status HTTP/1.1\r\nHost: evil.example\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n"
        b"HTTP2-Settings: !\r\n\r\n",
        b"GET /status HTTP/1.1\r\nHost: evil.example\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
        bytes(range(256)) * 100,
        b"\r\n" * 50_000,
    ],
    ids=["http2 junk", "http2 settings", "h2c", "websocket", "junk", "blank lines"],
)  # fmt: skip
def test_other_protocols_get_nothing_out_of_it(admin: Admin, words: bytes) -> None:
    assert b"stcp-pub" not in say(admin, words)


@pytest.mark.parametrize(
    "words",
    [
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\x00\x00\x00\x04\x00\x00\x00\x00\x00",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n"
        b"HTTP2-Settings: AAMAAABkAAQCAAAAAAIAAAAA\r\n\r\n",
    ],
    ids=["prior knowledge", "upgrade"],
)  # fmt: skip
def test_http2_is_not_spoken(admin: Admin, words: bytes) -> None:
    assert say(admin, words) == b""


@pytest.mark.parametrize("path", ["/healthz", "/readyz"])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_a_simple_probe_gets_the_answer_of_the_web_server(admin: Admin, method: str, path: str) -> None:
    """A field about a body, which is empty, leaves the second request to the web server."""
    simple = b"%s %s HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n" % (method.encode(), path.encode())
    first, second = (say(admin, simple + field + b"\r\n") for field in (b"", b"Content-Length: 0\r\n"))
    assert first.startswith(b"HTTP/1.1 ")
    assert normal(first) == normal(second)


def normal(answer: bytes) -> tuple[bytes, list[bytes], bytes]:
    """Status line, fields without the time, and body."""
    head, _, body = answer.partition(b"\r\n\r\n")
    status, *fields = head.split(b"\r\n")
    return status, sorted(field.lower() for field in fields if not field.startswith(b"date: ")), body


def test_probes_share_a_connection_with_other_requests(admin: Admin) -> None:
    asks = [b"GET %s HTTP/1.1\r\nHost: localhost\r\n\r\n" % path for path in (b"/healthz", b"/healthz", b"/nothing", b"/healthz")]
    with connect(admin.address) as sock:
        for ask, end in zip(asks, (b"ok\n", b"ok\n", b"Not Found", b"ok\n"), strict=True):
            sock.sendall(ask)
            assert read_until(sock, end)


def test_a_body_in_crumbs_is_not_waited_for(admin: Admin) -> None:
    head = b"POST /status HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n"
    assert say(admin, head + b"1\r\nx\r\n" * 1000 + b"0\r\n\r\n") == b""


@pytest.mark.parametrize("size", [100, 200_000, 3_000_000])
def test_a_body_is_not_waited_for(admin: Admin, size: int) -> None:
    head = b"POST /status HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % size
    answer = say(admin, head + bytes(size))
    assert answer.startswith(b"HTTP/1.1 405 ") if size < 64_000 else answer == b""


def test_many_silent_ones_do_not_shut_the_door(proxy: Proxy, admin: Admin) -> None:
    idle = proxy.descriptors()
    with contextlib.ExitStack() as stack:
        trusted = stack.enter_context(connect(admin.address))
        asks, answer = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n", b"\r\n\r\nok\n"
        trusted.sendall(asks)
        assert read_until(trusted, answer)
        socks = [stack.enter_context(connect(admin.address)) for _ in range(PLACES + 40)]
        for sock in socks[::2]:
            sock.sendall(b"GET /status HTTP/1.1\r\nHost: loc")
        assert admin.ask("/healthz")[0] == 200
        assert proxy.descriptors() <= idle + PLACES + 2
        assert has_ended(socks[0])  # the first to come is the first to go
        trusted.sendall(asks)
        assert read_until(trusted, answer)  # but none who may know everything
    wait_for(lambda: proxy.descriptors() <= idle + 2, words="all places are free again")


def test_a_source_far_beyond_its_rate_is_refused_at_once(tmp_path: Path) -> None:
    """It gets no place, and displaces nobody; others are served. All clients of a unix socket are one source."""
    flags = ["--bind", "127.0.0.1:0", "--to", f"127.0.0.1:{free_port()}", *Keys(tmp_path).connect(), "--admin", "127.0.0.1:0"]
    with Proxy(["connect", *flags], log=tmp_path / "log") as proxy, contextlib.ExitStack() as stack:
        admin = Admin(proxy.ready())
        socks = [stack.enter_context(socket.create_connection(admin.address, 10, ("127.0.0.7", 0))) for _ in range(400)]
        assert admin.ask("/healthz") == (200, "ok\n")  # all before it have been accepted
        assert select.select(socks[-PLACES // 2 :], [], [], 0)[0]
        stack.close()
        wait_for(lambda: proxy.descriptors() < PLACES, words="all places are free again")


def test_whoever_does_not_read_does_not_hold_up_the_end(proxy: Proxy) -> None:
    """The last test with this proxy: it ends it."""
    admin = Admin(proxy)
    socks = [connect(admin.address) for _ in range(3)]
    for sock in socks:
        sock.settimeout(0.3)
        with contextlib.suppress(TimeoutError, ConnectionResetError):
            sock.sendall(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n" * 3_000)
    assert admin.ask("/quit", "POST")[0] == 202
    assert proxy.wait(8) == 0
    for sock in socks:
        sock.close()
