"""What a process tells: its status, and the samples that metrics are made of; and how several processes' are put together.

Workers send theirs to each other as JSON. Everything is either counted, and added up, or known by one of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Final

from pydantic import TypeAdapter

from stcp_proxy.admin.key_removal import judge
from stcp_proxy.admin.snapshot import MAX_REFUSALS, Wanted
from stcp_proxy.admin.status_schema import (
    Connections,
    EngineChoice,
    KeyStatus,
    Process,
    RefusalStatus,
    Reloads,
    State,
    Status,
    Target,
    TunnelStatus,
    Worker,
)


@dataclass(slots=True, kw_only=True)
class Sample:
    """One line of a metric, or one histogram.

    Attributes:
        name: of the metric.
        labels: values of its labels, in their order.
        value: what is counted; the sum of a histogram.
        buckets: of a histogram: observations in each bucket, not cumulative.
    """

    name: str
    labels: tuple[str, ...] = ()
    value: float = 0.0
    buckets: list[int] | None = None


@dataclass(slots=True, kw_only=True)
class Report:
    """What one process tells, or all together.

    Attributes:
        status: what it is doing.
        samples: what it has counted beyond that.
    """

    status: Status
    samples: list[Sample]


REPORT: Final = TypeAdapter(Report)
STATUS: Final = TypeAdapter(Status)


def merge(reports: Sequence[Report], wanted: Wanted, *, silent: Iterable[int] = ()) -> Report:
    """One report of what several processes tell.

    Args:
        reports: at least one.
        wanted: what of the connections is to be listed.
        silent: numbers of the workers that did not answer.
    """
    statuses = [report.status for report in reports]
    lost = [_silent(number) for number in silent]
    status = Status(
        time=max(status.time for status in statuses),
        process=_process([status.process for status in statuses], lost),
        tunnels=_tunnels(statuses),
        connections=_connections([status.connections for status in statuses], wanted),
        keys=_keys(statuses),
        refusals=_refusals(statuses),
        reloads=_reloads([status.reloads for status in statuses]),
    )
    return Report(status=status, samples=_samples(reports))


def _silent(number: int) -> Worker:
    return Worker(number=number, pid=0, state="silent", open=0, descriptors=0, descriptor_limit=0, memory=0)


def _process(processes: Sequence[Process], lost: Sequence[Worker]) -> Process:
    workers = sorted([*(worker for process in processes for worker in process.workers), *lost], key=lambda worker: worker.number)
    states = {worker.state for worker in workers}
    state: State = "draining" if "draining" in states else "ready" if states == {"ready"} else "starting"
    engines: dict[tuple[str, str, str], EngineChoice] = {}
    for process in processes:
        for engine in process.engines:
            engines[engine.choice, engine.engine, engine.why] = engine
    return replace(
        processes[0],
        started=min(process.started for process in processes),
        uptime=max(process.uptime for process in processes),
        state=state,
        workers=workers,
        engines=list(engines.values()),
    )


def _tunnels(statuses: Sequence[Status]) -> list[TunnelStatus]:
    found: dict[str, list[TunnelStatus]] = {}
    for status in statuses:
        for tunnel in status.tunnels:
            found.setdefault(tunnel.name, []).append(tunnel)
    return [_tunnel(parts) for parts in found.values()]


def _tunnel(parts: Sequence[TunnelStatus]) -> TunnelStatus:
    if len(parts) == 1:
        return parts[0]
    targets: dict[tuple[str, str, str], Target] = {}
    for part in parts:
        for target in part.targets:
            place = (target.service, target.route, target.address)
            before = targets.setdefault(place, replace(target, live=0))
            known = before if _RANK[before.health] >= _RANK[target.health] else target
            targets[place] = replace(known, live=before.live + target.live)
    return replace(
        parts[0],
        listening=list(dict.fromkeys(address for part in parts for address in part.listening)),
        targets=list(targets.values()),
        open=sum(part.open for part in parts),
        proving=sum(part.proving for part in parts),
        relayed=sum(part.relayed for part in parts),
        max_connections=sum(part.max_connections for part in parts),
        max_handshakes=sum(part.max_handshakes for part in parts),
        accepted=sum(part.accepted for part in parts),
        ended=_add(part.ended for part in parts),
        refused=_add(part.refused for part in parts),
        bytes_to_wire=sum(part.bytes_to_wire for part in parts),
        bytes_to_plain=sum(part.bytes_to_plain for part in parts),
    )


_RANK: Final = {"unknown": 0, "down": 1, "up": 2}
"""Whose word counts where workers differ: who has reached a target knows that it is there."""


def _add(counts: Iterable[dict[str, int]]) -> dict[str, int]:
    found: dict[str, int] = {}
    for count in counts:
        for name, value in count.items():
            found[name] = found.get(name, 0) + value
    return found


def _connections(parts: Sequence[Connections], wanted: Wanted) -> Connections:
    shown = [connection for part in parts for connection in part.shown]
    if wanted.order == "newest":
        shown.sort(key=lambda connection: connection.age)
    else:
        shown.sort(key=lambda connection: connection.bytes_to_wire + connection.bytes_to_plain, reverse=True)
    return Connections(total=sum(part.total for part in parts), order=wanted.order, shown=shown[: wanted.count])


def _keys(statuses: Sequence[Status]) -> list[KeyStatus]:
    found: dict[tuple[bool, str], KeyStatus] = {}
    for status in statuses:
        for key in status.keys:
            before = found.get((key.own, key.key))
            if before is not None:
                last = max((use for use in (before.last_use, key.last_use) if use is not None), default=None)
                uses = {name: max(before.uses.get(name, 0.0), at) for name, at in key.uses.items()}
                key = replace(
                    before,
                    connections=before.connections + key.connections,
                    total=before.total + key.total,
                    last_use=last,
                    uses=before.uses | uses,
                )
            found[key.own, key.key] = key
    return judge(list(found.values()))


def _refusals(statuses: Sequence[Status]) -> list[RefusalStatus]:
    found: dict[tuple[str, str, str, str], RefusalStatus] = {}
    for refusal in sorted((each for status in statuses for each in status.refusals), key=lambda each: each.time):
        kind = (refusal.tunnel, refusal.client.rpartition(":")[0], refusal.reason, refusal.why)
        before = found.pop(kind, None)
        found[kind] = refusal if before is None else replace(refusal, count=refusal.count + before.count)
    return list(reversed(found.values()))[:MAX_REFUSALS]


def _reloads(parts: Sequence[Reloads]) -> Reloads:
    """Every worker has done the same ones."""
    latest = max(parts, key=lambda part: part.last.time if part.last is not None else 0.0)
    return replace(latest, applied=max(part.applied for part in parts), failed=max(part.failed for part in parts))


def _samples(reports: Sequence[Report]) -> list[Sample]:
    found: dict[tuple[str, tuple[str, ...]], Sample] = {}
    for report in reports:
        for sample in report.samples:
            before = found.get((sample.name, sample.labels))
            if before is None:
                found[sample.name, sample.labels] = sample
                continue
            buckets = None
            if sample.buckets is not None and before.buckets is not None:
                buckets = [a + b for a, b in zip(before.buckets, sample.buckets, strict=True)]
            found[sample.name, sample.labels] = replace(before, value=before.value + sample.value, buckets=buckets)
    return list(found.values())
