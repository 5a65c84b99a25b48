"""The egress filter: `nft flush ruleset` without a watching process sends nothing in the clear."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from harness.hosts import Host, Net
from harness.process import wait_for
from harness.sockets import Target, read_exactly

from netns.sidecar import PORT, Sidecar
from netns.test_guard import ACCEPTED, HOW, WORD, echo, opened, served
from netns.test_watch import watching

__all__ = ["echo", "served"]


@pytest.fixture(autouse=True)
def clean(net: Net) -> Iterator[None]:
    """Remove what a test leaves on the client's host."""
    yield
    net.client.run("nft", "flush", "ruleset")
    net.client.run("tc", "qdisc", "delete", "dev", "eth0", "clsact", check=False)


def filters(net: Net, name: str = "eth0") -> str:
    return net.client.run("tc", "filter", "show", "dev", name, "egress").stdout


@HOW
def test_a_flush_leaks_nothing_and_what_was_open_goes_on_later(net: Net, echo: Target, tmp_path: Path, how: str) -> None:
    addresses = (net.server.ip4, net.server.ip6)
    with Sidecar(net, tmp_path, how) as sidecar, contextlib.ExitStack() as stack:
        socks = [stack.enter_context(opened(net, address)) for address in addresses]
        with net.watch() as watch:
            net.client.run("nft", "flush", "ruleset")
            for sock, address in zip(socks, addresses, strict=True):
                sock.sendall(WORD)
                with pytest.raises(TimeoutError):
                    net.client.connect(address, PORT, timeout=0.3)
        assert b"hunter2" not in watch.raw
        assert watch.dialled.isdisjoint((address, PORT) for address in addresses)
        done = net.client.product("intercept", str(sidecar.config), "--remove", check=False)
        assert "run --apply, then --remove" in done.stderr
        with net.watch() as watch:
            sidecar.rules("--apply")
            for sock in socks:
                assert read_exactly(sock, len(WORD)) == WORD
        assert b"hunter2" not in watch.raw


@HOW
def test_servers_of_this_host_go_on_after_a_flush(net: Net, served: Target, tmp_path: Path, how: str) -> None:
    ACCEPTED.clear()
    addresses = (net.client.ip4, net.client.ip6)
    with Sidecar(net, tmp_path, how), contextlib.ExitStack() as stack:
        socks = [stack.enter_context(net.server.connect(address, 6000)) for address in addresses]
        net.client.run("nft", "flush", "ruleset")
        socks += [stack.enter_context(net.server.connect(address, 6000)) for address in addresses]
        for sock in socks:
            assert read_exactly(sock, 5) == b"hello"
        for server in ACCEPTED:
            server.sendall(b"again")
        for sock in socks:
            assert read_exactly(sock, 5) == b"again"


def test_only_captured_destinations_are_held_back_after_a_flush(net: Net, echo: Target, tmp_path: Path) -> None:
    settings = f"    exclude: ['{net.server.ip4}:{PORT}']\n"
    with Sidecar(net, tmp_path, "tproxy", settings=settings):
        net.client.run("nft", "flush", "ruleset")
        with opened(net, net.server.ip4):
            pass
        with net.watch() as watch, pytest.raises(TimeoutError):
            net.client.connect(net.server.ip6, PORT, timeout=0.3)
        assert watch.segments == []


def test_the_filter_comes_and_goes_with_the_rules(net: Net, echo: Target, tmp_path: Path) -> None:
    with Sidecar(net, tmp_path, "redirect") as sidecar:
        assert " bpf " in filters(net)
        assert "egress filter on eth0" in sidecar.rules("--apply")
        assert "no egress filter, as requested" in sidecar.rules("--apply", "--no-egress-filter")
        assert filters(net) == ""
        sidecar.rules("--apply")
        net.client.run("nft", "delete", "table", "inet", "stcp_proxy")
        sidecar.connect.stop()
        assert "removed: the egress filter on eth0" in sidecar.rules("--remove")
    assert "clsact" not in net.client.run("tc", "qdisc", "show").stdout


def test_filters_of_other_programs_go_on(net: Net, echo: Target, tmp_path: Path) -> None:
    """A packet that the egress filter admits comes to the filters behind it."""
    with Sidecar(net, tmp_path, "redirect", settings=f"    exclude: ['{net.server.ip4}:{PORT}']\n"):
        with opened(net, net.server.ip4):
            pass
        drop_all = ("protocol", "all", "bpf", "bytecode", "1,6 0 0 2", "direct-action")
        net.client.run("tc", "filter", "add", "dev", "eth0", "egress", *drop_all)
        with pytest.raises(TimeoutError):
            net.client.connect(net.server.ip4, PORT, timeout=0.3)
        net.client.run("tc", "filter", "delete", "dev", "eth0", "egress", "pref", "49152")


def test_a_watching_process_attaches_the_filter_to_a_new_interface(net: Net, tmp_path: Path) -> None:
    with Sidecar(net, tmp_path, "redirect") as sidecar, watching(net, sidecar, tmp_path) as process:
        net.client.run("ip", "link", "add", "later", "type", "bridge")
        try:
            net.client.run("tc", "qdisc", "delete", "dev", "eth0", "clsact")
            wait_for(lambda: " bpf " in filters(net, "later") and " bpf " in filters(net), words="the filter is attached")
            wait_for(lambda: "the egress filter was missing on" in process.text(), words="it is reported")
        finally:
            net.client.run("ip", "link", "delete", "later")


@pytest.fixture(scope="module")
def behind(net: Net) -> Iterator[Host]:
    """A host whose traffic goes through the client's host."""
    host = Host("behind", "10.78.0.2")
    try:
        net.client.run("ip", "link", "add", "inner", "type", "veth", "peer", "name", "eth0", "netns", host.namespace)
        net.client.run("ip", "address", "add", "10.78.0.1/24", "dev", "inner")
        net.client.run("ip", "link", "set", "inner", "up")
        net.client.run("sysctl", "-qw", "net.ipv4.ip_forward=1")
        for command in ("address add 10.78.0.2/24 dev eth0", "link set eth0 up", "route add default via 10.78.0.1"):
            host.run("ip", *command.split())
        yield host
    finally:
        host.remove()


def test_forwarded_traffic_is_intercepted_and_held_back_after_a_flush(
    net: Net, behind: Host, echo: Target, tmp_path: Path
) -> None:
    with Sidecar(net, tmp_path, "tproxy", settings="    forwarded: [inner]\n") as sidecar:
        with net.watch() as watch, behind.connect(net.server.ip4, PORT) as sock:
            sock.sendall(WORD)
            assert read_exactly(sock, len(WORD)) == WORD
            net.client.run("nft", "flush", "ruleset")
            sock.sendall(WORD)
            with pytest.raises(TimeoutError):
                behind.connect(net.server.ip4, PORT, timeout=0.3)
        assert b"hunter2" not in watch.raw
        assert (net.server.ip4, PORT) not in watch.dialled
        sidecar.rules("--apply")


def test_traffic_that_the_rules_do_not_capture_is_routed_as_before(net: Net, behind: Host, echo: Target, tmp_path: Path) -> None:
    with Sidecar(net, tmp_path, "redirect"), net.watch() as watch, behind.connect(net.server.ip4, PORT) as sock:
        sock.sendall(WORD)
        assert read_exactly(sock, len(WORD)) == WORD
    assert (net.server.ip4, PORT) in watch.dialled
