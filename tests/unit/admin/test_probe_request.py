"""Simple probes: which requests are read without the web server, and that their answers are those of the web server."""

from __future__ import annotations

from typing import Any

import pytest

from stcp_proxy.admin.probe_request import KEPT, MAX_HEAD, answer_probe, read_probe

CLIENT = ("192.0.2.1", 40000)


def request(first: str, *fields: str) -> bytes:
    return "\r\n".join([first, *fields, "", ""]).encode()


@pytest.mark.parametrize(
    ("data", "kept"),
    [
        (request("GET /healthz HTTP/1.1", "Host: 10.0.0.1:9901", "Connection: close", "User-Agent: kube-probe/1.30"), False),
        (request("GET /readyz HTTP/1.1", "Host: x", "Connection: Close"), False),
        (request("HEAD /healthz HTTP/1.1", "Host: x", "Accept: */*"), True),
        (request("GET /healthz HTTP/1.0"), False),
        (request("GET /readyz HTTP/1.0", "Host: x", "Connection: close"), False),
        (request("GET /readyz HTTP/1.1", "host:x", "authorization: Bearer t", "x: "), True),
    ],
)
def test_read(data: bytes, kept: bool) -> None:
    scope = read_probe(data, CLIENT)
    assert scope is not None
    assert (scope["path"], scope["client"], scope[KEPT]) == (data.split()[1].decode(), CLIENT, kept)
    assert all(name == name.lower() for name, _ in scope["headers"])
    for end in range(len(data)):
        assert read_probe(data[:end], CLIENT) is None, "a request in pieces is the web server's"
    assert read_probe(data + b"x", CLIENT) is None


@pytest.mark.parametrize(
    "data",
    [
        b"",
        request("GET /status HTTP/1.1", "Host: x"),
        request("GET /healthz/ HTTP/1.1", "Host: x"),
        request("GET /healthz?a HTTP/1.1", "Host: x"),
        request("POST /healthz HTTP/1.1", "Host: x"),
        request("GET /healthz HTTP/2.0", "Host: x"),
        request("GET  /healthz HTTP/1.1", "Host: x"),
        request("GET /healthz HTTP/1.1"),
        request("GET /healthz HTTP/1.1", "Host: x", "Host: y"),
        request("GET /healthz HTTP/1.1", "Host: x", " folded"),
        request("GET /healthz HTTP/1.1", "Host : x"),
        request("GET /healthz HTTP/1.1", "Host: x\0"),
        request("GET /healthz HTTP/1.1", "Host: x", "Content-Length: 3"),
        request("GET /healthz HTTP/1.1", "Host: x", "Transfer-Encoding: chunked"),
        request("GET /healthz HTTP/1.1", "Host: x", "Connection: Upgrade", "Upgrade: h2c"),
        request("GET /healthz HTTP/1.1", "Host: x", "Connection: close", "Connection: keep-alive"),
        request("GET /healthz HTTP/1.0", "Connection: keep-alive"),
        request("GET /healthz HTTP/1.1", "Host: x") * 2,
        request("GET /healthz HTTP/1.1", "Host: x", "X: " + "y" * MAX_HEAD),
        b"GET /healthz HTTP/1.1\nHost: x\n\n",
    ],
)
def test_left_to_the_web_server(data: bytes) -> None:
    assert read_probe(data, CLIENT) is None


async def test_a_failure_that_is_answered() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 500, "headers": [(b"content-length", b"0")]})
        await send({"type": "http.response.body", "body": b""})
        raise RuntimeError

    scope = read_probe(request("GET /readyz HTTP/1.1", "Host: x"), CLIENT)
    assert scope is not None
    assert await answer_probe(scope, app, []) == b"HTTP/1.1 500 \r\ncontent-length: 0\r\n\r\n"


async def test_a_failure_without_an_answer() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        raise RuntimeError

    scope = read_probe(request("GET /readyz HTTP/1.1", "Host: x"), CLIENT)
    assert scope is not None
    with pytest.raises(RuntimeError):
        await answer_probe(scope, app, [])


@pytest.mark.parametrize(("method", "body"), [("GET", b"ok\n"), ("HEAD", b"")])
async def test_answer(method: str, body: bytes) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        assert await receive() == {"type": "http.request", "body": b"", "more_body": False}
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"3")]})
        await send({"type": "http.response.body", "body": b"ok\n"})

    for fields, end in (((), b""), (("Connection: close",), b"connection: close\r\n")):
        scope = read_probe(request(f"{method} /healthz HTTP/1.1", "Host: x", *fields), CLIENT)
        assert scope is not None
        answer = await answer_probe(scope, app, [(b"date", b"today")])
        assert answer == b"HTTP/1.1 200 \r\ncontent-length: 3\r\ndate: today\r\n" + end + b"\r\n" + body
