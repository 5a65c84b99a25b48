"""The meaning of a collector's answers."""

from __future__ import annotations

import signal
import socket
import threading
import time
from collections.abc import Iterator

import pytest
from harness.collector import PROTOBUF, Collector, collecting
from harness.sockets import free_port

from stcp_proxy.spans import collector as client
from stcp_proxy.spans.collector import Outcome
from stcp_proxy.spans.orders import Orders
from stcp_proxy.spans.span import request_of

BODY = request_of([], {"service.name": "x"})
GOOD = Outcome()


@pytest.fixture
def collector() -> Iterator[Collector]:
    with collecting() as found:
        yield found


def send(url: str, *, timeout: float = 20.0, **headers: str) -> Outcome:
    orders = Orders(f"{url}/v1/traces", {name.replace("_", "-"): value for name, value in headers.items()}, None, timeout, {})
    return client.Collector(orders).send(BODY, 3)


def test_accepted(collector: Collector) -> None:
    assert send(collector.url, x_team="db") == GOOD
    assert collector.paths == ["/v1/traces"]
    assert collector.heads[0]["x-team"] == "db"
    assert collector.heads[0]["content-type"] == PROTOBUF
    assert collector.requests[0].resource_spans[0].resource.attributes[0].key == "service.name"


@pytest.mark.parametrize(
    ("kind", "body", "refused"),
    [
        (PROTOBUF, b"", 0),
        ("text/plain", b"", 0),
        ("application/json", b"{}", 0),
        ("application/json", b'{"partialSuccess": {"rejectedSpans": "2", "errorMessage": "no"}}', 2),
        ("application/json", b'{"partialSuccess": {"rejectedSpans": 99}}', 3),
        ("application/json", b"[]", 3),
        ("application/json", b"{", 3),
        ("application/json", b"[" * 60000, 3),
        ("text/html", b"<html>", 3),
        (PROTOBUF, b"\xff\xff\xff", 3),
    ],
)
def test_bodies(collector: Collector, kind: str, body: bytes, refused: int) -> None:
    collector.kind, collector.body = kind, body
    found = send(collector.url)
    assert (found.refused, found.retry) == (refused, False)
    assert bool(found.why) is bool(found.remedy) is (refused > 0)


@pytest.mark.parametrize("status", [301, 302, 307, 400, 401, 404, 413, 500])
def test_statuses_that_stay(collector: Collector, status: int) -> None:
    collector.status, collector.headers = status, {"Location": f"{collector.url}/v1/traces"}
    found = send(collector.url)
    assert (found.refused, found.retry) == (3, False)
    assert str(status) in found.why
    assert found.remedy
    assert len(collector.paths) == 1


@pytest.mark.parametrize(("after", "wait"), [("", None), ("7", 7.0), ("9999999", 60.0), ("Mon, 1 Jan 2026", None), ("-1", None)])
def test_statuses_that_pass(collector: Collector, after: str, wait: float | None) -> None:
    collector.status, collector.headers = 503, {"Retry-After": after}
    found = send(collector.url)
    assert (found.refused, found.retry, found.wait) == (3, True, wait)


def test_nobody_listens() -> None:
    found = send(f"http://127.0.0.1:{free_port()}")
    assert (found.refused, found.retry) == (3, True)
    assert "refused" in found.why


@pytest.mark.parametrize(
    "answer", [b"", b"SSH-2.0-OpenSSH\r\n", b"HTTP/1.1 nonsense\r\n\r\n", b"HTTP/1.1 200 OK\r\n" + b"x: y\r\n" * 500]
)
def test_other_protocols(answer: bytes) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            sock, _ = listener.accept()
            with sock:
                sock.recv(1 << 16)
                sock.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        found = send(f"http://127.0.0.1:{listener.getsockname()[1]}")
        thread.join()
    assert (found.refused, found.retry) == (3, True)


def test_one_deadline_for_everything() -> None:
    """A byte now and then does not extend it, and the timer of the process is as before."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            sock, _ = listener.accept()
            with sock:
                try:
                    sock.sendall(b"HTTP/1.1 200 OK\r\n")
                    while True:
                        sock.sendall(b"x")
                        time.sleep(0.05)
                except OSError:
                    pass

        thread = threading.Thread(target=serve)
        thread.start()
        before = signal.getsignal(signal.SIGALRM)
        began = time.monotonic()
        found = send(f"http://127.0.0.1:{listener.getsockname()[1]}", timeout=0.5)
        assert time.monotonic() - began < 10
        assert signal.getsignal(signal.SIGALRM) is before
        thread.join()
    assert (found.refused, found.retry) == (3, True)
    assert "0.5 s" in found.why
