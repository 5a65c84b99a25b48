"""Simple probes, answered without the web server.

An orchestrator kills a proxy whose probe has no answer, and anybody who reaches the address can send probes. So a probe costs as
little as it can: a request for `/healthz` or `/readyz` that came in one piece and has no body is read here. It goes through the
same access check and the same routes. Every other request is Hypercorn's.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Final

from starlette.types import ASGIApp, Message

from stcp_proxy.admin.access import PROBE_PATHS

MAX_HEAD: Final = 4096
"""Bytes of a request that is read here."""
_LINE: Final = re.compile(rb"(GET|HEAD) (/[a-z]+) HTTP/1\.([01])")
_FIELD: Final = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([\t\x20-\x7e]*?)[ \t]*")
_NOT_SIMPLE: Final = frozenset({b"content-length", b"transfer-encoding", b"expect", b"upgrade", b"http2-settings"})
KEPT: Final = "stcp.kept"
"""The key in a scope that tells whether the connection goes on after the answer."""
Headers = list[tuple[bytes, bytes]]


def read_probe(data: bytes, client: Any) -> dict[str, Any] | None:
    """Read a simple probe.

    Args:
        data: the first bytes of a connection.
        client: the client's address, as `accept` returns it.

    Returns:
        The scope of an ASGI application; None for every other request, whole or not.
    """
    if len(data) > MAX_HEAD or data.find(b"\r\n\r\n") != len(data) - 4:
        return None
    first, *lines = data[:-4].split(b"\r\n")
    line, fields = _LINE.fullmatch(first), [_FIELD.fullmatch(line) for line in lines]
    if line is None or line[2].decode() not in PROBE_PATHS:
        return None
    headers: Headers = [(field[1].lower(), field[2]) for field in fields if field is not None]
    names = [name for name, _ in headers]
    new = line[3] == b"1"
    if (
        len(headers) < len(lines)
        or not _NOT_SIMPLE.isdisjoint(names)
        or names.count(b"host") > 1
        or (new and b"host" not in names)
    ):
        return None
    wishes = [value.lower() for name, value in headers if name == b"connection"]
    if wishes not in ([], [b"close"]):
        return None
    return {
        "type": "http",
        "http_version": f"1.{line[3].decode()}",
        "method": line[1].decode(),
        "scheme": "http",
        "path": line[2].decode(),
        "raw_path": line[2],
        "query_string": b"",
        "root_path": "",
        "headers": headers,
        "client": tuple(client[:2]) if isinstance(client, tuple) else None,
        "server": None,
        "extensions": {},
        KEPT: new and not wishes,
    }


async def answer_probe(scope: dict[str, Any], app: ASGIApp, more_headers: Sequence[tuple[bytes, bytes]]) -> bytes:
    """The answer of the application to a simple probe.

    Args:
        scope: the request, from `read_probe`.
        app: answers it.
        more_headers: further headers of the answer.
    """
    status, headers, body = 500, [], b""

    async def receive() -> Message:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Message) -> None:
        nonlocal status, headers, body
        if message["type"] == "http.response.start":
            status, headers = message["status"], list(message["headers"])
        else:
            body += message.get("body", b"")

    try:
        await app(scope, receive, send)
    except Exception:
        if not headers:  # else Starlette has answered with status 500 before it passed the failure on
            raise
    lines = [*headers, *more_headers, *([] if scope[KEPT] else [(b"connection", b"close")])]
    head = b"".join(b"%s: %s\r\n" % (name, value) for name, value in lines)
    return b"HTTP/1.1 %d \r\n%s\r\n%s" % (status, head, b"" if scope["method"] == "HEAD" else body)
