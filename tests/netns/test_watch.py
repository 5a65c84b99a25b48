"""`intercept --watch`: the rules come back, and nothing leaves in the clear in between."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from harness.hosts import Net
from harness.process import Process, wait_for
from harness.proxies import Command
from harness.sockets import Target, end_of, read_exactly

from netns.sidecar import PORT, Sidecar
from netns.test_guard import WORD, dial_link_local, echo, opened

HOW = pytest.mark.parametrize("how", ["redirect", "tproxy"])
__all__ = ["echo"]


@contextlib.contextmanager
def watching(net: Net, sidecar: Sidecar, folder: Path) -> Iterator[Process]:
    uid = ["--uid", "41337"] if sidecar.how == "redirect" else []
    command = ["intercept", str(sidecar.config), *uid, "--watch"]
    with Command(command, output=folder / "watch.log", place=net.client.place()) as process:
        wait_for(lambda: "stcp_proxy_hold" in tables(net), words="the second guard is there")
        yield process


def tables(net: Net) -> str:
    return net.client.run("nft", "list", "tables").stdout


def comes_through(net: Net, address: str) -> bool:
    try:
        with opened(net, address):
            return True
    except OSError:
        return False


@HOW
@pytest.mark.parametrize("command", ["flush ruleset", "delete table inet stcp_proxy"])
def test_rules_that_are_deleted_come_back_and_nothing_leaves(
    net: Net, echo: Target, tmp_path: Path, how: str, command: str
) -> None:
    addresses = (net.server.ip4, net.server.ip6)
    with Sidecar(net, tmp_path, how) as sidecar, watching(net, sidecar, tmp_path) as process, contextlib.ExitStack() as stack:
        for _ in range(5):
            socks = [stack.enter_context(opened(net, address)) for address in addresses]
            with net.watch() as watch:
                net.client.run("nft", *command.split())
                for sock, address in zip(socks, addresses, strict=True):
                    with contextlib.suppress(ConnectionResetError, BrokenPipeError):
                        sock.sendall(WORD)
                    with contextlib.suppress(OSError), net.client.connect(address, PORT) as late:
                        late.sendall(WORD)
                wait_for(lambda: all(comes_through(net, address) for address in addresses), words="the rules are back")
            assert b"hunter2" not in watch.raw
            assert watch.dialled.isdisjoint((address, PORT) for address in addresses)
        wait_for(lambda: process.text().count("the rules were missing: installed") >= 5, words="each time is reported")
        process.signal(signal.SIGTERM)
        assert process.wait() == 0
        assert tables(net) == "table inet stcp_proxy\n"
        assert comes_through(net, net.server.ip4)


@HOW
def test_without_its_rules_the_second_guard_refuses(net: Net, echo: Target, tmp_path: Path, how: str) -> None:
    """While the process that restores is stopped, so that nothing is restored."""
    with (
        Sidecar(net, tmp_path, how) as sidecar,
        watching(net, sidecar, tmp_path) as process,
        opened(net, net.server.ip4) as sock,
        net.watch() as watch,
    ):
        process.signal(signal.SIGSTOP)
        net.client.run("nft", "flush", "ruleset")
        with contextlib.suppress(ConnectionResetError):
            sock.sendall(WORD)
        assert end_of(sock) == ("reset", b"")
        for address in (net.server.ip4, net.server.ip6):
            with pytest.raises(ConnectionRefusedError):
                net.client.connect(address, PORT)
        assert watch.dialled == set()
        process.signal(signal.SIGCONT)
        wait_for(lambda: comes_through(net, net.server.ip4), words="the rules are back")


def test_a_killed_watcher_leaves_the_rules(net: Net, echo: Target, tmp_path: Path) -> None:
    with Sidecar(net, tmp_path, "redirect") as sidecar, opened(net, net.server.ip4) as sock:
        with watching(net, sidecar, tmp_path) as process:
            process.signal(signal.SIGKILL)
            process.wait()
        wait_for(lambda: tables(net) == "table inet stcp_proxy\n", words="the second guard is gone")
        sock.sendall(b"x")
        assert read_exactly(sock, 1) == b"x"


def test_policy_routing_and_a_new_file_are_followed(net: Net, echo: Target, tmp_path: Path) -> None:
    with Sidecar(net, tmp_path, "tproxy") as sidecar, watching(net, sidecar, tmp_path) as process:
        net.client.run("ip", "-4", "rule", "delete", "priority", "535")
        wait_for(lambda: "policy routing was missing: restored" in process.text(), words="routing is restored")
        assert comes_through(net, net.server.ip4)
        sidecar.config.write_text(
            sidecar.config.read_text().replace("    routes:", f"    exclude: ['{net.server.ip4}']\n    routes:")
        )
        sidecar.rules("--apply")
        wait_for(lambda: "the rules were changed" in process.text(), words="the new file is read")
        with net.watch() as watch:
            wait_for(lambda: comes_through(net, net.server.ip4), words="the excluded address is left alone by both guards")
        assert (net.server.ip4, PORT) in watch.dialled


@HOW
def test_what_the_guard_refuses_is_logged(net: Net, echo: Target, tmp_path: Path, how: str) -> None:
    with Sidecar(net, tmp_path, how) as sidecar, watching(net, sidecar, tmp_path) as process:
        with pytest.raises(ConnectionRefusedError):
            dial_link_local(net)
        with opened(net, net.server.ip4) as sock:
            net.client.run("conntrack", "-F")
            with contextlib.suppress(ConnectionResetError):
                sock.sendall(WORD)
            assert end_of(sock) == ("reset", b"")
        wait_for(lambda: "that dialled link-local IPv6 destinations" in process.text(), words="the link-local refusal is logged")
        wait_for(lambda: "that were not known to be intercepted" in process.text(), words="the reset is logged")
        assert "the rules were changed" not in process.text()  # counting is no change


def test_removal_waits_for_the_watcher(net: Net, tmp_path: Path) -> None:
    with Sidecar(net, tmp_path, "redirect") as sidecar, watching(net, sidecar, tmp_path):
        done = net.client.product("intercept", str(sidecar.config), "--remove", check=False)
        assert done.returncode == 1
        assert "--watch' holds the rules" in done.stderr
