"""Targets that are names: their addresses, failures and remedies, and targets across a reload."""

from __future__ import annotations

import pytest
import structlog
import trio
from trio.testing import MockClock

from stcp_proxy.config import Balance
from stcp_proxy.errors import (
    TargetRefused,
    TargetUnreachable,
)
from stcp_proxy.net import name_cache
from stcp_proxy.net.dns_settings import DnsSettings
from stcp_proxy.net.name_cache import NameCache
from stcp_proxy.upstream.attempt import peer_unreachable
from stcp_proxy.upstream.targets import REPAIR_NAME

from .network import A, B, C, Network, dial, end, targets

# -- names -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("balance", [Balance.ROUND_ROBIN, Balance.LEAST_CONNECTIONS])
async def test_each_address_of_a_name_is_a_target(autojump_clock: MockClock, network: Network, balance: Balance) -> None:
    network.hosts = {"pods.test": ["10.0.0.1", "10.0.0.2", "10.0.0.3"]}
    known = targets("pods.test:1", balance=balance)
    assert sorted([(await dial(known)).target for _ in range(6)]) == [A, A, B, B, C, C]
    assert network.asked == 1


async def test_a_failing_name_waits_behind_the_others(autojump_clock: MockClock, network: Network) -> None:
    known = targets("gone.test:1", A)
    with structlog.testing.capture_logs():
        assert (await dial(known)).target == A
    known = targets("gone.test:1")
    with pytest.raises(TargetUnreachable, match=r"cannot resolve gone\.test"):
        await dial(known)


async def test_a_name_without_an_address_is_known_with_its_reason(autojump_clock: MockClock, network: Network) -> None:
    known = targets("gone.test:1")
    assert [(str(address), why) for address, why in known.without_endpoint] == [("gone.test:1", None)]
    for _ in range(2):
        began = trio.current_time()
        with structlog.testing.capture_logs(), pytest.raises(TargetUnreachable):
            await dial(known)
    ((_, why),) = known.without_endpoint
    assert why is not None
    assert "cannot resolve gone.test" in why.why
    assert why.remedy == REPAIR_NAME
    assert why.since <= began  # the first of the failures in a row
    after_reload = targets("gone.test:1")
    after_reload.adopt(known)
    assert after_reload.without_endpoint == known.without_endpoint


@pytest.mark.parametrize("to", [["gone.test:1"], ["gone.test:1", "lost.test:1"]])
async def test_the_remedy_for_names_is_about_names(autojump_clock: MockClock, network: Network, to: list[str]) -> None:
    """A connect tunnel says it too: whether `stcp-proxy listen` runs there is not the question."""
    with pytest.raises(TargetUnreachable) as caught:
        await dial(targets(*to))
    assert caught.value.remedy == peer_unreachable(caught.value).remedy == REPAIR_NAME


async def test_the_remedy_for_a_name_and_an_address_is_about_the_address(autojump_clock: MockClock, network: Network) -> None:
    network.down = {A}
    with structlog.testing.capture_logs(), pytest.raises(TargetRefused) as caught:
        await dial(targets("gone.test:1", A))
    assert "`stcp-proxy listen` runs there" in str(peer_unreachable(caught.value))


async def test_the_name_is_asked_again_when_its_address_fails(autojump_clock: MockClock, network: Network) -> None:
    """By the connection that finds out: it comes through."""
    name_cache.configure(DnsSettings(ttl=3600))
    network.hosts = {"db.test": ["10.0.0.1"]}
    known = targets("db.test:1")
    await dial(known)
    await trio.sleep(10)
    network.hosts, network.down = {"db.test": ["10.0.0.2"]}, {A}
    with structlog.testing.capture_logs():
        assert (await dial(known)).target == B
    assert network.take() == [A, A, B]
    assert [str(each) for each in known.endpoints] == [B]
    assert network.asked == 2


async def test_a_name_that_leads_nowhere_new_is_asked_once(autojump_clock: MockClock, network: Network) -> None:
    network.hosts, network.down = {"db.test": ["10.0.0.1"]}, {A}
    known = targets("db.test:1")
    for _ in range(50):
        with pytest.raises(TargetRefused):
            await dial(known)
    assert network.asked == 1  # all within a quarter of a second
    assert network.take() == [A] * 50


async def test_pods_that_are_gone_are_forgotten(autojump_clock: MockClock, network: Network) -> None:
    known = targets("pods.test:1", balance=Balance.ROUND_ROBIN)
    last = None
    for number in range(50):
        network.hosts = {"pods.test": [f"10.1.0.{number}"]}
        last = await dial(known)
        if number == 10:
            kept = last
        else:
            end(last)
        await trio.sleep(10)
    assert len(known._endpoints) == 2  # the last one, and the one whose connection lives
    assert kept.endpoint is not None
    assert kept.endpoint.live == 1


# -- reload ----------------------------------------------------------------------------------------------------------------


async def test_a_successor_knows_what_was_known(autojump_clock: MockClock, network: Network) -> None:
    old = targets(A, B)
    network.down = {A}
    record = await dial(old)
    new = targets(C, A, B)
    new.adopt(old)
    aside = {str(each): each.is_unhealthy(trio.current_time()) for each in new.endpoints}
    assert aside == {C: False, A: True, B: False}
    assert [each.live for each in new.endpoints] == [0, 0, 1]
    end(record)
    assert [each.live for each in new.endpoints] == [0, 0, 0]


def test_names_are_not_resolved_by_making_targets() -> None:
    assert targets("db.test:1", "srv:_stcp._tcp.test").endpoints == []
    assert isinstance(NameCache(DnsSettings()), NameCache)
