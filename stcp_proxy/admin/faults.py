"""The faults of a proxy, found in its report: each fault once, with the remedy of its own cause.

A target that is down is one fault, however many tunnels lead to it and however many connections it has refused. A refusal is a
fault while it is recent and no later connection from the same host was served. This module keeps nothing: `fault_log` knows when
a fault began and ended.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final

from stcp_proxy.admin.cooperate import Steps
from stcp_proxy.admin.process_schema import Worker
from stcp_proxy.admin.report import Report, TunnelReport
from stcp_proxy.admin.status_schema import RefusalStatus, Target
from stcp_proxy.admin.verdict_schema import Fault
from stcp_proxy.config.audit import Audit
from stcp_proxy.config.audited_rules import AuditedRule

RECENT: Final = 300.0
"""Seconds after which a refusal that nobody repeats is no fault any more."""
SETTLED: Final = 30.0
"""Seconds without a refusal after which a served connection ends the fault. A host that is refused now and then keeps it."""
OVER: Final = 600.0
"""Seconds for which a fault that is over is still listed."""
NEARLY: Final = 0.9
_STRANGER: Final = "do nothing if it is none of your peers"
_NAMES: Final = 3
"""Names that a sentence lists before it counts the others."""


def find_faults(report: Report) -> list[Fault]:
    """The faults that a report shows. Refusals that were recently over have `until`.

    Args:
        report: the merged report of all worker processes.
    """
    return [fault for fault in _search(report) if fault is not None]


async def find_faults_in_steps(report: Report, steps: Steps) -> list[Fault]:
    """`find_faults`, with pauses: the connections of a proxy with many tunnels go on meanwhile."""
    found = []
    for fault in _search(report):
        if fault is not None:
            found.append(fault)
        await steps.pause()
    return found


def _search(report: Report) -> Iterator[Fault | None]:
    """All faults; None after each tunnel, because most tunnels have none."""
    yield from _of_process(report)
    yield from _of_certificates(report)
    yield from _of_tunnels(report.tunnels, report.time, serves=report.process.state == "ready")
    yield from _of_refusals(report)


def _of_process(report: Report) -> Iterator[Fault]:
    process, last = report.process, report.reloads.last
    if process.state == "draining":
        many = _count(report.connections.total, "connection")
        yield Fault(
            key="draining", kind="draining", level="warn", what=[f"No new connection is accepted. Open: {many}"],
            remedy="wait, or send a second SIGTERM to end it at once",
        )  # fmt: skip
    elif process.state == "starting" and all(worker.pid for worker in process.workers):
        yield Fault(
            key="starting", kind="starting", level="warn", what=["The proxy starts and does not serve yet"],
            remedy="wait; the log of the proxy says what it waits for",
        )  # fmt: skip
    for worker in process.workers:
        yield from _of_worker(worker)
    if last is not None and not last.ok:
        yield Fault(
            key="reload", kind="reload", level="warn", since=last.time,
            what=["The last reload was refused, and the configuration before it stays in force: ", last.what],
            remedy="correct the file (`stcp-proxy check CONFIG` names every mistake) and reload again",
        )  # fmt: skip


def _of_certificates(report: Report) -> Iterator[Fault]:
    for each in report.certificates:
        if each.overdue:
            subject = "The certificate of this side, " if each.kind == "certificate" else f"The {each.kind} "
            name = each.subject if each.kind == "certificate" else each.name
            expired = each.not_after is not None and report.time > each.not_after and each.binds
            yield Fault(
                key="\n".join(("certificate", each.kind, each.name, each.serial)), kind="certificate",
                level="bad" if expired else "warn", what=[subject, name, f": {each.overdue}"], remedy=each.remedy,
            )  # fmt: skip


def _of_worker(worker: Worker) -> Iterator[Fault]:
    if worker.state == "silent":
        yield Fault(
            key=f"silent\n{worker.number}", kind="silent_worker", level="bad",
            what=[f"Worker process {worker.number} does not answer. Its connections and counts are missing here"],
            remedy="look at its processor time and its log; if it stays silent, restart the proxy",
        )  # fmt: skip
    elif worker.descriptors >= NEARLY * worker.descriptor_limit:
        yield Fault(
            key=f"descriptors\n{worker.number}", kind="descriptors", level="warn",
            what=[
                f"Process {worker.pid} uses {worker.descriptors:,} of {worker.descriptor_limit:,} file descriptors. "
                "A connection takes two"
            ],
            remedy="raise the limit of open files (LimitNOFILE, ulimit -n), or lower `max_connections`",
        )  # fmt: skip


def _of_tunnels(tunnels: Iterable[TunnelReport], now: float, *, serves: bool) -> Iterator[Fault | None]:
    down: dict[tuple[str, str], _Down] = {}
    for tunnel in tunnels:
        yield from _of_tunnel(tunnel, serves=serves)
        yield from _of_audit(tunnel, now)
        _add_down(down, tunnel)
        yield None
    yield from _of_targets(down.values())


def _of_tunnel(tunnel: TunnelReport, *, serves: bool) -> Iterator[Fault]:
    name = tunnel.name
    if serves and not tunnel.listening and not tunnel.lost:
        yield _tunnel_fault(
            name, "not_listening", "bad", ["Tunnel ", name, " does not listen"], "find the reason in the log of the proxy"
        )
    if tunnel.lost:
        what = ["Tunnel ", name, ": its socket file ", ", ".join(tunnel.lost), " was removed or replaced"]
        yield _tunnel_fault(name, "socket_lost", "bad", what, "reload the proxy: `stcp-proxy reload CONFIG` binds it again")
    if tunnel.rules in ("missing", "outdated"):
        state = (
            "missing. Connections leave unencrypted, or the egress filter drops them"
            if tunnel.rules == "missing"
            else "not those of the file. Connections leave unencrypted"
        )
        what = ["Tunnel ", name, f": the interception rules of this host are {state}"]
        yield _tunnel_fault(name, "rules", "bad", what, "run `stcp-proxy intercept CONFIG --apply` as root on this host")
    yield from _of_egress_filter(tunnel)
    if tunnel.open >= tunnel.max_connections:
        what = ["Tunnel ", name, f" is full: {tunnel.open:,} connections are open, and new ones wait"]
        remedy = "raise `max_connections` if this load is expected; the list of connections shows whose they are"
        yield _tunnel_fault(name, "full", "bad", what, remedy)
    elif tunnel.open >= NEARLY * tunnel.max_connections:
        what = ["Tunnel ", name, f" is nearly full: {tunnel.open:,} of {tunnel.max_connections:,} connections are open"]
        yield _tunnel_fault(name, "nearly_full", "warn", what, "raise `max_connections` if this load is expected")
    if tunnel.proving >= tunnel.max_handshakes:
        what = ["Tunnel ", name, f": {tunnel.proving:,} connections are in the handshake, as many as `max_handshakes` allows"]
        yield _tunnel_fault(
            name, "handshakes", "warn", what, "raise `max_handshakes` if they are peers; let a firewall keep strangers away"
        )


def _of_egress_filter(tunnel: TunnelReport) -> Iterator[Fault]:
    """The second guard is missing: nothing leaves unencrypted as long as the rules are there."""
    if tunnel.egress_filter not in ("missing", "hidden"):
        return
    if tunnel.egress_filter == "missing":
        state, effect = ": the egress filter is missing on ", "Connections leave unencrypted there"
        remedy = "run `stcp-proxy intercept CONFIG --apply` as root on this host, or `--watch` as a service"
    else:
        state, effect = (
            ": the filter of another program comes before the egress filter on ",
            "It may let connections leave unencrypted",
        )
        remedy = "look at it with `tc filter show dev INTERFACE egress`, and move it behind the egress filter (a larger `pref`)"
    what = ["Tunnel ", tunnel.name, state, _listed(tunnel.egress_interfaces), f". {effect} when the rules are deleted"]
    yield _tunnel_fault(tunnel.name, "egress_filter", "bad", what, remedy)


def _of_audit(tunnel: TunnelReport, now: float) -> Iterator[Fault]:
    if tunnel.audit_until is None:
        return
    rule = AuditedRule(tunnel.name, Audit(tunnel.audit_until))
    what, why, remedy = rule.warning(now)
    so_far = f". Admitted so far: {_count(sum(tunnel.counts.audited.values()), 'connection')}"
    yield _tunnel_fault(tunnel.name, "audit", "warn", ["Tunnel ", tunnel.name, f": the {what}, {why}{so_far}"], remedy)


def _tunnel_fault(tunnel: str, kind: str, level: str, what: list[str], remedy: str) -> Fault:
    return Fault(key=f"{kind}\n{tunnel}", kind=kind, level=level, what=what, remedy=remedy, tunnels=[tunnel])  # type: ignore[arg-type]


# -- targets ------------------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Down:
    """An unhealthy address, with everything that leads to it.

    Attributes:
        target: its state in the first of the tunnels.
        since: when it failed first, in any of them.
        ways: for each way that leads to it: the tunnel, the name of the way for a sentence, its unhealthy targets, and all its
            targets.
    """

    target: Target
    since: float | None = None
    ways: list[tuple[str, str, int, int]] = field(default_factory=list)


def _add_down(down: dict[tuple[str, str], _Down], tunnel: TunnelReport) -> None:
    """Add the unhealthy targets of a tunnel."""
    failing = [target for target in tunnel.targets if target.health == "down"]
    for target in failing:
        same_way = [each for each in tunnel.targets if (each.service, each.route) == (target.service, target.route)]
        entry = down.setdefault((target.address, target.remedy), _Down(target))
        entry.since = min((since for since in (entry.since, target.since) if since is not None), default=None)
        failed = sum(each.health == "down" for each in same_way)
        entry.ways.append((tunnel.name, target.service or target.route, failed, len(same_way)))


def _of_targets(down: Iterable[_Down]) -> Iterator[Fault]:
    """One fault for the addresses that the same ways lead to and that have the same remedy."""
    groups: dict[tuple[object, ...], list[_Down]] = {}
    for each in down:
        groups.setdefault((tuple(each.ways), each.target.remedy), []).append(each)
    for group in groups.values():
        yield _target_fault(group)


def _target_fault(group: list[_Down]) -> Fault:
    ways = group[0].ways
    bad = any(failed == total for _, _, failed, total in ways)
    tunnels = list(dict.fromkeys(tunnel for tunnel, *_ in ways))
    addresses = _listed([each.target.address for each in group])
    subject = _subject(ways, tunnels)
    if bad:
        words = " have no target: " if len(tunnels) > 1 else " has no target: "
    elif len(ways) > 1:
        words = " have a target that is down: "
    else:
        ((_, _, failed, total),) = ways
        words = f": {failed} of {total} targets {'are' if failed > 1 else 'is'} down: "
    whys = list(dict.fromkeys(each.target.why.replace(f"cannot reach {each.target.address}: ", "") for each in group))
    reason = [" (", _listed(whys), ")"] if any(whys) else []
    return Fault(
        key="target\n" + "\n".join(each.target.address for each in group),
        kind="no_target" if bad else "target_down",
        level="bad" if bad else "warn",
        what=[*subject, words, addresses, *reason],
        remedy=group[0].target.remedy or "see whether the program at this address runs, and whether a firewall is between",
        tunnels=tunnels,
        since=min((each.since for each in group if each.since is not None), default=None),
    )


def _subject(ways: list[tuple[str, str, int, int]], tunnels: list[str]) -> list[str]:
    """The subject of a sentence about some ways; it ends with foreign text."""
    if len(tunnels) > 1:
        return [f"{len(tunnels)} tunnels: ", _listed(tunnels)]
    names = [name for _, name, *_ in ways if name]
    return ["Tunnel ", f"{tunnels[0]} ({_listed(names)})" if names else tunnels[0]]


def _listed(names: list[str]) -> str:
    more = len(names) - _NAMES
    return ", ".join(names[:_NAMES]) + (f" and {more} more" if more > 0 else "")


# -- refusals -----------------------------------------------------------------------------------------------------------------


def _of_refusals(report: Report) -> Iterator[Fault]:
    tunnels = {tunnel.name: tunnel for tunnel in report.tunnels}
    kinds: dict[tuple[str, str, str], list[RefusalStatus]] = {}
    for refusal in report.refusals:  # the latest first
        tunnel = tunnels.get(refusal.tunnel)
        if report.time - refusal.time > RECENT or (refusal.is_target and tunnel is not None and _says_more(tunnel)):
            continue
        kinds.setdefault((refusal.tunnel, refusal.reason, refusal.key), []).append(refusal)
    for kind, found in kinds.items():
        fault = _refusal_fault("\n".join(("refused", *kind)), found, connects=_connects(tunnels.get(found[0].tunnel)))
        served = max((each.served for each in found if each.served is not None), default=None)
        if served is not None and all(each.served is not None for each in found) and report.time - found[0].time >= SETTLED:
            if fault.level == "note" or report.time - served > OVER:
                continue
            fault.until = served
        yield fault


def _says_more(tunnel: TunnelReport) -> bool:
    """Whether the state of a tunnel's targets tells about a failed target: one is down, or all were reached since."""
    healths = {target.health for target in tunnel.targets}
    return "down" in healths or healths == {"up"}


def _connects(tunnel: TunnelReport | None) -> bool:
    return tunnel is not None and tunnel.mode == "connect"


def _refusal_fault(key: str, found: list[RefusalStatus], *, connects: bool) -> Fault:
    last, count = found[0], sum(each.count for each in found)
    hosts = len({each.client.rpartition(":")[0] for each in found})
    if last.level == "note":
        who, verb = "a stranger at ", " turned away "
    elif connects:
        who, verb = "the client ", " could not serve "
    else:
        who, verb = "the peer " if last.peer else "a peer at ", " refused "
    if last.is_target and not connects:
        verb = " could not serve "
    times = f", {count:,} times" if count > 1 else ""
    where = f", from {hosts:,} hosts" if hosts > 1 else ""
    return Fault(
        key=key,
        kind="bug" if last.level == "bad" else "stranger" if last.level == "note" else "refused",
        level=last.level,
        what=["Tunnel ", last.tunnel, verb + who, last.peer if last.peer and not connects else last.client, ": ", last.why]
        + ([times + where] if times or where else []),
        remedy=last.remedy or (_STRANGER if last.level == "note" else "find the line of the connection in the log"),
        public_key=last.key,
        tunnels=[last.tunnel],
        since=min(each.first or each.time for each in found),
        last=last.time,
    )  # fmt: skip


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"
