"""Fair places against a model that counts: who loses a place, and whose turn it is."""

from __future__ import annotations

import collections

from hypothesis import given
from hypothesis import strategies as st

from stcp_proxy.net.source import Source
from stcp_proxy.tunnel.fair_places import FairPlaces


def source(network: int, host: int = 0) -> Source:
    return Source(f"network {network}", f"host {network}.{host}")


SOURCES = st.builds(source, st.integers(0, 3), st.integers(0, 2))
STEPS = st.lists(st.one_of(SOURCES, st.just("victim"), st.just("take"), st.integers(0, 30)), max_size=120)
"""A source: a newcomer. A number: the member with this number leaves."""


@given(STEPS)
def test_as_the_model_says(steps: list[Source | str | int]) -> None:
    places, members, number = FairPlaces[int](), dict[int, Source](), 0
    for step in steps:
        if isinstance(step, Source):
            places.add(number, step)
            members[number] = step
            number += 1
        elif isinstance(step, int):
            assert places.discard(step) == (members.pop(step, None) is not None)
        elif members:
            member = places.victim if step == "victim" else places.take()
            if step == "victim":
                check_victim(members, member)
                places.discard(member)
            check_oldest_of_its_host(members, member)
            del members[member]
        assert (len(places), list(places)) == (len(members), list(members))
    while members:
        member = places.take()
        check_oldest_of_its_host(members, member)
        del members[member]
    assert not places._hosts
    assert not places._queues


def check_victim(members: dict[int, Source], member: int) -> None:
    networks = collections.Counter(each.network for each in members.values())
    network = members[member].network
    assert networks[network] == max(networks.values())
    hosts = collections.Counter(each.host for each in members.values() if each.network == network)
    assert hosts[members[member].host] == max(hosts.values())


def check_oldest_of_its_host(members: dict[int, Source], member: int) -> None:
    assert member == min(other for other, where in members.items() if where == members[member])


def test_networks_take_turns_and_so_do_hosts() -> None:
    places = FairPlaces[str]()
    for name, where in (("a", source(1)), ("b", source(1, 5)), ("c", source(2)), ("d", source(3))):
        for number in range(3 if name == "a" else 2 if name == "b" else 1):
            places.add(f"{name}{number + 1}", where)
    assert [places.take() for _ in range(7)] == ["a1", "c1", "d1", "b1", "a2", "b2", "a3"]


def test_a_crowd_pays_with_its_own() -> None:
    """A thousand of a hundred networks, and one from elsewhere: it is safe to the end."""
    places = FairPlaces[int]()
    places.add(-1, source(-1))
    for number in range(1000):
        places.add(number, source(number % 100))
    for number in range(900):
        assert places.victim == number
        places.discard(number)


def test_a_bad_neighbour_does_not_speak_for_its_network() -> None:
    places = FairPlaces[int]()
    places.add(-1, source(0, 1))
    for number in range(10):
        places.add(number, source(0, 0))
    for number in range(9):
        assert places.victim == number
        places.discard(number)
