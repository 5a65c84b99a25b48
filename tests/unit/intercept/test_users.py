"""Whom the rules leave alone, and who else that would be."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace

import pytest
from unit.intercept.test_rules import REDIRECT, lines

from stcp_proxy.errors import ConfigError
from stcp_proxy.intercept.rules import rules_for
from stcp_proxy.intercept.users import caller_is_shared, check_cgroup, shared_users

SERVICE = "system.slice/stcp-proxy.service"


def test_a_user_that_other_programs_share_is_a_warning() -> None:
    assert list(shared_users([47443, 41337])) == []
    (warning,) = shared_users([47443, 65532])
    assert "65532" in warning
    assert "distroless" in warning
    assert "leaves unencrypted" in warning


@pytest.mark.parametrize(
    ("user", "mark", "warns"), [(65532, None, True), (65532, 7, False), (47443, None, False), (0, None, False)]
)
def test_check_warns_of_a_shared_user(monkeypatch: pytest.MonkeyPatch, user: int, mark: int | None, warns: bool) -> None:
    monkeypatch.setattr("os.geteuid", lambda: user)
    tunnel = SimpleNamespace(intercept=SimpleNamespace(capture=dataclasses.replace(REDIRECT, mark=mark)))
    assert bool(list(caller_is_shared([tunnel]))) is warns  # type: ignore[list-item]


def test_a_control_group_is_a_second_criterion() -> None:
    text = lines(rules_for(REDIRECT, [7], cgroup=SERVICE).nft)
    assert f'meta skuid {{ 7 }} socket cgroupv2 level 2 "{SERVICE}" goto let_out' in text
    assert not any(line.startswith("meta skuid { 7 } goto") for line in text)


@pytest.mark.parametrize("path", ["", "/", "a//b", "/a", "a/", "a/../b", 'a"b', "a b", "a;b", "ä", "a\nb"])
def test_a_control_group_has_a_grammar(path: str) -> None:
    check_cgroup(SERVICE, REDIRECT)
    with pytest.raises(ConfigError, match="no path of a control group"):
        check_cgroup(path, REDIRECT)


def test_a_control_group_cannot_go_with_forwarded() -> None:
    with pytest.raises(ConfigError, match="forwarded"):
        check_cgroup(SERVICE, dataclasses.replace(REDIRECT, forwarded=("br0",), every_interface=True))
