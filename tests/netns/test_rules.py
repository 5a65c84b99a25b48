"""The rules in a kernel: installed, replaced, removed, and refused."""

from __future__ import annotations

import contextlib
import json
import os
import time
from pathlib import Path

import pytest
from harness.hosts import USER, Net
from harness.process import wait_for
from harness.real import full_size
from harness.sockets import Target, end_of, read_exactly

from netns.sidecar import PORT, Sidecar

HOW = pytest.mark.parametrize("how", ["redirect", "tproxy"])
FOREIGN = "table inet foreign {\n\tchain c {\n\t\ttcp dport 1 drop\n\t}\n}\n"


def state(net: Net) -> str:
    """Everything of the client host that rules and routes say."""
    commands = ("nft list ruleset", "ip -4 rule", "ip -6 rule", "ip -4 route show table all", "ip -6 route show table all")
    lines = [line for command in commands for line in net.client.run(*command.split()).stdout.splitlines()]
    return "\n".join(line for line in lines if "fe80:" not in line)  # the kernel's own, which come when it sees fit


@HOW
def test_twice_is_as_good_as_once_and_removal_leaves_the_rest(net: Net, tmp_path: Path, how: str) -> None:
    net.client.run("nft", "-f", "-", stdin=FOREIGN)
    before = state(net)
    try:
        with Sidecar(net, tmp_path, how) as sidecar:
            once = state(net)
            assert "stcp_proxy" in once
            assert FOREIGN in once
            assert "installed: table inet stcp_proxy" in sidecar.rules("--apply")
            assert state(net) == once
            assert "removed: table inet stcp_proxy" in sidecar.rules("--remove")
            assert state(net) == before
            assert "nothing to remove" in sidecar.rules("--remove")
            printed = sidecar.rules()
            net.client.run("nft", "-c", "-f", "-", stdin=printed)
        assert state(net) == before
    finally:
        net.client.run("nft", "delete", "table", "inet", "foreign")


@HOW
def test_doctor_knows_rules_that_are_missing_or_older_than_the_file(net: Net, tmp_path: Path, how: str) -> None:
    def found() -> tuple[str, str]:
        done = net.client.product("doctor", str(sidecar.config), "--json", check=False)
        (finding,) = [each for each in json.loads(done.stdout) if each["subject"] == "interception rules"]
        return finding["level"], finding["what"].partition(":")[0]

    with Sidecar(net, tmp_path, how) as sidecar:
        assert found() == ("ok", "installed as the file has them")
        sidecar.config.write_text(sidecar.config.read_text().replace("    routes:", "    exclude: [10.9.8.7]\n    routes:"))
        assert found() == ("fail", "outdated")
        sidecar.rules("--apply")
        assert found() == ("ok", "installed as the file has them")
        sidecar.rules("--remove")
        assert found() == ("fail", "missing")


def test_a_table_of_somebody_else_and_a_missing_privilege_are_refused(net: Net, tmp_path: Path) -> None:
    with Sidecar(net, tmp_path, "redirect") as sidecar:
        net.client.run("nft", "add", "table", "inet", "theirs")
        command = ("intercept", str(sidecar.config), "--uid", "41337")
        done = net.client.product(*command, "--apply", "--table", "theirs", check=False)
        assert done.returncode == 1
        assert "stcp-proxy has not made it" in done.stderr
        net.client.run("nft", "delete", "table", "inet", "theirs")
        done = net.client.product(*command, "--apply", user=USER, check=False)
        assert done.returncode == 1
        assert "CAP_NET_ADMIN" in done.stderr
        assert len(done.stderr.splitlines()) == 1


@HOW
def test_a_cut_wire_ends_cleanly_and_comes_back_by_itself(net: Net, tmp_path: Path, how: str) -> None:
    """New connections fail within their deadline while the wire is cut, and come through again when it is not."""
    seconds = 40.0 if full_size() else 4.0

    def comes_through() -> bool:
        try:
            with net.client.connect(net.server.ip4, PORT, timeout=5) as sock:
                sock.sendall(b"x")
                return read_exactly(sock, 1) == b"x"
        except OSError:
            return False

    target = Target(listener=net.server.listener(net.server.ip4, PORT))
    keep = "    keep: off\n"  # OPEN with early bytes on a kept leg cannot be tried again: it waits for the answer
    with target, Sidecar(net, tmp_path, how, to=f"{net.server.ip4}:{PORT}", settings=keep) as sidecar:
        assert comes_through()
        net.cut()
        try:
            started = time.monotonic()
            with net.client.connect(net.server.ip4, PORT) as sock:
                sock.sendall(b"x")
                assert end_of(sock) == ("reset", b"")
            assert time.monotonic() - started < 15
            assert sidecar.connect.refused(reason="peer_unreachable")
            time.sleep(max(0.0, started + seconds - time.monotonic()))
        finally:
            net.mend()
        wait_for(comes_through, words="connections come through again", timeout=30)


def test_tproxy_without_the_privilege_is_one_sentence(net: Net, tmp_path: Path) -> None:
    with Sidecar(net, tmp_path, "tproxy") as sidecar:
        sidecar.connect.stop()
        for path in (sidecar.config.parent, sidecar.config, sidecar.config.parent / "client.key"):
            os.chown(path, 41337, 41337)
        done = net.client.product("run", str(sidecar.config), user=USER, check=False)
        assert done.returncode == 2
        assert "CAP_NET_ADMIN" in done.stderr.splitlines()[-1]
        os.chown(sidecar.config.parent / "client.key", 0, 0)


def test_without_rules_the_tunnel_says_what_is_missing(net: Net, tmp_path: Path) -> None:
    with Sidecar(net, tmp_path, "redirect") as sidecar:
        sidecar.rules("--remove")
        with contextlib.suppress(ConnectionResetError), net.client.connect("127.0.0.1", 15001) as sock:
            sock.settimeout(10)
            assert sock.recv(1) == b""
        assert "stcp-proxy intercept --apply" in sidecar.connect.refused(reason="not_intercepted")[0]["remedy"]
