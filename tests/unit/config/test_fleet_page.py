"""docs/FLEET.md: its commands run, and its configurations load with the files that the commands make."""

from __future__ import annotations

import getpass
import io
import re
import shlex
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from harness.command import Run, command_line

from stcp_proxy import keys
from stcp_proxy.config import load_plan
from stcp_proxy.config.plan_text import describe_plan

PAGE = (Path(__file__).parents[3] / "docs" / "FLEET.md").read_text(encoding="utf-8")
BLOCKS: list[str] = re.findall(r"^```yaml\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
CONFIGS = [block for block in BLOCKS if "tunnels" in yaml.safe_load(block)]
COMMANDS = [line for block in re.findall(r"^```sh\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL) for line in block.splitlines()]
PUBKEY = '"$(stcp-proxy pubkey host.key)"'


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Run:
    """The command line on the authority's machine, with a person who knows the passphrase."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "stdin", Terminal())
    monkeypatch.setattr(getpass, "getpass", lambda _: "correct horse")
    return command_line(monkeypatch, capsys)


@pytest.fixture
def host(run: Run, tmp_path: Path) -> Path:
    """A host with every file that the page names."""
    own = keys.PrivateKey.generate()
    keys.write_secret_file("host.key", keys.format_private_key(own))
    Path("peers.d").mkdir()
    Path("peers.d/web-7.pub").write_text(f"# groups: apps, prod\n{keys.PrivateKey.generate().public}\n")
    run("ca", "init", "--out", "ca", "--name", "prod")
    names = ["--name", "dns:app-7.prod.internal", "--uri", "spiffe://prod/ns/shop/sa/app"]
    for out, more in (("host", []), ("web", ["--public-key", own.public])):
        assert run("ca", "issue", "--ca", "ca", *names, "--out", out, *more).status == 0
    for file in Path("host").iterdir():
        file.rename(file.name)
    return tmp_path


def test_the_commands(run: Run, tmp_path: Path) -> None:
    own = keys.PrivateKey.generate()
    assert len(COMMANDS) == 6
    for line in COMMANDS:
        done = run(*shlex.split(line.replace(PUBKEY, str(own.public)))[1:])
        assert (done.status, done.err) == (0, ""), line
    assert sorted(path.name for path in (tmp_path / "app-7").iterdir()) == ["ca.crl", "ca.crt", "tls.crt", "tls.key"]
    assert not (tmp_path / "web" / "tls.key").exists()


@pytest.mark.parametrize("number", range(len(CONFIGS)))
def test_a_configuration(host: Path, number: int) -> None:
    file = host / "c.yaml"
    file.write_text(CONFIGS[number].replace("/etc/stcp", str(host)).replace("/run/stcp", str(host)))
    plan = load_plan(file)
    assert describe_plan(plan)
    named = re.findall(r"/(?:etc|run)/stcp/([\w./-]+)", CONFIGS[number])
    assert {str(host / name).rstrip("/") for name in named} <= plan.inputs.keys()  # so they are watched


def test_the_other_manifests_are_those_of_cert_manager() -> None:
    others: list[Any] = [yaml.safe_load(block) for block in BLOCKS if block not in CONFIGS]
    assert [other["kind"] for other in others] == ["Certificate"]
    assert set(others[0]["spec"]["usages"]) >= {"client auth", "server auth"}
    assert len(CONFIGS) == 7
