"""The collector of spans: TLS, headers, failures, and how little they matter to connections."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import threading
import time
from pathlib import Path

import pytest
from harness.certificates import TestAuthority
from harness.collector import Collector, collecting
from harness.files import FileProxy
from harness.process import wait_for
from harness.sockets import Target, free_port
from harness.span_pair import Pair, exporters_of

from stcp_proxy.keys import write_secret_file

ADMIN = {"admin": "127.0.0.1:0"}
TOKEN = "Bearer k7Yq2mZ5vT9xWb4nRf6cHd8j"


def exporter_of(side: FileProxy) -> int:
    """The process id of the exporter of a proxy."""
    return wait_for(lambda: exporters_of(side), words="an exporter")[0]


# -- TLS and headers


def test_tls_and_headers(tmp_path: Path, echo: Target) -> None:
    authority = TestAuthority()
    authority.issue("dns:localhost").write(tmp_path, "collector")
    authority.bundle(tmp_path / "ca.pem")
    write_secret_file(tmp_path / "headers", f"Authorization: {TOKEN}\nx-team: db\n")
    with collecting((tmp_path / "collector.crt", tmp_path / "collector-tls.key")) as collector:
        pair = Pair(tmp_path, echo.to, {"endpoint": collector.url, "ca": "ca.pem", "headers_file": "headers"})
        pair.talk()
        collector.wait(2)
        commands = Path(f"/proc/{exporter_of(pair.listen)}/cmdline").read_bytes()
        environment = Path(f"/proc/{exporter_of(pair.listen)}/environ").read_bytes()
        pair.stop()
        assert {(head["authorization"], head["x-team"]) for head in collector.heads} == {(TOKEN, "db")}
    for text in (commands, environment, pair.listen.text().encode(), pair.connect.text().encode()):
        assert TOKEN.encode() not in text


def test_an_unknown_authority_is_refused(tmp_path: Path, echo: Target) -> None:
    authority = TestAuthority()
    authority.issue("dns:localhost").write(tmp_path, "collector")
    TestAuthority(name="another").bundle(tmp_path / "ca.pem")
    with collecting((tmp_path / "collector.crt", tmp_path / "collector-tls.key")) as collector:
        pair = Pair(tmp_path, echo.to, {"endpoint": collector.url, "ca": "ca.pem"})
        pair.talk()
        line = pair.listen.wait_log("spans not accepted")[0]
        pair.stop()
        assert "certificate is refused" in line["why"]
        assert "'ca'" in line["remedy"]
        assert collector.heads == []


def test_a_name_that_is_not_in_the_certificate_is_refused(tmp_path: Path, echo: Target) -> None:
    authority = TestAuthority()
    authority.issue("dns:other.example").write(tmp_path, "collector")
    authority.bundle(tmp_path / "ca.pem")
    with collecting((tmp_path / "collector.crt", tmp_path / "collector-tls.key")) as collector:
        pair = Pair(tmp_path, echo.to, {"endpoint": collector.url, "ca": "ca.pem"})
        pair.talk()
        assert "certificate is refused" in pair.listen.wait_log("spans not accepted")[0]["why"]
        pair.stop()
        assert collector.heads == []


# -- failures


def test_garbage_loses_spans_and_nothing_else(tmp_path: Path, collector: Collector, echo: Target) -> None:
    collector.kind, collector.body = "text/html", b"<html>log in first</html>"
    pair = Pair(tmp_path, echo.to, {"endpoint": collector.url}, **ADMIN)
    pair.talk()
    assert pair.results(pair.listen, failed=1)["exported"] == 0
    assert "OTLP" in pair.listen.wait_log("spans not accepted")[0]["why"]
    collector.body = None
    collector.kind = "application/x-protobuf"
    pair.talk()
    pair.results(pair.listen, exported=1, failed=1)
    pair.listen.wait_log("spans accepted again", lost=1)
    pair.stop()


def test_rejected_spans_are_counted(tmp_path: Path, collector: Collector, echo: Target) -> None:
    collector.rejects = 1
    pair = Pair(tmp_path, echo.to, {"endpoint": collector.url}, **ADMIN)
    pair.talk()
    pair.results(pair.listen, exported=0, failed=1)
    assert "not today" in pair.listen.wait_log("spans not accepted")[0]["why"]
    pair.stop()


@pytest.mark.parametrize(("status", "words"), [(401, "headers_file"), (404, "endpoint"), (307, "endpoint")])
def test_a_refusal_names_its_remedy(tmp_path: Path, collector: Collector, echo: Target, status: int, words: str) -> None:
    collector.status, collector.headers = status, {"Location": f"{collector.url}/elsewhere"}
    pair = Pair(tmp_path, echo.to, {"endpoint": collector.url}, **ADMIN)
    pair.talk()
    pair.results(pair.listen, failed=1)
    line = pair.listen.wait_log("spans not accepted")[0]
    pair.stop()
    assert str(status) in line["why"]
    assert words in line["remedy"]
    assert set(collector.paths) == {"/v1/traces"}  # no redirect is followed


def test_a_collector_that_comes_late_gets_the_spans(tmp_path: Path, echo: Target) -> None:
    port = free_port()
    pair = Pair(tmp_path, echo.to, {"endpoint": f"http://127.0.0.1:{port}"}, **ADMIN)
    pair.talk()
    assert "cannot be reached" in pair.listen.wait_log("spans not accepted")[0]["why"]
    with collecting(port=port) as collector:
        collector.wait(2)
        pair.results(pair.listen, exported=1, failed=0)
    pair.stop()


def test_a_busy_collector_is_asked_again(tmp_path: Path, collector: Collector, echo: Target) -> None:
    collector.status, collector.headers = 503, {"Retry-After": "1"}
    pair = Pair(tmp_path, echo.to, {"endpoint": collector.url})
    pair.talk()
    pair.listen.wait_log("spans not accepted")
    collector.status = 200
    collector.wait(2)
    pair.stop()


@pytest.mark.parametrize("silence", ["no answer", "no end of the answer"])
def test_a_silent_collector_delays_neither_connections_nor_the_stop(tmp_path: Path, echo: Target, silence: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        if silence == "no end of the answer":
            drip(listener)
        endpoint = "http://{}:{}".format(*listener.getsockname())
        pair = Pair(tmp_path, echo.to, {"endpoint": endpoint, "timeout": "30s"})
        for _ in range(3):
            began = time.monotonic()
            pair.talk()
            assert time.monotonic() - began < 2
            time.sleep(1)
        began = time.monotonic()
        pair.listen.signal(signal.SIGTERM)
        assert pair.listen.wait() == 0
        assert time.monotonic() - began < 15  # the exporter is ended after ten seconds
        pair.connect.stop()


def drip(listener: socket.socket) -> None:
    """Answer every request with a header that never ends, a byte every 0.2 s."""

    def serve(sock: socket.socket) -> None:
        with sock, contextlib.suppress(OSError):
            sock.sendall(b"HTTP/1.1 200 OK\r\nx: ")
            while True:
                sock.sendall(b"x")
                time.sleep(0.2)

    def accept() -> None:
        while True:
            try:
                sock, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=serve, args=(sock,), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()


def test_a_killed_exporter_is_replaced(tmp_path: Path, collector: Collector, echo: Target) -> None:
    pair = Pair(tmp_path, echo.to, {"endpoint": collector.url}, **ADMIN)
    first = exporter_of(pair.listen)
    os.kill(first, signal.SIGKILL)
    pair.listen.wait_log("the exporter of spans has ended", status=-9)
    pair.talk()
    collector.wait(2)
    assert exporter_of(pair.listen) != first
    pair.results(pair.listen, exported=1, failed=0, dropped=0)
    pair.stop()


def test_signals_that_end_programs_do_not_end_the_exporter(tmp_path: Path, collector: Collector, echo: Target) -> None:
    pair = Pair(tmp_path, echo.to, {"endpoint": collector.url})
    pair.talk()
    collector.wait(2)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        os.kill(exporter_of(pair.listen), number)
    pair.talk()
    pair.stop()
    assert len(collector.spans) == 4
    assert pair.listen.log("the exporter of spans has ended") == []


def test_records_that_find_no_room_are_counted(tmp_path: Path, collector: Collector, echo: Target) -> None:
    pair = Pair(tmp_path, echo.to, {"endpoint": collector.url}, **ADMIN)
    pair.talk()
    collector.wait(2)
    os.kill(exporter_of(pair.connect), signal.SIGSTOP)
    name = pair.connect.address_of("out")
    while pair.results(pair.connect)["dropped"] < 100:
        for _ in range(20):
            burst = [socket.create_connection(name) for _ in range(10)]
            for sock in burst:
                sock.close()
    pair.talk()
    os.kill(exporter_of(pair.connect), signal.SIGCONT)
    pair.results(pair.connect, failed=0)
    wait_for(lambda: pair.results(pair.connect)["exported"] > 1000, words="the records that found room")
    pair.stop()
