"""The egress filter: a second guard that does not depend on nftables.

`nft flush ruleset`, which every restart of a firewall runs, deletes the guard together with interception. The egress filter
stays. `tc` attaches it to each interface, where a packet passes after all rules and routes (`egress_program`).

The filter is attached to every interface through which the IP stack of this host sends. Loopback has none, and members of a
bridge or a bond have none, because they also carry frames of other hosts. An interface that is added later has no filter until
`--apply` or `--watch` attaches it.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from stcp_proxy.errors import RulesRefused
from stcp_proxy.intercept.bpf import Instruction, text_of
from stcp_proxy.intercept.egress_program import Egress, is_ours
from stcp_proxy.intercept.guard import pref_of
from stcp_proxy.intercept.programs import refused, run
from stcp_proxy.intercept.sockets import server_ports, tcp_sockets
from stcp_proxy.net.egress_filters import egress_filters

_CLIENT_PORTS: Final = Path("/proc/sys/net/ipv4/ip_local_port_range")
_QDISC: Final = "clsact"


@dataclass(frozen=True, slots=True)
class Attached:
    """The result of `attach`.

    Attributes:
        whole: interfaces that have the filter now.
        added: the interfaces among `whole` that had no filter of this table before.
        refused: interfaces without the filter, with the reason.
        hidden: interfaces where a filter of another program comes before it.
    """

    whole: tuple[str, ...]
    added: tuple[str, ...]
    refused: dict[str, str]
    hidden: tuple[str, ...] = ()

    def warnings(self) -> list[str]:
        """What is wrong with the filter, one text for each interface."""
        before = "a filter of another program comes before the egress filter on {}, and may accept packets for good"
        return [*(f"no egress filter: {reason}" for reason in self.refused.values()), *map(before.format, self.hidden)]


def attach(egress: Egress) -> Attached:
    """Attach the filter to every interface, in place of an older one. A second call changes nothing.

    Raises:
        RulesRefused: interfaces or filters cannot be listed.
    """
    program = egress.program(_server_ports())
    names = _interfaces()
    before = _filters(egress.pref, names)
    failed: dict[str, str] = {}
    with _file(text_of(program)) as path:
        for name in names:
            if before.get(name) != program and (reason := _replace(name, egress.pref, path)):
                failed[name] = reason
    whole = tuple(name for name in names if name not in failed)
    seen = egress_filters()
    hidden = () if seen is None else seen.behind
    return Attached(whole, tuple(name for name in whole if name not in before), failed, hidden)


def attached(table: str) -> dict[str, list[Instruction]]:
    """The interfaces that have the filter of a table, with its programs.

    Raises:
        RulesRefused: interfaces or filters cannot be listed.
    """
    return _filters(pref_of(table), _interfaces())


def detach(table: str) -> list[str]:
    """Remove the filter of a table, and the queueing discipline where no other filter uses it.

    Returns:
        The interfaces that had the filter. Without `tc` there are none.
    """
    try:
        names = list(attached(table))
    except RulesRefused:
        return []
    for name in names:
        run(("tc", "filter", "delete", "dev", name, "egress", "pref", str(pref_of(table))))
        if not any(_json("filter", "show", "dev", name, side) for side in ("ingress", "egress")):
            run(("tc", "qdisc", "delete", "dev", name, _QDISC))
    return names


# -- calls of tc and ip --------------------------------------------------------------------------------------------------------


def _interfaces() -> list[str]:
    """The interfaces through which the IP stack of this host sends to other hosts."""
    done = run(("ip", "-json", "-details", "link", "show"))
    if done.returncode != 0:
        raise refused("the list of interfaces", ("ip", "link", "show"), done.stderr)
    return [each["ifname"] for each in json.loads(done.stdout or "[]") if each.get("ifname") and _sends(each)]


def _sends(link: dict[str, Any]) -> bool:
    """Whether the IP stack sends through an interface. A member of a VRF has addresses; other members do not."""
    if link.get("link_type") == "loopback":
        return False
    return "master" not in link or (link.get("linkinfo") or {}).get("info_slave_kind") == "vrf"


def _filters(pref: int, names: Iterable[str]) -> dict[str, list[Instruction]]:
    """The programs with this preference that `egress_program` has made, by interface."""
    queues = {each["dev"] for each in _json("qdisc", "show") if each.get("kind") == _QDISC}
    found = {name: _programs(name, pref) for name in names if name in queues}
    return {name: programs[0] for name, programs in found.items() if programs and all(map(is_ours, programs))}


def _programs(name: str, pref: int) -> list[list[Instruction]]:
    """The programs of all filters of an interface with a preference. A filter of another kind has an empty program."""
    entries = _json("filter", "show", "dev", name, "egress", "pref", str(pref))
    return [_program(each) for each in entries if "options" in each]


def _program(entry: dict[str, Any]) -> list[Instruction]:
    lines = ((entry.get("options") or {}).get("bytecode") or {}).get("insns") or []
    return [Instruction(each["code"], each["jt"], each["jf"], each["k"]) for each in lines]


def _json(*arguments: str) -> list[dict[str, Any]]:
    command = ("tc", "-json", *arguments)
    done = run(command)
    if done.returncode != 0 and "Cannot find device" not in done.stderr:
        raise refused("the list of filters", command, done.stderr)
    try:
        return list(json.loads(done.stdout or "[]"))
    except ValueError:
        raise RulesRefused(f"'{' '.join(command)}' does not print JSON", remedy="use iproute2 5.0 or later") from None


def _replace(name: str, pref: int, path: str) -> str:
    """Attach the program in a file to an interface. Returns the reason of a failure, else an empty text."""
    queue = run(("tc", "qdisc", "add", "dev", name, _QDISC))
    if queue.returncode != 0 and not _has_queue(name):
        return str(refused(f"an egress filter on {name}", ("tc", "qdisc", "add", "dev", name, _QDISC), queue.stderr))
    if not all(map(is_ours, _programs(name, pref))):
        return f"another program has a filter with preference {pref} on {name}; choose another name with --table"
    where = ("tc", "filter", "replace", "dev", name, "egress", "pref", str(pref), "protocol", "all", "handle", "1", "bpf")
    done = run((*where, "bytecode-file", path, "direct-action", "skip_hw"))
    return "" if done.returncode == 0 else str(refused(f"an egress filter on {name}", where, done.stderr))


def _has_queue(name: str) -> bool:
    return any(each.get("kind") == _QDISC for each in _json("qdisc", "show", "dev", name))


@contextlib.contextmanager
def _file(text: str) -> Iterator[str]:
    """A file in memory for `tc`: a program is longer than an argument may be."""
    with open(os.memfd_create("stcp-proxy-filter"), "w") as file:
        file.write(text)
        file.flush()
        yield f"/proc/{os.getpid()}/fd/{file.fileno()}"


def _server_ports() -> list[int]:
    """Ports of this host's servers, without the ports that the kernel gives to clients."""
    try:
        first, last = map(int, _CLIENT_PORTS.read_text().split())
        return [port for port in server_ports(tcp_sockets()) if not first <= port <= last]
    except (OSError, ValueError):
        return []
