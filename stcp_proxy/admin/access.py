"""Access control: the first check of every request.

Web browsers of this machine reach a loopback address too, and any page of the web can make them send requests. Three rules keep
such a page out:

- DNS rebinding: the page makes its own name resolve to 127.0.0.1, so the browser treats the proxy as that page's server. The Host
  header has the name, so without a token the proxy answers only to names of this machine.
- A request from another site: the browser hides the answer from the page. For a request that changes something, the Origin header
  must be the admin address.
- A frame around the dashboard: the dashboard's headers forbid it.

With a token, a page would have to guess it.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable
from typing import Final

import trio
from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from stcp_proxy.admin.rate_limit import RateLimit
from stcp_proxy.admin.source_limit import SourceLimit, source_of
from stcp_proxy.config import AdminPlan
from stcp_proxy.net.address import TcpAddress, UnixAddress

OPEN_PATHS: Final = frozenset({"/", "/healthz", "/readyz"})
PROBE_PATHS: Final = frozenset({"/healthz", "/readyz"})
"""Paths that accept any Host header, and HTTP/1.0 without one, as load balancers send it. A page that uses DNS rebinding learns
only a yes or a no. Each source has its own rate here, so a flood from one source delays no probe from other sources."""
OPEN_PREFIX: Final = "/assets/"
"""Prefix of the dashboard's fixed files, which need no token because they contain no data."""
TRUSTED: Final = "stcp.trusted"
"""The key in a request's scope that tells whether the request has full access."""
_HOST: Final = re.compile(r"(?:\[(?P<v6>[0-9A-Fa-f:.]+)\]|(?P<name>[0-9A-Za-z.-]+))(?::[0-9]{1,5})?")
_MAX_BODY: Final = 64 * 1024
_MAX_PIECES: Final = 64
_BODY_PATIENCE: Final = 5.0
_CHANGES_NOTHING: Final = frozenset({"GET", "HEAD", "OPTIONS"})
_HEADERS: Final = {
    "cache-control": "no-store",
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; base-uri 'none'; "
        "form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'"
    ),
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
}


class RequestDropped(Exception):
    """A request that gets no answer: close the connection."""


class AccessControl:
    """An ASGI application that checks each request before it passes it on.

    Args:
        app: gets the admitted requests.
        plan: the admin address and its token.
        rate_limit: decides when a request may be answered.

    Calling it raises `RequestDropped` for a request that gets no answer.
    """

    def __init__(self, app: ASGIApp, plan: AdminPlan, rate_limit: RateLimit | None = None) -> None:
        self._app = app
        self._rate_limit = rate_limit or RateLimit()
        self._probes = SourceLimit()
        self._token = plan.token
        self._any_name = plan.token is not None or isinstance(plan.address, UnixAddress)  # no browser reaches a unix socket
        self._names = {"localhost"}
        if isinstance(plan.address, TcpAddress) and plan.address.host:
            self._names.add(plan.address.host)

    def change_token(self, plan: AdminPlan) -> None:
        """Ask for the token of `plan` from now on; its address is the same."""
        self._token = plan.token
        self._any_name = plan.token is not None or isinstance(plan.address, UnixAddress)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        await _discard_body(receive)
        headers = Headers(scope=scope)
        own_name = self._any_name or self._is_own_name(headers.get("host", ""))
        scope[TRUSTED] = own_name and (self._token is None or self._has_token(headers.getlist("authorization")))
        if not (_is_probe(scope) and self._probes.allow(source_of(scope.get("client")))):
            await self._rate_limit.turn(trusted=scope[TRUSTED])
        refusal = self._refusal(scope)
        await (refusal or self._app)(scope, receive, _with_headers(send))

    def _refusal(self, scope: Scope) -> PlainTextResponse | None:
        headers = Headers(scope=scope)
        if _is_probe(scope):
            return None
        if not self._any_name and not self._is_own_name(headers.get("host", "")):
            return _refuse(421, "this address answers to localhost, 127.0.0.1 and [::1] alone; ask by one of these names")
        if scope["method"] not in _CHANGES_NOTHING and not _is_same_origin(headers):
            return _refuse(403, "a page of another site asked for this; only the address's own may")
        if not scope[TRUSTED] and not _is_open(scope["path"]):
            return _refuse(
                401,
                "the token of this address is missing or wrong; send it as 'Authorization: Bearer TOKEN'",
                {"www-authenticate": 'Bearer realm="stcp-proxy"'},
            )
        return None

    def _is_own_name(self, host: str) -> bool:
        name = _name_of(host)
        if name in self._names:
            return True
        try:
            return ipaddress.ip_address(name).is_loopback
        except ValueError:
            return False

    def _has_token(self, values: Iterable[str]) -> bool:
        schemes = [value.partition(" ") for value in values]
        return self._token is not None and any(
            scheme.lower() == "bearer" and self._token.matches(rest.strip()) for scheme, _, rest in schemes
        )


async def _discard_body(receive: Receive) -> None:
    """Read and drop a small body: no request needs one.

    Raises:
        RequestDropped: the body is long, slow or in many pieces.
    """
    size = 0
    with trio.move_on_after(_BODY_PATIENCE):
        for _ in range(_MAX_PIECES):
            message = await receive()
            size += len(message.get("body", b""))
            if not message.get("more_body", False):
                return
            if size > _MAX_BODY:
                break
    raise RequestDropped


def _is_open(path: str) -> bool:
    return path in OPEN_PATHS or path.startswith(OPEN_PREFIX)


def _is_probe(scope: Scope) -> bool:
    """Whether a request only asks whether the proxy works or is ready."""
    return scope["path"] in PROBE_PATHS and scope["method"] in _CHANGES_NOTHING


def _name_of(host: str) -> str:
    """The host of a Host header (RFC 9110, section 7.2), without its port; empty where it is malformed."""
    found = _HOST.fullmatch(host)
    return (found["v6"] or found["name"]).lower().removesuffix(".") if found is not None else ""


def _is_same_origin(headers: Headers) -> bool:
    """Whether a request may change something. Browsers always send an Origin; programs send none."""
    if headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
        return False
    origin = headers.get("origin")
    return origin is None or origin.partition("://")[2].lower() == headers.get("host", "").lower() != ""


def _refuse(status: int, words: str, headers: dict[str, str] | None = None) -> PlainTextResponse:
    return PlainTextResponse(words + "\n", status_code=status, headers=headers)


def _with_headers(send: Send) -> Send:
    async def sender(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            for name, value in _HEADERS.items():
                headers.setdefault(name, value)
        await send(message)

    return sender
