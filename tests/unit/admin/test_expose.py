"""Metrics as text, whatever the client says that it reads."""

from __future__ import annotations

import pytest

from stcp_proxy.admin.metrics import expose
from stcp_proxy.admin.report import Report
from stcp_proxy.admin.status_schema import Connections, Process, Status

PROCESS = Process(version="1", started=1.0, uptime=1.0, state="ready", workers=[], engines=[])
CONNECTIONS = Connections(total=0, order="newest", shown=[])
REPORT = Report(status=Status(time=2.0, process=PROCESS, tunnels=[], connections=CONNECTIONS, keys=[], refusals=[]), samples=[])


@pytest.mark.parametrize(
    ("accept", "ends"),
    [
        ("", b"\n"),
        ("application/openmetrics-text;version=1.0.0,text/plain;q=0.5", b"# EOF\n"),
        ("application/openmetrics-text;version=x", b"\n"),
        ("application/openmetrics-text;version=;;=;escaping=", b"\n"),
        ("text/plain;version=1.x;escaping=\xff", b"\n"),
        ("text/plain;version=" + "9" * 9000, b"\n"),
    ],
)
def test_every_accept_header_has_an_answer(accept: str, ends: bytes) -> None:
    body, content_type = expose(REPORT, accept)
    assert b"stcp_ready 1.0" in body
    assert body.endswith(ends)
    assert content_type.isprintable()
