"""An intercepted connection that loses its rules or its tracking entry is reset: the wire shows none of its bytes."""

from __future__ import annotations

import contextlib
import signal
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from harness.hosts import Net
from harness.sockets import Target, end_of, read_exactly
from harness.software import require

from netns.sidecar import PORT, Sidecar

HOW = pytest.mark.parametrize("how", ["redirect", "tproxy"])
FAMILY = pytest.mark.parametrize("family", ["ip4", "ip6"])
WORD = b"a secret of the application: hunter2"
NOTRACK = "table inet foreign {\n\tchain c {\n\t\ttype filter hook output priority -300\n\t\ttcp dport 5000 notrack\n\t}\n}\n"


@pytest.fixture
def echo(net: Net) -> Iterator[Target]:
    """An unmodified server on every address of its host."""

    def bind() -> socket.socket:
        sock = socket.create_server(("::", PORT), family=socket.AF_INET6, dualstack_ipv6=True)
        sock.settimeout(None)
        return sock

    with Target(listener=net.server.do(bind)) as target:
        yield target


def opened(net: Net, address: str) -> socket.socket:
    """An intercepted connection that has carried a byte."""
    sock = net.client.connect(address, PORT)
    sock.sendall(b"x")
    assert read_exactly(sock, 1) == b"x"
    return sock


def flush_tracking(net: Net, sidecar: Sidecar) -> None:
    net.client.run("conntrack", "-F")


def remove(net: Net, sidecar: Sidecar) -> None:
    assert "the guard stays for" in sidecar.rules("--remove")


def lose_by_timeout(net: Net, sidecar: Sidecar) -> None:
    """The proxy is killed, and the entry of a pooled connection has timed out."""
    sidecar.connect.signal(signal.SIGKILL)
    sidecar.connect.wait()
    net.client.run("conntrack", "-F")


def become_invalid(net: Net, sidecar: Sidecar) -> None:
    net.client.run("sysctl", "-qw", "net.netfilter.nf_conntrack_tcp_loose=0")
    net.client.run("conntrack", "-F")


def exempt_from_tracking(net: Net, sidecar: Sidecar) -> None:
    net.client.run("nft", "-f", "-", stdin=NOTRACK)


def lose_the_hooks(net: Net, sidecar: Sidecar) -> None:
    """Somebody deletes the chain that intercepts, and nothing else."""
    for verb in ("flush", "delete"):
        net.client.run("nft", verb, "chain", "inet", "stcp_proxy", "output")


@pytest.fixture
def clean(net: Net) -> Iterator[None]:
    """Take back what the cases here do to the client's host."""
    require("conntrack")
    yield
    net.client.run("sysctl", "-qw", "net.netfilter.nf_conntrack_tcp_loose=1", check=False)
    net.client.run("nft", "flush", "ruleset")


CASES = [flush_tracking, remove, lose_by_timeout, become_invalid, exempt_from_tracking, lose_the_hooks]


@HOW
@pytest.mark.parametrize("lose", CASES, ids=lambda each: each.__name__)
@pytest.mark.usefixtures("clean")
def test_the_next_write_is_reset_and_never_sent(
    net: Net, echo: Target, tmp_path: Path, how: str, lose: Callable[[Net, Sidecar], None]
) -> None:
    addresses = (net.server.ip4, net.server.ip6)
    with Sidecar(net, tmp_path, how) as sidecar, contextlib.ExitStack() as stack:
        socks = [stack.enter_context(opened(net, address)) for address in addresses]
        with net.watch() as watch:
            lose(net, sidecar)
            for sock in socks:
                with contextlib.suppress(ConnectionResetError, BrokenPipeError):
                    sock.sendall(WORD)
                    end_of(sock)
                    sock.sendall(WORD)  # the end that a killed proxy leaves is not that of the server
                with contextlib.suppress(ConnectionResetError):
                    assert end_of(sock)[0] in ("reset", "eof")
        assert b"hunter2" not in watch.raw
        assert watch.dialled.isdisjoint((address, PORT) for address in addresses)


@HOW
@FAMILY
@pytest.mark.usefixtures("clean")
def test_a_new_connection_without_tracking_is_refused(net: Net, echo: Target, tmp_path: Path, how: str, family: str) -> None:
    with Sidecar(net, tmp_path, how) as sidecar, net.watch() as watch:
        exempt_from_tracking(net, sidecar)
        with pytest.raises(ConnectionRefusedError):
            net.client.connect(getattr(net.server, family), PORT)
        assert watch.segments == []


@HOW
@FAMILY
@pytest.mark.usefixtures("clean")
def test_a_connection_from_before_the_rules_is_reset(net: Net, echo: Target, tmp_path: Path, how: str, family: str) -> None:
    with opened(net, getattr(net.server, family)) as sock, Sidecar(net, tmp_path, how), net.watch() as watch:
        with contextlib.suppress(ConnectionResetError):
            sock.sendall(WORD)
        assert end_of(sock) == ("reset", b"")
    assert b"hunter2" not in watch.raw


@pytest.fixture
def served(net: Net) -> Iterator[Target]:
    """A server on the client's own host that speaks whenever it is told to."""

    def bind() -> socket.socket:
        sock = socket.create_server(("::", 6000), family=socket.AF_INET6, dualstack_ipv6=True)
        sock.settimeout(None)
        return sock

    with Target(keep, net.client.do(bind)) as target:
        yield target


ACCEPTED: list[socket.socket] = []


def keep(sock: socket.socket) -> None:
    """Serve until the client ends, and let the test speak in between."""
    sock.settimeout(60)  # the proxy starts while this connection is silent, which takes long on a busy machine
    ACCEPTED.append(sock)
    sock.sendall(b"hello")
    while sock.recv(100):
        pass


@HOW
@FAMILY
@pytest.mark.parametrize("when", ["before the rules", "with the rules"])
@pytest.mark.usefixtures("clean")
def test_servers_of_this_host_go_on(net: Net, served: Target, tmp_path: Path, how: str, family: str, when: str) -> None:
    """Also the server that speaks first after its connection has lost its entry, or never had one."""
    ACCEPTED.clear()
    address = getattr(net.client, family)
    with contextlib.ExitStack() as stack:
        if when == "before the rules":
            sock = stack.enter_context(net.server.connect(address, 6000))
            assert read_exactly(sock, 5) == b"hello"
        stack.enter_context(Sidecar(net, tmp_path, how))
        if when == "with the rules":
            sock = stack.enter_context(net.server.connect(address, 6000))
            assert read_exactly(sock, 5) == b"hello"
        for _ in range(2):
            ACCEPTED[0].sendall(b"again")
            assert read_exactly(sock, 5) == b"again"
            net.client.run("conntrack", "-F")


@HOW
@FAMILY
@pytest.mark.usefixtures("clean")
def test_a_closed_port_of_this_host_refuses_at_once(net: Net, tmp_path: Path, how: str, family: str) -> None:
    """The kernel's RST goes to a captured destination: the port that the other host has connected from."""
    address, source = getattr(net.client, family), getattr(net.server, family)
    with Sidecar(net, tmp_path, how), pytest.raises(ConnectionRefusedError):
        net.server.do(lambda: socket.create_connection((address, 6001), timeout=5, source_address=(source, PORT)))


@HOW
@pytest.mark.usefixtures("clean")
def test_the_proxy_goes_on_without_its_entry(net: Net, echo: Target, tmp_path: Path, how: str) -> None:
    with Sidecar(net, tmp_path, how), opened(net, net.server.ip4) as first:
        net.client.run("conntrack", "-F")
        with opened(net, net.server.ip4):
            pass
        with contextlib.suppress(ConnectionResetError):
            first.sendall(WORD)
        assert end_of(first) == ("reset", b"")


@HOW
@pytest.mark.usefixtures("clean")
def test_removal_lets_new_connections_leave_and_ends_when_the_last_has_gone(
    net: Net, echo: Target, tmp_path: Path, how: str
) -> None:
    with Sidecar(net, tmp_path, how) as sidecar:
        with opened(net, net.server.ip4):
            remove(net, sidecar)
            with net.watch() as watch, opened(net, net.server.ip4):
                pass
            assert watch.dialled == {(net.server.ip4, PORT)}
            assert "the guard stays" in sidecar.rules("--remove")
            sidecar.rules("--apply")
            with net.watch() as watch, opened(net, net.server.ip4):
                pass
            assert (net.server.ip4, PORT) not in watch.dialled
            sidecar.rules("--remove")
        sidecar.connect.stop()
        assert "the guard stays" not in sidecar.rules("--remove")
        assert net.client.run("nft", "list", "ruleset").stdout == ""


def dial_link_local(net: Net) -> socket.socket:
    """A connection from the client to the server's link-local address."""
    lines = net.server.run("ip", "-6", "address").stdout.splitlines()
    address = next(line.split()[1].partition("/")[0] for line in lines if "fe80" in line)
    return net.client.do(lambda: socket.create_connection((f"{address}%eth0", PORT), timeout=5))


@HOW
@pytest.mark.usefixtures("clean")
def test_a_link_local_destination_is_refused_at_once(net: Net, echo: Target, tmp_path: Path, how: str) -> None:
    with Sidecar(net, tmp_path, how), net.watch() as watch:
        with pytest.raises(ConnectionRefusedError):
            dial_link_local(net)
        assert watch.segments == []


@FAMILY
@pytest.mark.usefixtures("clean")
def test_tproxy_without_its_route_sends_nothing(net: Net, echo: Target, tmp_path: Path, family: str) -> None:
    """As where a network daemon deletes rules of routing that are not its own."""
    version = "-4" if family == "ip4" else "-6"
    with Sidecar(net, tmp_path, "tproxy"), opened(net, getattr(net.server, family)) as sock, net.watch() as watch:
        net.client.run("ip", version, "rule", "delete", "priority", "535")
        sock.sendall(WORD)
        with pytest.raises(TimeoutError):
            net.client.connect(getattr(net.server, family), PORT, timeout=1)
        assert watch.segments == []
