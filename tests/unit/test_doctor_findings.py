"""`stcp-proxy doctor` where a machine cannot be brought into the state: the clock, and a failure that nobody thought of."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import trio

from stcp_proxy import keys
from stcp_proxy.config import EngineChoice, load_plan
from stcp_proxy.config.example_keys import EXAMPLES
from stcp_proxy.doctor import Level, examine, machine, peers


@pytest.fixture
def config(tmp_path: Path) -> Path:
    own, peer = keys.PrivateKey.generate(), keys.PrivateKey.generate()
    keys.write_secret_file(tmp_path / "host.key", keys.format_private_key(own))
    path = tmp_path / "config.yaml"
    tunnel = f"mode: connect, bind: ':0', to: '127.0.0.1:1', peer: '{peer.public}', engine: kernel"
    path.write_text(f"identity: host.key\ntunnels: {{out: {{{tunnel}}}}}")
    return path


@pytest.mark.parametrize(("now", "level"), [(0.0, Level.WARN), (machine.BUILT.timestamp(), Level.OK)])
def test_a_clock_that_was_never_set(now: float, level: Level) -> None:
    finding = machine.clock(now)
    assert finding.level is level
    assert bool(finding.remedy) == (level is Level.WARN)


def test_engine_kernel_without_the_module(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def absent() -> None:
        raise machine.KernelUnavailable(2, "the module stcp is not loaded")

    monkeypatch.setattr(machine, "probe", absent)
    plan = load_plan(config)
    assert plan.tunnels[0].engine is EngineChoice.KERNEL
    (finding,) = [each for each in machine.look(plan) if each.subject == "kernel module"]
    assert finding.level is Level.FAIL
    assert "modprobe" in finding.remedy
    (finding,) = [each for each in machine.look() if each.subject == "kernel module"]
    assert finding.level is Level.OK


@pytest.mark.parametrize(("why", "level"), [("", Level.OK), ("/proc/self/fd cannot be read; mount /proc", Level.WARN)])
def test_an_engine_in_a_thread_of_its_own(monkeypatch: pytest.MonkeyPatch, why: str, level: Level) -> None:
    monkeypatch.setattr(machine, "obstacle", lambda: why)
    (finding,) = [each for each in machine.look() if each.subject == "event loop"]
    assert finding.level is level
    assert finding.remedy == ("mount /proc" if why else "")
    assert finding.what.endswith("which is slower: /proc/self/fd cannot be read" if why else "runs in Trio's loop")


@pytest.mark.parametrize(("built", "level"), [(True, Level.OK), (False, Level.WARN)])
def test_a_byte_path_that_was_not_compiled(monkeypatch: pytest.MonkeyPatch, built: bool, level: Level) -> None:
    monkeypatch.setattr(machine, "compiled", lambda: built)
    (finding,) = [each for each in machine.look() if each.subject == "byte path"]
    assert finding.level is level
    assert ("gcc" in finding.remedy) == (level is Level.WARN)


def test_a_failure_that_nobody_thought_of_is_a_finding(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError("by zero")

    monkeypatch.setattr(peers, "connect", broken)
    (finding,) = trio.run(peers.look, load_plan(config))
    assert finding.level is Level.FAIL
    assert finding.what == "unexpected failure: ZeroDivisionError: by zero"
    assert finding.remedy


def test_a_key_of_an_example_is_a_finding(config: Path) -> None:
    config.write_text(re.sub("stcp-pub:[^']*", sorted(EXAMPLES)[0], config.read_text()))
    (finding,) = [each for each in examine(config) if each.subject == "configuration"]
    assert finding.level is Level.FAIL
    assert "keys of the documentation's examples" in finding.what
    assert "stcp-proxy pubkey" in finding.remedy
