"""Where the egress filter is attached, and what is said where it cannot be. `tc` and `ip` are fakes."""

from __future__ import annotations

import json
import subprocess
from typing import Any

import pytest
from unit.intercept.test_rules import REDIRECT

from stcp_proxy.errors import RulesRefused
from stcp_proxy.intercept import egress_filter, install
from stcp_proxy.intercept.egress_filter import Attached, attach, attached, detach
from stcp_proxy.intercept.egress_program import Egress
from stcp_proxy.intercept.guard import pref_of
from stcp_proxy.intercept.rules import TABLE, rules_for
from stcp_proxy.net.egress_filters import EgressFilters

EGRESS = Egress.of(REDIRECT, pref_of(TABLE))
LINKS = [
    {"ifname": "lo", "link_type": "loopback"},
    {"ifname": "eth0", "link_type": "ether"},
    {"ifname": "br0", "link_type": "ether", "linkinfo": {"info_kind": "bridge"}},
    {"ifname": "veth1", "link_type": "ether", "master": "br0", "linkinfo": {"info_slave_kind": "bridge"}},
    {"ifname": "eth1", "link_type": "ether", "master": "bond0", "linkinfo": {"info_slave_kind": "bond"}},
    {"ifname": "eth2", "link_type": "ether", "master": "blue", "linkinfo": {"info_slave_kind": "vrf"}},
    {"ifname": "wg0", "link_type": "none"},
]


class Host:
    """A host whose `tc` and `ip` this test plays.

    Attributes:
        behind: interfaces where a filter of another program comes first.
        refuses: an interface on which no filter can be attached.
        filters: the programs that are attached, by interface.
        queues: interfaces with a queueing discipline for filters.
    """

    def __init__(self) -> None:
        self.refuses = ""
        self.behind: tuple[str, ...] = ()
        self.filters: dict[str, list[dict[str, int]]] = {}
        self.queues: set[str] = set()

    def run(self, command: tuple[str, ...], *, stdin: str = "") -> subprocess.CompletedProcess[str]:
        words = [word for word in command if word != "-json"]
        name = words[words.index("dev") + 1] if "dev" in words else ""
        match words[:3]:
            case ["ip", *_]:
                return self._say(command, LINKS)
            case ["tc", "qdisc", "show"]:
                return self._say(command, [{"dev": each, "kind": "clsact"} for each in self.queues if name in ("", each)])
            case ["tc", "qdisc", "add"]:
                if name == self.refuses:
                    return subprocess.CompletedProcess(command, 2, "", "Error: Exclusivity flag on, cannot modify.")
                self.queues.add(name)
            case ["tc", "qdisc", "delete"]:
                self.queues.remove(name)
            case ["tc", "filter", "replace"]:
                self.filters[name] = self._read(words[words.index("bytecode-file") + 1])
            case ["tc", "filter", "delete"]:
                del self.filters[name]
            case ["tc", "filter", "show"]:
                found = self.filters.get(name) if "egress" in words else None
                return self._say(command, [{"kind": "bpf"}, {"options": {"bytecode": {"insns": found}}}] if found else [])
        return subprocess.CompletedProcess(command, 0, "", "")

    @staticmethod
    def _say(command: tuple[str, ...], found: list[Any]) -> subprocess.CompletedProcess[str]:
        return subprocess.CompletedProcess(command, 0, json.dumps(found), "")

    @staticmethod
    def _read(path: str) -> list[dict[str, int]]:
        with open(path) as file:
            lines = file.read().split(",")[1:]
        return [dict(zip(("code", "jt", "jf", "k"), map(int, line.split()), strict=True)) for line in lines]


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch) -> Host:
    host = Host()
    monkeypatch.setattr(egress_filter, "run", host.run)
    monkeypatch.setattr(egress_filter, "_server_ports", lambda: [22])
    monkeypatch.setattr(egress_filter, "egress_filters", lambda: EgressFilters(behind=host.behind))
    return host


def test_the_filter_is_on_every_interface_through_which_this_host_sends(host: Host) -> None:
    names = ("eth0", "br0", "eth2", "wg0")
    assert attach(EGRESS) == Attached(names, names, {})
    assert attach(EGRESS) == Attached(names, (), {})


def test_a_changed_filter_is_replaced_and_is_not_new(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    attach(EGRESS)
    before = host.filters["eth0"]
    monkeypatch.setattr(egress_filter, "_server_ports", lambda: [22, 80])
    assert attach(EGRESS).added == ()
    assert host.filters["eth0"] != before


def test_an_interface_that_refuses_is_named_and_the_others_get_the_filter(host: Host) -> None:
    host.refuses = "br0"
    found = attach(EGRESS)
    assert found.whole == ("eth0", "eth2", "wg0")
    assert "tc qdisc add dev br0 clsact" in found.refused["br0"]
    assert list(attached(TABLE)) == ["eth0", "eth2", "wg0"]


def test_a_filter_of_another_program_that_comes_first_is_named(host: Host) -> None:
    host.behind = ("wg0",)
    assert attach(EGRESS).hidden == ("wg0",)
    assert "comes before the egress filter on wg0" in "".join(attach(EGRESS).warnings())


def test_a_filter_of_another_program_is_left_alone(host: Host) -> None:
    host.queues.add("eth0")
    host.filters["eth0"] = [{"code": 6, "jt": 0, "jf": 0, "k": 0}]
    found = attach(EGRESS)
    assert "another program has a filter" in found.refused["eth0"]
    assert host.filters["eth0"] == [{"code": 6, "jt": 0, "jf": 0, "k": 0}]
    assert "eth0" not in detach(TABLE)


def test_only_filters_of_this_table_are_removed(host: Host) -> None:
    attach(EGRESS)
    host.filters.pop("eth0")  # somebody has taken ours away
    assert detach(TABLE) == ["br0", "eth2", "wg0"]
    assert host.queues == {"eth0"}
    assert host.filters == {}


def test_rules_are_installed_without_tc_and_say_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(egress: Egress) -> Attached:
        raise RulesRefused("the program 'tc' is not installed here", remedy="install the package iproute2")

    monkeypatch.setattr(install, "attach", missing)
    monkeypatch.setattr(install, "nft", lambda arguments, stdin="": "")
    monkeypatch.setattr(install, "served_elements", lambda table: "")
    assert "WARNING: no egress filter: the program 'tc' is not installed here" in install.apply(rules_for(REDIRECT, [1]))
