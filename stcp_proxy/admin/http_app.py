"""The addresses of the admin server, as one Starlette application."""

from __future__ import annotations

from typing import Any, Literal, Protocol, cast

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from stcp_proxy.admin import dashboard
from stcp_proxy.admin.access import TRUSTED
from stcp_proxy.admin.client import REFUSED
from stcp_proxy.admin.codec import encode
from stcp_proxy.admin.metrics import expose
from stcp_proxy.admin.readiness import words
from stcp_proxy.admin.report import Report, status_of
from stcp_proxy.admin.snapshot_request import MAX_CONNECTIONS, Wanted
from stcp_proxy.errors import StcpError


class Desk(Protocol):
    """Where the pages ask."""

    async def report(self, wanted: Wanted) -> Report:
        """What all workers tell."""

    async def reload(self, *, check: bool) -> dict[str, Any]:
        """Read the configuration again; raises StcpError where it is refused."""

    async def failures(self) -> dict[str, StcpError]:
        """The tunnels whose far target does not answer, of those that are ready only while it does."""

    def quit(self) -> None:
        """Stop all workers in order."""


class _BadQuery(Exception):
    """A parameter of the address that cannot be used."""


def build(desk: Desk) -> Starlette:
    """The application.

    Args:
        desk: where it asks.
    """

    async def healthz(_: Request) -> Response:
        return PlainTextResponse("ok\n")

    async def readyz(request: Request) -> Response:
        found = await desk.report(Wanted(count=0))
        failures = await desk.failures() if found.process.state == "ready" else {}
        why = words(found, failures, in_full=request.scope[TRUSTED])
        if not why:
            return PlainTextResponse("ready\n")
        return PlainTextResponse("".join(f"not ready: {line}\n" for line in why), status_code=503)

    async def status(request: Request) -> Response:
        try:
            wanted = _wanted(request)
        except _BadQuery as exc:
            return PlainTextResponse(f"{exc}\n", status_code=400)
        return Response(encode(status_of(await desk.report(wanted))), media_type="application/json")

    async def metrics(request: Request) -> Response:
        body, content_type = await expose(await desk.report(Wanted(count=0, metrics=True)), request.headers.get("accept", ""))
        return Response(body, headers={"content-type": content_type})

    async def reload(request: Request) -> Response:
        check = request.query_params.get("check", "0")
        if check not in ("0", "1"):
            return PlainTextResponse("check is 0 or 1\n", status_code=400)
        try:
            return JSONResponse(await desk.reload(check=check == "1"))
        except StcpError as exc:
            return PlainTextResponse(f"{exc}\n", status_code=REFUSED)

    async def quit_(_: Request) -> Response:
        desk.quit()
        return PlainTextResponse("stopping\n", status_code=202)

    app = Starlette(
        routes=[
            *dashboard.routes(),
            Route("/healthz", healthz),
            Route("/readyz", readyz),
            Route("/status", status),
            Route("/metrics", metrics),
            Route("/reload", reload, methods=["POST"]),
            Route("/quit", quit_, methods=["POST"]),
        ]
    )
    app.router.redirect_slashes = False  # it would say in Location whatever the client has said in Host
    return app


def _wanted(request: Request) -> Wanted:
    """What ?connections=N&order=newest|busiest&tunnel=NAME asks for."""
    query = request.query_params
    count, order = query.get("connections", "100"), query.get("order", "newest")
    if not (count.isascii() and count.isdigit() and len(count) <= 4 and int(count) <= MAX_CONNECTIONS):
        raise _BadQuery(f"connections is a number from 0 to {MAX_CONNECTIONS}")
    if order not in ("newest", "busiest"):
        raise _BadQuery("order is newest or busiest")
    return Wanted(int(count), cast("Literal['newest', 'busiest']", order), query.get("tunnel", ""))
