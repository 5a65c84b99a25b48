"""The text of the rules, as a function of the configuration."""

from __future__ import annotations

import dataclasses
import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stcp_proxy.config.plan import CapturePlan
from stcp_proxy.errors import ConfigError, RulesRefused
from stcp_proxy.intercept import install, programs
from stcp_proxy.intercept.rules import rules_for
from stcp_proxy.intercept.users import exempt_users
from stcp_proxy.net.original import Interception
from stcp_proxy.net.pattern import parse_pattern

REDIRECT = CapturePlan(Interception.REDIRECT, 15001, True, True, False, None, None, (), (), ())
TPROXY = dataclasses.replace(REDIRECT, how=Interception.TPROXY, mark=0x5350)


def lines(text: str) -> list[str]:
    return [line.strip() for line in text.splitlines()]


@pytest.mark.parametrize("plan", [REDIRECT, TPROXY])
def test_a_table_is_replaced_in_one_transaction(plan: CapturePlan) -> None:
    text = lines(rules_for(plan, [7]).nft)
    assert text[:3] == ["table inet stcp_proxy", "delete table inet stcp_proxy", "table inet stcp_proxy {"]
    assert lines(rules_for(plan, [7], table="other").nft)[1] == "delete table inet other"


def test_the_proxy_its_peers_and_what_is_excluded_come_before_what_is_taken() -> None:
    plan = dataclasses.replace(
        REDIRECT,
        peers=(parse_pattern("10.0.0.9:7443"),),
        exclude=(parse_pattern(":53"), parse_pattern("[fd00::/8]"), parse_pattern("0.0.0.0/0:22")),
    )
    text = lines(rules_for(plan, [1337, 5]).nft)
    spared = text[text.index("chain spared {") + 1 :]
    assert spared[:5] == [
        "meta skuid { 5, 1337 } goto let_out",
        "ip daddr 10.0.0.9 tcp dport 7443 goto let_out",
        "tcp dport 53 goto let_out",
        "ip6 daddr fd00::/8 goto let_out",
        "meta nfproto ipv4 tcp dport 22 goto let_out",
    ]
    output = text[text.index("chain output {") :]
    assert output.index("jump spared") < output.index("goto taken")
    assert output.index('oif "lo" accept') < output.index("jump spared")


def test_only_routes() -> None:
    plan = dataclasses.replace(REDIRECT, only=(parse_pattern("10.0.0.0/8:1-9"), parse_pattern(":80")))
    text = lines(rules_for(plan, [1]).nft)
    assert "ip daddr 10.0.0.0/8 tcp dport 1-9 goto taken" in text
    assert "tcp dport 80 goto taken" in text
    assert "goto taken" not in text


def test_tproxy_refuses_what_finds_no_listener_and_marks_only_the_way_there() -> None:
    text = lines(rules_for(dataclasses.replace(TPROXY, ip6=False), []).nft)
    taken = text[text.index("chain taken {") + 1 :]
    assert taken[1:3] == [
        "meta nfproto ipv4 meta l4proto tcp tproxy ip to 127.0.0.1:15001 accept",
        "meta l4proto tcp reject with tcp reset",
    ]
    assert "ct direction original ct mark 0x5351 meta mark set 0x5351" in text


def test_what_is_printed_has_the_routing_as_comments() -> None:
    printed = str(rules_for(TPROXY, []))
    assert "#   ip -6 rule add priority 535 fwmark 0x5351 lookup 21329\n" in printed
    assert "ip rule" not in str(rules_for(REDIRECT, [1]))


@given(st.lists(st.sampled_from(["10.0.0.0/8", "1.2.3.4:5", ":1-65535", "[::/0]:8", "[fd00::1]", "0.0.0.0/0"]), max_size=6))
def test_every_rule_has_a_verdict_and_every_brace_its_other(texts: list[str]) -> None:
    patterns = tuple(map(parse_pattern, texts))
    for plan in (REDIRECT, TPROXY):
        full = dataclasses.replace(plan, exclude=patterns, only=patterns, forwarded=("br0",), every_interface=True)
        rules = rules_for(full, [1])
        for text in (rules.nft, "table inet held {\n" + rules.hold):
            assert text.count("{") == text.count("}")
            assert "None" not in text


def test_root_must_say_who_runs_the_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 0)
    with pytest.raises(ConfigError, match="--uid"):
        exempt_users([], REDIRECT)
    assert exempt_users([], TPROXY) == []
    assert exempt_users(["root", "1337"], REDIRECT) == [0, 1337]
    with pytest.raises(ConfigError, match="no user"):
        exempt_users(["nobody-of-that-name"], REDIRECT)
    monkeypatch.setattr("os.geteuid", lambda: 1337)
    assert exempt_users([], REDIRECT) == [1337]


@pytest.mark.parametrize(
    ("stderr", "says"),
    [
        ("Operation not permitted (you must be root)", "may not change the network"),
        (
            "/dev/stdin:9:1-2: Error: Could not process rule: No such file or directory\nredirect to :15001\n^^^^^^^^",
            "the kernel lacks redirection",
        ),
        ("Error: something else", "something else"),
    ],
)
def test_what_nft_says_becomes_a_sentence(monkeypatch: pytest.MonkeyPatch, stderr: str, says: str) -> None:
    monkeypatch.setattr(programs, "run", lambda command, stdin="": subprocess.CompletedProcess(command, 1, "", stderr))
    with pytest.raises(RulesRefused, match=says):
        install.apply(rules_for(REDIRECT, [1]))


def test_a_missing_program_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda name, path: None)
    with pytest.raises(RulesRefused, match="'nft' is not installed here; install the package nftables"):
        install.apply(rules_for(REDIRECT, [1]))
