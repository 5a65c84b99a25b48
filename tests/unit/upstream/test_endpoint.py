"""Passive health of one endpoint: how long it is unhealthy, who may try it again, and whose failure counts."""

from __future__ import annotations

import socket

import pytest

from stcp_proxy.errors import TargetRefused
from stcp_proxy.net.dial import SocketAddress
from stcp_proxy.upstream.endpoint import FIRST_PAUSE, LONGEST_PAUSE, Endpoint

WHY = TargetRefused("refused")


@pytest.fixture
def endpoint() -> Endpoint:
    return Endpoint(SocketAddress(socket.AF_INET, ("127.0.0.1", 80)))


def test_new(endpoint: Endpoint) -> None:
    assert not endpoint.is_unhealthy(0.0)
    assert str(endpoint) == "127.0.0.1:80"


def test_pauses_grow_up_to_the_longest(endpoint: Endpoint) -> None:
    now, pauses = 100.0, []
    for _ in range(40):
        endpoint.fail(WHY, now=now, since=now)
        pauses.append(endpoint.until - now)
        assert endpoint.is_unhealthy(now)
        now = endpoint.until
        assert not endpoint.is_unhealthy(now)
    for at, pause in enumerate(pauses):
        whole = min(LONGEST_PAUSE, FIRST_PAUSE * 2**at)
        assert whole * 0.75 <= pause <= whole
    assert len(set(pauses[10:])) > 1  # left to chance, within bounds


def test_it_is_failing_since_the_first_failure(endpoint: Endpoint) -> None:
    for now in (100.0, 200.0):
        endpoint.fail(WHY, now=now, since=now)
    assert endpoint.failing_since == 100.0
    endpoint.reach(250.0)
    endpoint.fail(WHY, now=300.0, since=300.0)
    assert endpoint.failing_since == 300.0


def test_many_failures_at_once_are_one(endpoint: Endpoint) -> None:
    assert endpoint.fail(WHY, now=1.0, since=0.0)
    until = endpoint.until
    for _ in range(100):
        assert not endpoint.fail(WHY, now=1.1, since=0.0)
    assert (endpoint.failures, endpoint.until, endpoint.failed_at) == (1, until, 1.1)


def test_reached_ends_it_at_once(endpoint: Endpoint) -> None:
    assert not endpoint.reach(0.5)
    for now in (1.0, 2.0, 4.0):
        endpoint.fail(WHY, now=now, since=now)
    assert endpoint.reach(4.1)
    assert not endpoint.is_unhealthy(4.1)
    assert endpoint.why is WHY  # the last failure is still told
    endpoint.fail(WHY, now=5.0, since=4.5)
    assert endpoint.until - 5.0 <= FIRST_PAUSE


def test_an_old_attempt_does_not_speak_against_a_newer_success(endpoint: Endpoint) -> None:
    endpoint.reach(3.0)
    assert not endpoint.fail(WHY, now=10.0, since=2.0)
    assert not endpoint.is_unhealthy(10.0)


def test_one_tries_and_the_others_wait(endpoint: Endpoint) -> None:
    endpoint.fail(WHY, now=1.0, since=1.0)
    endpoint.take_trial(1.1)  # as a last resort, while it is unhealthy: nobody waits longer for that
    due = endpoint.until
    assert due <= 1.0 + FIRST_PAUSE
    endpoint.take_trial(due)
    assert endpoint.is_unhealthy(due)
    endpoint.fail(WHY, now=due + 0.01, since=due)
    assert endpoint.failures == 2
    endpoint.reach(due + 0.02)
    assert not endpoint.is_unhealthy(due + 0.02)


def test_a_healthy_one_may_be_tried_by_all(endpoint: Endpoint) -> None:
    endpoint.take_trial(1.0)
    assert not endpoint.is_unhealthy(1.0)
