"""The dashboard: fixed files without data, which need no token. The page fetches its figures from `/status`, with the token where
one is configured.

Files are looked up by their names in the package. No part of a request becomes a path.
"""

from __future__ import annotations

import functools
import hashlib
from dataclasses import dataclass
from importlib import resources
from importlib.resources.abc import Traversable
from typing import Final

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

_INDEX: Final = "index.html"
_TYPES: Final = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
    ".LICENSE": "text/plain; charset=utf-8",
}


@dataclass(frozen=True, slots=True)
class Asset:
    """One file.

    Attributes:
        body: the whole content.
        media_type: the value of Content-Type.
        etag: the value of ETag, with its quotes; it changes with the content.
    """

    body: bytes
    media_type: str
    etag: str


@functools.cache
def assets() -> dict[str, Asset]:
    """The dashboard's files by their path below `/assets/`. They are read once, at the first request."""
    found: dict[str, Asset] = {}
    _collect(resources.files("stcp_proxy.admin") / "assets", "", found)
    return found


def _collect(folder: Traversable, prefix: str, found: dict[str, Asset]) -> None:
    for entry in folder.iterdir():
        if entry.is_dir():
            _collect(entry, f"{prefix}{entry.name}/", found)
            continue
        media_type = _TYPES.get(entry.name[entry.name.rfind(".") :])
        if media_type is not None:
            body = entry.read_bytes()
            found[prefix + entry.name] = Asset(body, media_type, f'"{hashlib.sha256(body).hexdigest()[:32]}"')


def routes() -> list[Route]:
    """The routes of the page and of its files."""

    async def page(request: Request) -> Response:
        return _serve(_INDEX, request)

    async def asset(request: Request) -> Response:
        return _serve(request.path_params["name"], request)

    return [Route("/", page), Route("/assets/{name:path}", asset)]


def _serve(name: str, request: Request) -> Response:
    found = assets().get(name)
    if found is None:
        return Response("the dashboard has no such file\n", status_code=404, media_type="text/plain")
    # The browser asks each time, and a 304 answers while the file is unchanged: a page never gets a script of a different
    # version.
    headers = {"etag": found.etag, "cache-control": "no-cache"}
    if found.etag in request.headers.get("if-none-match", ""):
        return Response(status_code=304, headers=headers)
    return Response(found.body, media_type=found.media_type, headers=headers)
