"""Sockets of the protocol with real programs: nc, Redis, nginx, iperf3 and Python's HTTP server, unchanged but for the number.

Run by `inside` as the suite `sockets`, not collected by name.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import json
import os
import socket
import sys
import time
from collections.abc import Iterator

import pytest

from stcp_proxy.agent.netlink_abi import CHANNEL_ID, IDENTITY, PEER, PROTOCOL, SERVICE
from stcp_proxy.relay.kernel_abi import SOL_STCP

from .two_hosts import FAR, FAR6, PRODUCT, TwoHosts, eventually_listens, two_hosts

pytestmark = pytest.mark.timeout(900)
_libc = ctypes.CDLL(None, use_errno=True)
QUICK = ("-I", "-S")
"""Options of a Python that needs no site packages: an emulated processor takes long to look for them."""


@pytest.fixture(scope="module")
def hosts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TwoHosts]:
    with two_hosts(tmp_path_factory.mktemp("hosts")) as found, found.agents():
        yield found


def _setns(namespace: int) -> None:
    if _libc.setns(namespace, 0):
        raise OSError(ctypes.get_errno(), "setns")


@contextlib.contextmanager
def inside(side: str) -> Iterator[None]:
    """Be in a namespace: sockets that this process makes then belong to it."""
    before = os.open("/proc/self/ns/net", os.O_RDONLY)
    there = os.open(f"/run/netns/{side}", os.O_RDONLY)
    try:
        _setns(there)
        yield
    finally:
        _setns(before)
        os.close(before)
        os.close(there)


def stcp(side: str, family: int = socket.AF_INET) -> socket.socket:
    with inside(side):
        sock = socket.socket(family, socket.SOCK_STREAM, PROTOCOL)
    sock.settimeout(60)
    return sock


@contextlib.contextmanager
def listening(hosts: TwoHosts, family: int = socket.AF_INET, host: str = FAR) -> Iterator[socket.socket]:
    with stcp("far", family) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, 0))
        listener.listen()
        yield listener


@pytest.mark.parametrize(("family", "host"), [(socket.AF_INET, FAR), (socket.AF_INET6, FAR6)], ids=["IPv4", "IPv6"])
def test_a_connection(hosts: TwoHosts, family: int, host: str) -> None:
    with listening(hosts, family, host) as listener, stcp("near", family) as near:
        near.connect(listener.getsockname())
        far, _ = listener.accept()
        with far:
            near.sendall(b"question" * 10_000)
            near.shutdown(socket.SHUT_WR)
            with far.makefile("rb") as read:
                assert read.read() == b"question" * 10_000
            far.sendall(b"answer")
            far.shutdown(socket.SHUT_WR)
            with near.makefile("rb") as read:
                assert read.read() == b"answer"
            assert near.getsockopt(SOL_STCP, PEER, 256).rstrip(b"\0").startswith(b"stcp-pub:")
            assert far.getsockopt(SOL_STCP, PEER, 256).rstrip(b"\0") == b"near"
            assert near.getsockopt(SOL_STCP, CHANNEL_ID, 32) == far.getsockopt(SOL_STCP, CHANNEL_ID, 32)
    for side in ("near", "far"):
        hosts.wait_log(f"agent-{side}", "socket authenticated", 30)


def refused(address: object, **options: bytes) -> int:
    """The errno of connect()."""
    with stcp("near") as near:
        for name, value in options.items():
            near.setsockopt(SOL_STCP, {"identity": IDENTITY, "service": SERVICE}[name], value)
        try:
            near.connect(address)  # type: ignore[arg-type]
        except OSError as exc:
            return exc.errno or 0
    return 0


def test_services(hosts: TwoHosts) -> None:
    with listening(hosts) as listener:
        assert refused(listener.getsockname(), service=b"orders") == 0
        assert refused(listener.getsockname(), service=b"other") == errno.EACCES


def test_no_identity(hosts: TwoHosts) -> None:
    with listening(hosts) as listener:
        assert refused(listener.getsockname(), identity=b"nobody") == errno.ENOKEY
    with inside("near"), socket.create_server(("127.0.0.1", 0)) as plain:
        assert refused(plain.getsockname()) == errno.ENOKEY  # an address at which no peer is expected


def test_nobody_listens(hosts: TwoHosts) -> None:
    assert refused((FAR, 9)) == errno.ECONNREFUSED


def test_a_plain_server_is_no_peer(hosts: TwoHosts) -> None:
    """There is no connection without authentication."""
    with inside("far"), socket.create_server((FAR, 0)) as plain, stcp("near") as near:
        near.setblocking(False)
        with pytest.raises(BlockingIOError):
            near.connect(plain.getsockname())
        far, _ = plain.accept()
        with far:
            assert far.recv(4096)[:4] == b"STCP"
            far.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n" + bytes(2000))
            near.setblocking(True)
            deadline = time.monotonic() + 60
            while not (number := near.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)):
                assert time.monotonic() < deadline
                time.sleep(0.1)
    assert number == errno.EKEYREJECTED


@pytest.fixture(scope="module")
def proxy(hosts: TwoHosts) -> Iterator[int]:
    """`stcp-proxy listen` in `far`, before an HTTP server over TCP. Yields its port."""
    files = hosts.folder / "files"
    files.mkdir()
    (files / "page").write_bytes(b"text of the page\n" * 1000)
    server = hosts.command("far", sys.executable, "-m", "http.server", "--bind", "127.0.0.1", "--directory", str(files), "8080")
    listen = ("listen", "--bind", f"{FAR}:7443", "--to", "127.0.0.1:8080", "--log-format", "json")
    identity = ("--key", str(hosts.folder / "far.key"), "--allow", f"near={hosts.public['near']}")
    with (
        hosts.running(server, "http"),
        hosts.running(hosts.command("far", *PRODUCT, *listen, *identity), "proxy"),
    ):
        eventually_listens(hosts, "far", 8080)
        eventually_listens(hosts, "far", 7443)
        yield 7443


def test_curl_to_a_proxy(hosts: TwoHosts, proxy: int) -> None:
    done = hosts.run(hosts.shimmed("near", "curl", "-sS", f"http://{FAR}:{proxy}/page"))
    assert done.stdout == "text of the page\n" * 1000, done.stderr
    hosts.wait_log("proxy", '"peer": "near"', 30)


def test_the_shim_alone_makes_the_difference(hosts: TwoHosts, proxy: int) -> None:
    done = hosts.run(hosts.command("near", "curl", "-sS", "-m", "20", f"http://{FAR}:{proxy}/page"))
    assert done.returncode != 0
    assert "page" not in done.stdout


def test_a_proxy_to_a_listening_socket(hosts: TwoHosts) -> None:
    """`stcp-proxy connect` in `near`, before nc in `far`."""
    connect = ("connect", "--bind", "127.0.0.1:7400", "--to", f"{FAR}:7401", "--log-format", "json")
    identity = ("--key", str(hosts.folder / "near.key"), "--peer", hosts.public["far"])
    with (
        hosts.running(hosts.shimmed("far", "nc", "-l", FAR, "7401"), "nc"),
        hosts.running(hosts.command("near", *PRODUCT, *connect, *identity), "connect"),
    ):
        eventually_listens(hosts, "far", 7401)
        eventually_listens(hosts, "near", 7400)
        done = hosts.run(hosts.command("near", "nc", "-N", "127.0.0.1", "7400"), input="from the proxy\n")
        assert done.returncode == 0, done.stderr
        hosts.wait_log("nc", "from the proxy", 30)


def test_nc(hosts: TwoHosts) -> None:
    with hosts.running(hosts.shimmed("far", "nc", "-l", FAR, "7402"), "nc2"):
        eventually_listens(hosts, "far", 7402)
        text = "a line\n" * 20_000
        done = hosts.run(hosts.shimmed("near", "nc", "-N", FAR, "7402"), input=text)
        assert done.returncode == 0, done.stderr
        hosts.wait_log("nc2", text, 60)


def test_python_http_server(hosts: TwoHosts) -> None:
    files = hosts.folder / "python"
    files.mkdir()
    (files / "page").write_bytes(b"x" * 500_000)
    server = (sys.executable, *QUICK, "-m", "http.server", "--bind", FAR, "--directory", str(files), "7403")
    with hosts.running(hosts.shimmed("far", *server), "python"):
        eventually_listens(hosts, "far", 7403)
        done = hosts.run(hosts.shimmed("near", "curl", "-sS", f"http://{FAR}:7403/page"))
        assert done.stdout == "x" * 500_000, done.stderr


def test_redis(hosts: TwoHosts) -> None:
    server = ("redis-server", "--bind", FAR, "--port", "7404", "--save", "", "--appendonly", "no", "--protected-mode", "no")
    with hosts.running(hosts.shimmed("far", *server, "--dir", str(hosts.folder)), "redis"):
        eventually_listens(hosts, "far", 7404)
        cli = hosts.shimmed("near", "redis-cli", "-h", FAR, "-p", "7404")
        value = "x" * 300_000
        assert hosts.run([*cli, "-x", "set", "big"], input=value).stdout == "OK\n"
        assert hosts.run([*cli, "get", "big"]).stdout == value + "\n"
        for options in (("-c", "20"), ("-c", "5", "-P", "16"), ("-c", "5", "-d", "20000")):
            command = ["redis-benchmark", "-h", FAR, "-p", "7404", "-n", "500", "-t", "set,get", "--csv", *options]
            done = hosts.run(hosts.shimmed("near", *command))
            assert done.returncode == 0, done.stderr
            print(done.stdout.strip().replace("\n", " "))


NGINX = """\
user root; daemon off; worker_processes 1; pid {folder}/nginx.pid; error_log {folder}/nginx-error.log;
events {{ worker_connections 64; }}
http {{
    access_log off; client_body_temp_path {folder}/n1; proxy_temp_path {folder}/n2; fastcgi_temp_path {folder}/n3;
    uwsgi_temp_path {folder}/n4; scgi_temp_path {folder}/n5;
    server {{ listen {host}:7405; root {folder}/www; }}
}}
"""


def test_nginx(hosts: TwoHosts) -> None:
    (hosts.folder / "www").mkdir()
    (hosts.folder / "www" / "page").write_bytes(b"nginx" * 100_000)
    config = hosts.folder / "nginx.conf"
    config.write_text(NGINX.format(folder=hosts.folder, host=FAR))
    hosts.folder.chmod(0o755)
    with hosts.running(hosts.shimmed("far", "nginx", "-c", str(config), "-e", "stderr"), "nginx"):
        eventually_listens(hosts, "far", 7405)
        for _ in range(3):
            command = ("curl", "-sS", f"http://{FAR}:7405/page", f"http://{FAR}:7405/page")
            done = hosts.run(hosts.shimmed("near", *command))
            assert done.stdout == "nginx" * 200_000, done.stderr


@pytest.mark.parametrize("options", [(), ("-R",), ("-P", "4")], ids=" ".join)
def test_iperf3(hosts: TwoHosts, options: tuple[str, ...]) -> None:
    with hosts.running(hosts.shimmed("far", "iperf3", "-s", "-B", FAR, "-p", "7406"), "iperf3"):
        eventually_listens(hosts, "far", 7406)
        done = hosts.run(hosts.shimmed("near", "iperf3", "-c", FAR, "-p", "7406", "-t", "3", "-J", *options))
        answer = json.loads(done.stdout)
        assert "error" not in answer, answer["error"]
        received = answer["end"]["sum_received"]["bytes"]
        print(f"iperf3 {' '.join(options)}: {received / 3e6:.1f} MB/s")
        assert received > 1_000_000


@pytest.mark.parametrize("mode", ["steady", "churn"])
def test_echo_and_stress(hosts: TwoHosts, mode: str) -> None:
    """The lab's own tools, which compare every byte."""
    echo = ("echo", "--host", FAR, "--port", "7407", "--socket", str(PROTOCOL))
    stress = ("stress", "--host", FAR, "--port", "7407", "--socket", str(PROTOCOL), "--clients", "10", "--duration", "5")
    options = ("--mode", mode, "--msg-size", "4096", "--messages-per-conn", "20", "--timeout", "30", "--json", "-")
    with hosts.running(hosts.command("far", *PRODUCT, *echo), f"echo-{mode}"):
        hosts.wait_log(f"echo-{mode}", "listening on")
        done = hosts.run(hosts.command("near", *PRODUCT, *stress, *options))
        found = json.loads(done.stdout)
        assert not any(found[name] for name in ("operation_errors", "connection_errors", "timeouts")), found
        assert found["requests"] > 20, found


def test_the_agent_stops_and_comes_back(hosts: TwoHosts) -> None:
    """Without an agent connect() fails at once; established connections go on. This is the last test of the file."""
    with listening(hosts) as listener, stcp("near") as near:
        near.connect(listener.getsockname())
        far, _ = listener.accept()
        with far:
            hosts.stop_agent("near")
            near.sendall(b"goes on")
            assert far.recv(99) == b"goes on"
            assert refused(listener.getsockname()) == errno.ESRCH
            with hosts.near_agent():
                assert refused(listener.getsockname()) == 0
