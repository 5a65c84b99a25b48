"""The stress client against servers that behave, and against servers that do not."""

import json
import shutil
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from stcp_proxy.lab import display, loadgen, stress
from stcp_proxy.lab.echo import EchoServer
from stcp_proxy.lab.link import messages
from stcp_proxy.lab.stress import Mode, Options, Run
from stcp_proxy.lab.tally import Summary

pytest.importorskip("hdrh", reason="hdrhistogram is not installed")


def execute(port: int, **options: object) -> tuple[Summary, Run]:
    settings: dict[str, object] = {"port": port, "clients": 4, "duration": 0.3, "timeout": 5.0}
    run = Run(Options(**(settings | options)))  # type: ignore[arg-type]
    return run.execute(), run


@contextmanager
def misbehaving(serve: Callable[[socket.socket], None]) -> Iterator[int]:
    """A server that treats each of its connections with `serve`, in a thread of its own."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        open_sockets: list[socket.socket] = []

        def loop() -> None:
            while True:
                try:
                    sock, _ = listener.accept()
                except OSError:
                    return
                open_sockets.append(sock)
                threading.Thread(target=_guarded, args=(serve, sock), daemon=True).start()

        thread = threading.Thread(target=loop)
        thread.start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()
        for sock in open_sockets:
            sock.close()


def _guarded(serve: Callable[[socket.socket], None], sock: socket.socket) -> None:
    with suppress(OSError):
        serve(sock)


def test_messages_differ_and_carry_their_length() -> None:
    made = messages(256, raw=False)
    assert len(set(made)) == len(made) > 10
    assert all(message[:4] == (256).to_bytes(4, "big") and len(message) == 260 for message in made)
    assert all(len(message) == 10 for message in messages(10, raw=True))
    assert len(messages(32 << 20, raw=True)) == 2


@pytest.mark.parametrize(("size", "clients"), [(1, 1), (256, 50), (65536, 5), (3_000_000, 2)])
def test_steady(size: int, clients: int) -> None:
    with EchoServer(port=0) as server:
        summary, _ = execute(server.port, size=size, clients=clients)
    assert summary.clean
    assert summary.requests >= clients
    assert summary.connections == clients
    assert 0 < summary.p50_ms <= summary.p99_ms <= summary.p999_ms


def test_churn_opens_a_new_connection_after_so_many_messages() -> None:
    with EchoServer(port=0) as server:
        summary, _ = execute(server.port, mode=Mode.CHURN, messages=5)
    assert summary.clean
    assert summary.requests / 5 <= summary.connections <= summary.requests / 5 + 2 * 4


@pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler for the load generator")
def test_raw_messages_have_no_length() -> None:
    with loadgen.echo_server() as port:
        summary, run = execute(port, raw=True)
    assert summary.clean
    assert run.options.message_bytes == 256


def test_a_server_that_changes_a_byte_is_noticed() -> None:
    def corrupt(sock: socket.socket) -> None:
        while data := bytearray(sock.recv(65536)):
            data[-1] ^= 1
            sock.sendall(data)

    with misbehaving(corrupt) as port:
        summary, run = execute(port)
    assert summary.operation_errors > 0
    assert summary.requests == 0
    assert "differs" in run.tally.first_error


def test_a_server_that_answers_too_much_is_noticed() -> None:
    def chatty(sock: socket.socket) -> None:
        while data := sock.recv(65536):
            sock.sendall(data + b"x")

    with misbehaving(chatty) as port:
        summary, _ = execute(port)
    assert summary.operation_errors > 0


def test_a_server_that_hangs_up_is_noticed() -> None:
    def rude(sock: socket.socket) -> None:
        sock.recv(1)
        sock.close()

    with misbehaving(rude) as port:
        summary, run = execute(port)
    assert summary.operation_errors > 0
    assert run.tally.first_error


def test_a_server_that_says_nothing_times_out() -> None:
    with misbehaving(lambda sock: None) as port:
        summary, run = execute(port, timeout=0.3, duration=0.7)
    assert summary.timeouts >= 4
    assert "no answer" in run.tally.first_error


def test_nobody_there_is_a_connection_error() -> None:
    with socket.create_server(("127.0.0.1", 0)) as unused:
        port = unused.getsockname()[1]
    summary, run = execute(port)
    assert summary.connection_errors > 0
    assert "refused" in run.tally.first_error


def test_the_exit_status_and_the_json_say_what_happened(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    written = tmp_path / "result.json"
    with EchoServer(port=0) as server:
        run = Run(Options(port=server.port, clients=2, duration=0.5))
        assert display.stress(run, report_every=0.2, json_file=written) == 0
        port = server.port
    result = json.loads(written.read_text())
    assert result["requests"] > 0
    assert result["timeouts"] == 0
    assert "requests/s" in capsys.readouterr().out
    assert display.stress(Run(Options(port=port, clients=1, duration=0.1)), report_every=0, json_file=None) == 1
    assert "first error" in capsys.readouterr().out


def test_json_on_standard_output_is_alone_there(capsys: pytest.CaptureFixture[str]) -> None:
    with EchoServer(port=0) as server:
        display.stress(Run(Options(port=server.port, clients=1, duration=0.1)), report_every=0, json_file=Path("-"))
    assert json.loads(capsys.readouterr().out)["requests"] > 0


def test_a_host_that_does_not_resolve_is_an_error() -> None:
    with pytest.raises(loadgen.LabError, match="no address"):
        Run(Options(host="nothing.invalid", duration=0.1)).execute()


def test_ticks_come_while_it_runs() -> None:
    seen: list[float] = []
    with EchoServer(port=0) as server:
        Run(Options(port=server.port, clients=1, duration=3 * stress.TICK)).execute(seen.append)
    assert len(seen) >= 2


def test_sockets_of_a_protocol() -> None:
    """TCP by its number. The kernel has no sockets of protocol 254, unless somebody made them."""
    with EchoServer(port=0, protocol=socket.IPPROTO_TCP) as server:
        summary, run = execute(server.port, protocol=socket.IPPROTO_TCP)
    assert summary.clean
    assert summary.requests > 0
    assert run.protocol == socket.IPPROTO_TCP
    for refused in (lambda: EchoServer(port=0, protocol=254), lambda: execute(1, protocol=254)):
        with pytest.raises(loadgen.LabError, match=r"no sockets of protocol 254: .*; load stcp\.ko"):
            refused()
