"""A small collector of OpenTelemetry for tests: OTLP/HTTP with protobuf, read by the messages that OpenTelemetry publishes."""

from __future__ import annotations

import contextlib
import http.server
import ssl
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTracePartialSuccess,
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from harness.process import wait_for

PROTOBUF = "application/x-protobuf"


class Collector:
    """A collector on a loopback address.

    Args:
        tls: a certificate and its key, as files; None for HTTP without TLS.
        port: where it listens; 0 for any.

    Attributes:
        status, kind, body: the answer to each request; `body` None is the right answer of the protocol.
        headers: further headers of the answer.
        delay: seconds before each answer.
        rejects: how many spans of each request it rejects.
        requests: all requests that it has accepted, in order.
        heads: the headers of every request.
        paths: the paths of all requests.
    """

    def __init__(self, tls: tuple[Path, Path] | None = None, *, port: int = 0) -> None:
        self.status, self.kind = 200, PROTOBUF
        self.body: bytes | None = None
        self.headers: dict[str, str] = {}
        self.delay = 0.0
        self.rejects = 0
        self.requests: list[ExportTraceServiceRequest] = []
        self.heads: list[dict[str, str]] = []
        self.paths: list[str] = []
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                outer.answer(self)

            def log_message(self, *_arguments: object) -> None:
                pass

        class Server(http.server.ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, *_arguments: object) -> None:
                pass  # a client that has gone

        self._server = Server(("127.0.0.1", port), Handler)
        self._scheme = "http"
        if tls is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(*tls)
            self._server.socket = context.wrap_socket(self._server.socket, server_side=True, do_handshake_on_connect=False)
            self._scheme = "https"
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()

    @property
    def port(self) -> int:
        return int(self._server.server_address[1])

    @property
    def url(self) -> str:
        return f"{self._scheme}://localhost:{self.port}"

    def answer(self, request: http.server.BaseHTTPRequestHandler) -> None:
        body = request.rfile.read(int(request.headers["Content-Length"]))
        self.paths.append(request.path)
        self.heads.append({name.lower(): value for name, value in request.headers.items()})
        time.sleep(self.delay)
        assert request.headers["Content-Type"] == PROTOBUF
        found = ExportTraceServiceRequest.FromString(body)
        right = ExportTraceServiceResponse()
        if self.rejects:
            right.partial_success.CopyFrom(ExportTracePartialSuccess(rejected_spans=self.rejects, error_message="not today"))
        answer = right.SerializeToString() if self.body is None else self.body
        if self.status == 200 and self.body is None:
            self.requests.append(found)  # before the answer: an exporter goes on when it has the headers of one without a body
        request.send_response(self.status)
        request.send_header("Content-Type", self.kind)
        request.send_header("Content-Length", str(len(answer)))
        for name, value in self.headers.items():
            request.send_header(name, value)
        request.end_headers()
        request.wfile.write(answer)

    @property
    def spans(self) -> list[Span]:
        """All spans that it has accepted."""
        return [
            span for request in self.requests for of in request.resource_spans for scope in of.scope_spans for span in scope.spans
        ]

    def wait(self, count: int) -> list[Span]:
        """Wait for so many spans."""
        return wait_for(lambda: self.spans if len(self.spans) >= count else None, words=f"{count} spans")

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@contextlib.contextmanager
def collecting(*arguments: Any, **more: Any) -> Iterator[Collector]:
    """A collector for a while."""
    collector = Collector(*arguments, **more)
    try:
        yield collector
    finally:
        collector.close()


def attributes(of: Any) -> dict[str, Any]:
    """The attributes of a span or resource."""
    return {each.key: getattr(each.value, each.value.WhichOneof("value")) for each in of.attributes}
