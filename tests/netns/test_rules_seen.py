"""The proxy, which may not look at rules, knows whether they are those of its file."""

from __future__ import annotations

import contextlib
import json
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
from harness.hosts import Net
from harness.process import wait_for

from netns.sidecar import Sidecar

HOW = pytest.mark.parametrize("how", ["redirect", "tproxy"])
ADMIN = "admin: 127.0.0.1:9901\n"


def asked(net: Net, path: str) -> str:
    return net.client.run("curl", "-s", f"http://127.0.0.1:9901{path}").stdout


def metric(net: Net, name: str = "stcp_interception_rules_current") -> str:
    (line,) = [line for line in asked(net, "/metrics").splitlines() if line.startswith(f"{name}{{")]
    return line.rpartition(" ")[2]


@HOW
def test_a_reload_that_captures_more_says_that_the_rules_are_older(net: Net, tmp_path: Path, how: str) -> None:
    with Sidecar(net, tmp_path, how, more=ADMIN) as sidecar:
        wait_for(lambda: asked(net, "/readyz") == "ready\n", words="the proxy sees its rules")
        assert metric(net) == "1.0"
        sidecar.config.write_text(sidecar.config.read_text().replace("    routes:", "    exclude: [10.9.8.7]\n    routes:"))
        for command in (("reload", "--check"), ("reload",)):
            said = net.client.product(*command, str(sidecar.config)).stdout
            assert "WARNING: the rules of interception are not those of this file" in said
            assert "intercept CONFIG --apply" in said
        assert "the rules of interception are outdated" in asked(net, "/readyz")
        assert metric(net) == "0.0"
        assert '"rules":"outdated"' in asked(net, "/status").replace(" ", "")
        status = " ".join(net.client.product("status", str(sidecar.config)).stdout.split())
        assert "the interception rules of this host are not those of the file" in status
        assert sidecar.connect.wait_log("the rules of interception are not those of this file")[0]["remedy"]
        sidecar.rules("--apply")
        wait_for(lambda: asked(net, "/readyz") == "ready\n", words="the proxy sees the new rules")
        assert "WARNING" not in net.client.product("reload", str(sidecar.config)).stdout
        sidecar.connect.wait_log("the rules of interception are installed")


@HOW
def test_rules_that_vanish_are_noticed(net: Net, tmp_path: Path, how: str) -> None:
    with Sidecar(net, tmp_path, how, more=ADMIN) as sidecar:
        wait_for(lambda: asked(net, "/readyz") == "ready\n", words="the proxy sees its rules")
        with net.watch() as watch:
            net.client.run("nft", "flush", "ruleset")
            wait_for(lambda: "rules of interception are missing" in asked(net, "/readyz"), words="the proxy misses its rules")
        assert watch.segments == []
        assert sidecar.connect.log("the rules of interception are missing")
        sidecar.connect.stop()
        sidecar.start()
        sidecar.connect.wait_log("the rules of interception are missing")


@contextlib.contextmanager
def with_egress_filter(net: Net, folder: Path) -> Iterator[Sidecar]:
    """A proxy that may not change the network, and whose egress filter is attached."""
    with Sidecar(net, folder, "redirect", more=ADMIN) as sidecar:
        wait_for(lambda: asked(net, "/readyz") == "ready\n", words="the proxy sees its rules")
        assert egress(net) == ("attached", [])
        yield sidecar


def egress(net: Net) -> tuple[str, list[str]]:
    (tunnel,) = json.loads(asked(net, "/status"))["tunnels"]
    return tunnel["egress_filter"], tunnel["egress_interfaces"]


def findings(net: Net, sidecar: Sidecar) -> list[tuple[str, str]]:
    done = net.client.product("doctor", str(sidecar.config), "--json", check=False)
    return [(each["level"], each["what"]) for each in json.loads(done.stdout) if each["subject"] == "egress filter"]


FAULTS = {
    "flushed queueing discipline": (
        "tc qdisc delete dev eth0 clsact", "", "missing", "eth0", "the egress filter is missing",
    ),
    "interface added later": (
        "ip link add later up type bridge", "ip link delete later", "missing", "later", "the egress filter is missing",
    ),
    "another program in front": (
        "tc filter add dev eth0 egress pref 1 protocol all bpf bytecode '1,6 0 0 0' direct-action",
        "tc filter delete dev eth0 egress pref 1", "hidden", "eth0",
        "the filter of another program comes before the egress filter",
    ),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_an_egress_filter_that_vanishes_is_noticed(net: Net, tmp_path: Path, fault: str) -> None:
    """By a proxy without any privilege: the kernel lists filters to everybody."""
    command, undo, state, interface, event = FAULTS[fault]
    with with_egress_filter(net, tmp_path) as sidecar:
        net.client.run(*shlex.split(command))
        try:
            wait_for(lambda: f"the egress filter is {state} ({interface})" in asked(net, "/readyz"), words="not ready")
            assert metric(net, "stcp_egress_filter_attached") == "0.0"
            assert egress(net) == (state, [interface])
            assert sidecar.connect.wait_log(event)[0]["remedy"]
            status = " ".join(net.client.product("status", str(sidecar.config)).stdout.split())
            assert "the egress filter" in status
            assert f"on {interface}" in status
            assert f"WARNING: {event}: on {interface}: " in net.client.product("reload", "--check", str(sidecar.config)).stdout
            ((level, what),) = findings(net, sidecar)
            assert (level, interface in what) == ("fail", True)
        finally:
            if undo:
                net.client.run(*undo.split())
        sidecar.rules("--apply")
        wait_for(lambda: asked(net, "/readyz") == "ready\n", words="the proxy sees the filter")
        assert metric(net, "stcp_egress_filter_attached") == "1.0"
        sidecar.connect.wait_log("the egress filter is attached")


def test_rules_without_an_egress_filter_miss_none(net: Net, tmp_path: Path) -> None:
    with with_egress_filter(net, tmp_path) as sidecar:
        sidecar.rules("--apply", "--no-egress-filter")
        wait_for(lambda: egress(net) == ("", []), words="the proxy knows that none is wanted")
        assert asked(net, "/readyz") == "ready\n"
        assert "stcp_egress_filter_attached{" not in asked(net, "/metrics")
        assert findings(net, sidecar) == [("ok", "not wanted: the rules were installed with --no-egress-filter")]


def test_rules_are_installed_with_a_warning_behind_the_filter_of_another_program(net: Net, tmp_path: Path) -> None:
    with with_egress_filter(net, tmp_path) as sidecar:
        net.client.run(*shlex.split(FAULTS["another program in front"][0]))
        try:
            assert "WARNING: a filter of another program comes before the egress filter on eth0" in sidecar.rules("--apply")
        finally:
            net.client.run("tc", "filter", "delete", "dev", "eth0", "egress", "pref", "1")


def test_the_guard_of_removed_rules_is_no_sign_of_rules(net: Net, tmp_path: Path) -> None:
    with Sidecar(net, tmp_path, "redirect", more=ADMIN) as sidecar:
        wait_for(lambda: asked(net, "/readyz") == "ready\n", words="the proxy sees its rules")
        with net.server.listener(net.server.ip4, 5001) as server:
            server.listen()
            net.client.run("nft", "add", "rule", "inet", "stcp_proxy", "spared", "tcp", "dport", "5001", "goto", "let_out")
            with net.client.connect(net.server.ip4, 5001):
                assert "the guard stays" in sidecar.rules("--remove")
                wait_for(lambda: "missing" in asked(net, "/readyz"), words="the proxy misses its rules")
        sidecar.connect.stop()
        assert "the guard stays" not in sidecar.rules("--remove")
