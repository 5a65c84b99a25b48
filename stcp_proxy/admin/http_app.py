"""The addresses of the admin server, as one Starlette application."""

from __future__ import annotations

from typing import Any, Final, Literal, Protocol, cast

import structlog
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from stcp_proxy.admin import dashboard
from stcp_proxy.admin.access import TRUSTED
from stcp_proxy.admin.client import REFUSED
from stcp_proxy.admin.codec import encode
from stcp_proxy.admin.history import POINTS, Past
from stcp_proxy.admin.metrics import expose
from stcp_proxy.admin.readiness import words
from stcp_proxy.admin.report import Report
from stcp_proxy.admin.snapshot_request import MAX_CONNECTIONS, SnapshotRequest
from stcp_proxy.admin.status_schema import Status
from stcp_proxy.errors import StcpError

_log = structlog.get_logger("stcp_proxy.admin")

WHO: Final = "stcp.who"
"""The key in a request's scope that tells who has connected: a process and its user, or an address."""


class Backend(Protocol):
    """The source of all answers."""

    async def report(self, wanted: SnapshotRequest) -> Report:
        """The merged report of all worker processes."""

    async def status(self, wanted: SnapshotRequest) -> Status:
        """The content of `/status`."""

    def past(self, tunnel: str, points: int) -> Past:
        """The last points of a tunnel; without a name, those of the first tunnels. The sum of all tunnels comes first."""

    async def reload(self, *, check: bool, force: bool) -> dict[str, Any]:
        """Read the configuration again. Raises StcpError when the reload is refused."""

    async def failures(self) -> dict[str, StcpError]:
        """The tunnels with `ready: target` whose far target does not answer."""

    def quit(self) -> None:
        """Stop all worker processes in order."""


class _BadQuery(Exception):
    """A query parameter with an invalid value."""


def build(backend: Backend) -> Starlette:
    """Build the application.

    Args:
        backend: the source of all answers.
    """

    async def healthz(_: Request) -> Response:
        return PlainTextResponse("ok\n")

    async def readyz(request: Request) -> Response:
        found = await backend.report(SnapshotRequest(count=0, probe=True))
        failures = await backend.failures() if found.process.state == "ready" else {}
        why = words(found, failures, in_full=request.scope[TRUSTED])
        if not why:
            return PlainTextResponse("ready\n")
        return PlainTextResponse("".join(f"not ready: {line}\n" for line in why), status_code=503)

    async def status(request: Request) -> Response:
        try:
            wanted = _wanted(request)
        except _BadQuery as exc:
            return PlainTextResponse(f"{exc}\n", status_code=400)
        return Response(encode(await backend.status(wanted)), media_type="application/json")

    async def history(request: Request) -> Response:
        points = request.query_params.get("points", str(POINTS))
        if not _is_number(points, POINTS):
            return PlainTextResponse(f"points is a number from 0 to {POINTS}\n", status_code=400)
        return Response(encode(backend.past(request.query_params.get("tunnel", ""), int(points))), media_type="application/json")

    async def metrics(request: Request) -> Response:
        body, content_type = await expose(
            await backend.report(SnapshotRequest(count=0, metrics=True)), request.headers.get("accept", "")
        )
        return Response(body, headers={"content-type": content_type})

    async def reload(request: Request) -> Response:
        wanted = {name: request.query_params.get(name, "0") for name in ("check", "force")}
        for name, value in wanted.items():
            if value not in ("0", "1"):
                return PlainTextResponse(f"{name} is 0 or 1\n", status_code=400)
        asked = {name: value == "1" for name, value in wanted.items()}
        _log.info("reload requested", who=request.scope.get(WHO, ""), **asked)
        try:
            return JSONResponse(await backend.reload(**asked))
        except StcpError as exc:
            return PlainTextResponse(f"{exc}\n", status_code=REFUSED)

    async def quit_(request: Request) -> Response:
        _log.info("quit requested", who=request.scope.get(WHO, ""))
        backend.quit()
        return PlainTextResponse("stopping\n", status_code=202)

    app = Starlette(
        routes=[
            *dashboard.routes(),
            Route("/healthz", healthz),
            Route("/readyz", readyz),
            Route("/status", status),
            Route("/history", history),
            Route("/metrics", metrics),
            Route("/reload", reload, methods=["POST"]),
            Route("/quit", quit_, methods=["POST"]),
        ]
    )
    app.router.redirect_slashes = False  # its Location header would repeat the client's Host header
    return app


def _wanted(request: Request) -> SnapshotRequest:
    """The request that ?connections=N&order=newest|busiest&tunnel=NAME describes."""
    query = request.query_params
    count, order = query.get("connections", "100"), query.get("order", "newest")
    if not _is_number(count, MAX_CONNECTIONS):
        raise _BadQuery(f"connections is a number from 0 to {MAX_CONNECTIONS}")
    if order not in ("newest", "busiest"):
        raise _BadQuery("order is newest or busiest")
    return SnapshotRequest(int(count), cast("Literal['newest', 'busiest']", order), query.get("tunnel", ""))


def _is_number(text: str, most: int) -> bool:
    """Whether a text is a decimal number from 0 to `most`, which is below 10,000."""
    return text.isascii() and text.isdigit() and len(text) <= 4 and int(text) <= most
