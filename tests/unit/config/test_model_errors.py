"""A value of the wrong shape: the sentence fits the place, and the remedy is true."""

from __future__ import annotations

from pathlib import Path

import pytest

from stcp_proxy.config import ConfigProblems, Mode, load_plan, plan_from_flags

TUNNEL = "tunnels: {a: {mode: listen, bind: 127.0.0.1:1, to: 127.0.0.1:2, psk: a.psk%s}}\n"


def refused(tmp_path: Path, text: str) -> list[str]:
    """What is found in a file, each without the file's name."""
    path = tmp_path / "c.yaml"
    path.write_text(text)
    with pytest.raises(ConfigProblems) as caught:
        load_plan(path)
    return [str(finding).removeprefix(f"{path}:") for finding in caught.value.findings]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("workers: 100\n", "1: workers: a whole number from 1 to 64 belongs here"),
        ("workers: 0\n", "1: workers: a whole number from 1 to 64 belongs here"),
        ("workers: many\n", "1: workers: a whole number from 1 to 64 belongs here"),
        ("workers: 2k\n", "1: workers: a whole number from 1 to 64 belongs here; write 2000"),
        ("drain_outbound: off\n", "1: drain_outbound: 'stop' or 'keep' belongs here"),
        ("log: info\n", "1: log: a mapping belongs here; write its keys below it, indented"),
    ],
)
def test_of_the_whole_file(tmp_path: Path, text: str, says: str) -> None:
    assert refused(tmp_path, text + TUNNEL % "") == [says]


@pytest.mark.parametrize(
    ("setting", "says"),
    [
        ("max_connections: 10k", "max_connections: a whole number from 1 to 1000000 belongs here; write 10000"),
        ("max_connections: 2M", "max_connections: a whole number from 1 to 1000000 belongs here; write 2000000"),
        ("max_connections: 1.5", "max_connections: a whole number from 1 to 1000000 belongs here"),
        ("mark: 0", "mark: a whole number from 1 to 1000000 belongs here"),
        (
            "bind_mode: 0660",
            "bind_mode: '0600', '0660' or '0666' belongs here; write it in quotes: YAML reads 0660 without quotes as a"
            " different number",
        ),
        ("accept: 1", "accept: there is no such key; other programs use this name: here it is 'bind'"),
        ("CAfile: x", "CAfile: there is no such key; other programs use this name: here it is 'peers' and 'allow'"),
        ("alow: x", "alow: there is no such key; did you mean 'allow'?"),
    ],
)
def test_of_a_tunnel(tmp_path: Path, setting: str, says: str) -> None:
    assert refused(tmp_path, TUNNEL % f", {setting}") == [f"1: tunnels.a.{says}"]


@pytest.mark.parametrize(("mode", "says"), [("client", "connect"), ("server", "listen"), ("Server", "listen")])
def test_modes_of_other_programs(tmp_path: Path, mode: str, says: str) -> None:
    (found,) = refused(tmp_path, TUNNEL.replace("mode: listen", f"mode: {mode}") % "")
    assert found.startswith(f"1: tunnels.a.mode: 'listen' or 'connect' belongs here; write {says} beside the ")


def test_keys_are_listed_once(tmp_path: Path) -> None:
    """Of two unknown keys at one place, the first lists what is known there; a near one is named."""
    first, second, third = refused(tmp_path, TUNNEL % ", colour: 1, shape: 2, max_handshake: 3")
    assert "known here: " in first
    assert second.endswith("there is no such key")
    assert third.endswith("did you mean 'max_handshakes'?")


def test_a_key_with_nothing_behind_it_is_not_there(tmp_path: Path) -> None:
    from stcp_proxy import keys

    keys.write_secret_file(tmp_path / "a.psk", keys.format_psk(keys.generate_psk()))
    (tmp_path / "c.yaml").write_text("drain:\nlog:\n" + TUNNEL % ", idle_timeout: , max_connections: null")
    plan = load_plan(tmp_path / "c.yaml")
    assert (plan.drain, plan.log.level, plan.tunnels[0].max_connections) == (30, "info", 10_000)
    assert refused(tmp_path, "drian:\n" + TUNNEL % "") == ["1: drian: there is no such key; did you mean 'drain'?"]


@pytest.mark.parametrize(
    ("flag", "value", "says"),
    [
        ("max_connections", "10k", "--max-connections: a whole number from 1 to 1000000 belongs here; write 10000"),
        ("workers", "100", "--workers: a whole number from 1 to 64 belongs here"),
        ("log_level", "loud", "--log-level: 'debug', 'info', 'warning' or 'error' belongs here"),
        ("idle_timeout", "x", "--idle-timeout: 'x' is not a time; write seconds, or a number with ms, s, m, h or d"),
    ],
)
def test_of_a_flag(flag: str, value: str, says: str) -> None:
    with pytest.raises(ConfigProblems) as caught:
        plan_from_flags(mode=Mode.LISTEN, bind="127.0.0.1:1", to=["127.0.0.1:2"], psk="no.psk", **{flag: value})
    assert [str(finding) for finding in caught.value.findings] == [says]


def test_numbers_of_flags() -> None:
    with pytest.raises(ConfigProblems) as caught:
        plan_from_flags(mode=Mode.LISTEN, bind="127.0.0.1:1", to=["127.0.0.1:2"], psk="no.psk", workers="3")
    assert "no.psk does not exist" in str(caught.value)
