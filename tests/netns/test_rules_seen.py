"""The proxy, which may not look at rules, knows whether they are those of its file."""

from __future__ import annotations

from pathlib import Path

import pytest
from harness.hosts import Net
from harness.process import wait_for

from netns.sidecar import Sidecar

HOW = pytest.mark.parametrize("how", ["redirect", "tproxy"])
ADMIN = "admin: 127.0.0.1:9901\n"


def asked(net: Net, path: str) -> str:
    return net.client.run("curl", "-s", f"http://127.0.0.1:9901{path}").stdout


def metric(net: Net) -> str:
    (line,) = [line for line in asked(net, "/metrics").splitlines() if line.startswith("stcp_interception_rules_current{")]
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
