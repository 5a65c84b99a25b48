"""Requests to the admin address: bytes through the HTTP parser, the access check and the routes, with and without a token.

Promises: no request makes the server fail; an answer is HTTP/1.1 or there is none; without the token only open paths answer with
200, and nothing is reloaded or stopped.
"""

from __future__ import annotations

import contextlib
import re
import socket
from typing import Any, Final

import trio
from trio.testing import MockClock

from stcp_fuzz.choices import Choices
from stcp_proxy.admin import http_app
from stcp_proxy.admin.access import OPEN_PATHS, OPEN_PREFIX, AccessControl, RequestDropped
from stcp_proxy.admin.client_stream import ClientStream
from stcp_proxy.admin.server import _config, _serve_client
from stcp_proxy.config import AdminPlan
from stcp_proxy.config.token import Token
from stcp_proxy.errors import ConfigError
from stcp_proxy.net.address import TcpAddress

TOKEN: Final = "0123456789abcdef0123456789abcdef"
_ANSWER: Final = re.compile(rb"HTTP/1\.1 ([1-5][0-9]{2}) ")


class _Backend:
    """Answers as a proxy does that refuses all reloads, and notes what was asked."""

    def __init__(self) -> None:
        self.reached: list[str] = []

    async def report(self, wanted: Any) -> Any:
        self.reached.append("report")
        raise ConfigError("no report here")

    async def status(self, wanted: Any) -> Any:
        return await self.report(wanted)

    def past(self, tunnel: str, points: int) -> Any:
        assert 0 <= points <= 10_000
        self.reached.append("past")
        return []

    async def reload(self, *, check: bool, force: bool) -> dict[str, Any]:
        self.reached.append("reload")
        raise ConfigError("refused")

    async def failures(self) -> dict[str, Any]:
        return {}

    def quit(self) -> None:
        self.reached.append("quit")


class _NoWait:
    async def turn(self, *, trusted: bool) -> None:
        await trio.lowlevel.checkpoint()


class _Stream:
    """The client's bytes, in pieces, and what comes back."""

    def __init__(self, pieces: list[bytes]) -> None:
        self._pieces = pieces
        self.answer = b""

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        await trio.lowlevel.checkpoint()
        if not self._pieces:
            return b""
        piece = self._pieces.pop(0)
        if max_bytes is not None and len(piece) > max_bytes:
            self._pieces.insert(0, piece[max_bytes:])
            piece = piece[:max_bytes]
        return piece

    async def send_all(self, data: bytes) -> None:
        await trio.lowlevel.checkpoint()
        self.answer += data

    async def send_eof(self) -> None:
        await trio.lowlevel.checkpoint()

    async def aclose(self) -> None:
        await trio.lowlevel.checkpoint()


def one(data: bytes) -> None:
    """Run one input."""
    choices = Choices(data)
    with_token, knows_token = choices.flag(), choices.flag()
    cut = choices.flag()
    request = choices.rest().replace(b"TOKEN", TOKEN.encode() if knows_token else b"wrong")
    pieces = [request] if request else []
    if cut and len(request) > 2:
        half = len(request) // 2
        pieces = [request[:1], request[1:half], request[half:]]
    backend = _Backend()
    answer = trio.run(_serve, backend, pieces, with_token, clock=MockClock(autojump_threshold=0))
    assert not answer or _ANSWER.match(answer), answer[:80]
    if with_token and TOKEN.encode() not in request:
        assert not {"reload", "quit", "past"} & set(backend.reached)
        line = request.split(b"\r\n", 1)[0].split(b" ")
        if answer.startswith(b"HTTP/1.1 200") and len(line) > 1 and answer.count(b"HTTP/1.1") == 1:
            path = line[1].split(b"?")[0].decode("latin-1")
            assert path in OPEN_PATHS or path.startswith(OPEN_PREFIX) or "%" in path or "://" in path, path


async def _serve(backend: _Backend, pieces: list[bytes], with_token: bool) -> bytes:
    plan = AdminPlan(TcpAddress("127.0.0.1", 9000), Token(TOKEN) if with_token else None)
    stream = _Stream(pieces)
    access = AccessControl(http_app.build(backend), plan, _NoWait())  # type: ignore[arg-type]

    async def app(scope: Any, receive: Any, send: Any) -> None:
        try:
            await access(scope, receive, send)
        except RequestDropped:
            return

    ours, theirs = socket.socketpair()
    with theirs:
        client = ClientStream(ours, ("192.0.2.1", 1), "who")
        client._stream = stream  # type: ignore[assignment]
        with client.scope, contextlib.suppress(trio.BrokenResourceError):
            await _serve_client(client, app, _config())
        client.socket.close()
    return stream.answer
