"""The report of a process, which is the source of `/status` and the metrics, and the merging of several reports.

A count goes one way: `counters.Counts` of a tunnel, the report of its process, the merged report, and from there `/status` and
`/metrics`. The declarations of the fields define how they merge.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Annotated

from stcp_proxy.admin import certificate_removal
from stcp_proxy.admin.certificate_schema import AuthorityUse, most_used
from stcp_proxy.admin.key_removal import judge
from stcp_proxy.admin.process_schema import Worker, state_of
from stcp_proxy.admin.snapshot_request import MAX_REFUSALS, SnapshotRequest
from stcp_proxy.admin.status_schema import Overview, Status, TunnelState, TunnelStatus
from stcp_proxy.admin.verdict_schema import Level, Verdict
from stcp_proxy.counters import Counts, Durations
from stcp_proxy.counters.merging import NESTED, SUM, SUM_EACH, by, merge, nested_as


@dataclass(slots=True, kw_only=True)
class TunnelReport(TunnelState):
    """One tunnel in a report.

    Attributes:
        counts: everything counted since the start, for ended connections.
        open_to_wire, open_to_plain: application bytes of the open connections.
        carried: open connections that an engine carries, by peer and engine.
    """

    counts: Annotated[Counts, nested_as(Counts)]
    open_to_wire: Annotated[int, SUM]
    open_to_plain: Annotated[int, SUM]
    carried: Annotated[dict[tuple[str, str], int], SUM_EACH]


@dataclass(slots=True, kw_only=True)
class Report(Overview):
    """The report of one process, or the merged report of all processes.

    Attributes:
        tunnels: in the order of the configuration.
        loop_delay: the measured delays of the event loop.
        authority_uses: which authority vouched for which peer.
        forgotten_uses: peers that are no longer among these, by the key of their authority.
    """

    tunnels: Annotated[list[TunnelReport], by(lambda tunnel: tunnel.name)]
    loop_delay: Annotated[Durations, NESTED] = field(default_factory=Durations)
    authority_uses: Annotated[list[AuthorityUse], by(lambda use: (use.key_id, use.peer))] = field(default_factory=list)
    forgotten_uses: Annotated[dict[str, int], SUM_EACH] = field(default_factory=dict)


def merge_reports(reports: Sequence[Report], wanted: SnapshotRequest, *, silent: Iterable[int] = ()) -> Report:
    """Merge the reports of several worker processes into one.

    Args:
        reports: at least one report.
        wanted: the connections to list.
        silent: numbers of the worker processes that did not answer.
    """
    merged = merge(reports)
    process, connections = merged.process, merged.connections
    process.workers = sorted([*process.workers, *map(_silent, silent)], key=lambda worker: worker.number)
    process.state = state_of({worker.state for worker in process.workers})
    if wanted.order == "newest":
        connections.shown.sort(key=lambda connection: connection.age)
    else:
        connections.shown.sort(key=lambda connection: connection.bytes_to_wire + connection.bytes_to_plain, reverse=True)
    del connections.shown[wanted.count :]
    merged.keys = judge(merged.keys)
    merged.certificates = certificate_removal.judge(
        merged.certificates, merged.authority_uses, merged.forgotten_uses, merged.time
    )
    merged.peer_certificates, rest = most_used(merged.peer_certificates)
    merged.connections_of_others += rest
    merged.refusals = sorted(merged.refusals, key=lambda refusal: refusal.time, reverse=True)[:MAX_REFUSALS]
    return merged


def _silent(number: int) -> Worker:
    return Worker(number=number, pid=0, state="silent", open=0, descriptors=0, descriptor_limit=0, memory=0)


def status_of(report: Report, verdict: Verdict | None = None, states: Mapping[str, tuple[Level, str]] | None = None) -> Status:
    """The content of `/status`.

    Args:
        report: the merged report of all worker processes.
        verdict: the verdict about it.
        states: the states of the tunnels that have a fault, by name: how bad it is, and a word or two for it.
    """
    common = {each.name: getattr(report, each.name) for each in fields(Overview)}
    known = states or {}
    plain: tuple[Level, str] = ("ok", "serving") if report.process.state == "ready" else ("warn", report.process.state)
    tunnels = [_tunnel_status(tunnel, *known.get(tunnel.name, plain)) for tunnel in report.tunnels]
    return Status(**common, tunnels=tunnels, verdict=verdict or Verdict())


def _tunnel_status(tunnel: TunnelReport, level: Level, state: str) -> TunnelStatus:
    common = {each.name: getattr(tunnel, each.name) for each in fields(TunnelState)}
    counts = tunnel.counts
    return TunnelStatus(
        **common,
        accepted=counts.accepted,
        ended=counts.ended_by_reason,
        refused=counts.refused_by_reason,
        audited=dict(counts.audited),
        legs=dict(counts.legs),
        bytes_to_wire=counts.bytes_to_wire + tunnel.open_to_wire,
        bytes_to_plain=counts.bytes_to_plain + tunnel.open_to_plain,
        state=state,
        level=level,
    )
