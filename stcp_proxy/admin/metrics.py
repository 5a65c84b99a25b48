"""A report in the format of Prometheus.

Every metric is in one table, with its help text and labels. The configuration bounds the labels: a peer is labelled with its
configured name, and every unknown peer with `(unknown)`. A client's address is never a label.
"""

from __future__ import annotations

import platform
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final, Literal, cast

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import choose_encoder

from stcp_proxy.admin.certificate_schema import CertificateStatus
from stcp_proxy.admin.cooperate import Steps
from stcp_proxy.admin.report import Report, TunnelReport
from stcp_proxy.admin.status_schema import KeyStatus
from stcp_proxy.counters import BOUNDS, Durations
from stcp_proxy.counters import Steps as StepCounts

_BUCKETS: Final = (*(str(bound) for bound in BOUNDS), "+Inf")
_SHORT_KEY: Final = len("stcp-pub:") + 12
_CHUNK: Final = 100
"""The number of samples that are encoded in one step."""
_EOF: Final = b"# EOF\n"
"""The last line of an answer in the OpenMetrics format."""


@dataclass(frozen=True, slots=True)
class Definition:
    """The declaration of a metric.

    Attributes:
        kind: its type in Prometheus.
        words: its help text.
        labels: the names of its labels.
    """

    kind: Literal["counter", "gauge", "histogram"]
    words: str
    labels: tuple[str, ...] = ()


METRICS: Final[dict[str, Definition]] = {
    "stcp_build_info": Definition(
        "gauge", "Always 1; the labels have the versions of the program and of Python.", ("version", "python")
    ),
    "stcp_ready": Definition("gauge", "1 when every worker process serves, 0 while one starts or drains."),
    "stcp_workers": Definition("gauge", "Worker processes that answer."),
    "stcp_interception_rules_current": Definition(
        "gauge",
        "1 when the rules of interception match the file, 0 when they are missing or outdated.",
        ("tunnel",),
    ),
    "stcp_egress_filter_attached": Definition(
        "gauge",
        "1 when every interface has the egress filter, 0 when one lacks it or another program's filter comes first.",
        ("tunnel",),
    ),
    "stcp_tunnel_listening": Definition("gauge", "1 when the tunnel accepts connections.", ("tunnel", "mode")),
    "stcp_connections_accepted_total": Definition("counter", "Connections accepted.", ("tunnel",)),
    "stcp_connections_opening": Definition("gauge", "Connections accepted and not yet relayed or refused.", ("tunnel",)),
    "stcp_connections_open": Definition("gauge", "Connections that are relayed now.", ("tunnel", "peer", "engine")),
    "stcp_connections_closed_total": Definition(
        "counter", "Relayed connections that have ended, by reason.", ("tunnel", "peer", "engine", "reason")
    ),
    "stcp_connections_refused_total": Definition(
        "counter", "Connections that were not relayed, by reason.", ("tunnel", "peer", "reason")
    ),
    "stcp_audited_connections_total": Definition(
        "counter",
        "Connections that audit mode admitted, by the reason of the refusal that it replaced.",
        ("tunnel", "reason"),
    ),
    "stcp_health_checks_total": Definition(
        "counter", "Connections of health checks: closed before their first byte, or after the handshake.", ("tunnel", "reason")
    ),
    "stcp_connections_opened_total": Definition(
        "counter", "Connections opened, by wire leg: new, or kept from an earlier connection.", ("tunnel", "leg")
    ),
    "stcp_wire_legs_idle": Definition("gauge", "Wire legs kept for the next connection.", ("tunnel",)),
    "stcp_connections_limit": Definition("gauge", "The tunnel's max_connections.", ("tunnel",)),
    "stcp_bytes_total": Definition(
        "counter", "Application bytes carried, including those of open connections.", ("tunnel", "direction")
    ),
    "stcp_handshakes_total": Definition(
        "counter", "Handshakes by result: ok, or the reason of the failure.", ("tunnel", "result")
    ),
    "stcp_handshake_duration_seconds": Definition("histogram", "Duration of completed handshakes.", ("tunnel",)),
    "stcp_dials_total": Definition(
        "counter", "Attempts to reach a target or peer by result: ok, or the reason of the failure.", ("tunnel", "result")
    ),
    "stcp_dial_duration_seconds": Definition(
        "histogram", "Duration of successful attempts to reach a target or peer.", ("tunnel",)
    ),
    "stcp_targets": Definition(
        "gauge", "Addresses that the tunnel dials, by the result of the last attempt or health check.", ("tunnel", "health")
    ),
    "stcp_limit_hits_total": Definition(
        "counter", "Times that a limit delayed or refused a new connection.", ("tunnel", "limit")
    ),
    "stcp_spans_total": Definition(
        "counter",
        "Spans of connections by result: exported; failed, where the collector did not take them; dropped, where too many came.",
        ("result",),
    ),
    "stcp_key_connections": Definition("gauge", "Open connections that use a key.", ("key", "name", "own")),
    "stcp_key_handshakes_total": Definition("counter", "Successful handshakes with a key.", ("key", "name", "own")),
    "stcp_key_last_use_timestamp_seconds": Definition(
        "gauge", "When a handshake last used a key; 0 means not since the start.", ("key", "name", "own")
    ),
    "stcp_certificate_not_after_timestamp_seconds": Definition(
        "gauge",
        "When a certificate ends: this side's own, an authority's, or the next update of a list.",
        ("kind", "name", "serial"),
    ),
    "stcp_certificate_not_before_timestamp_seconds": Definition(
        "gauge", "When the validity of a certificate began.", ("kind", "name", "serial")
    ),
    "stcp_reloads_total": Definition("counter", "Reloads of the configuration by result: applied or failed.", ("result",)),
    "stcp_config_last_reload_successful": Definition("gauge", "0 when the last reload of the configuration failed, else 1."),
    "stcp_config_last_reload_timestamp_seconds": Definition(
        "gauge", "When the configuration was last reloaded; before that, when the process started."
    ),
    "stcp_event_loop_lag_seconds": Definition(
        "histogram", "Delay of the event loop, measured four times a second while metrics are requested."
    ),
    "stcp_log_lines_dropped_total": Definition(
        "counter", "Log lines dropped because the reader of the log stood still.", ("worker",)
    ),
    "process_cpu_seconds_total": Definition("counter", "Processor time used.", ("worker",)),
    "process_start_time_seconds": Definition("gauge", "When the process started.", ("worker",)),
    "process_resident_memory_bytes": Definition("gauge", "Resident memory.", ("worker",)),
    "process_open_fds": Definition("gauge", "File descriptors in use.", ("worker",)),
    "process_max_fds": Definition("gauge", "File descriptors that the process may have.", ("worker",)),
}


@dataclass(slots=True)
class Sample:
    """One line of a metric, or one histogram.

    Attributes:
        name: the name of the metric.
        labels: the values of its labels, in the order of their names.
        value: the number; for a histogram, the sum of its observations.
        buckets: for a histogram, the observations in each bucket, not cumulative.
    """

    name: str
    labels: tuple[str, ...]
    value: float
    buckets: list[int] | None = None


async def expose(report: Report, accept: str) -> tuple[bytes, str]:
    """The metrics as text.

    The work is done in steps: with thousands of peers, one step would delay the connections of this process too long.

    Args:
        report: the merged report of all worker processes.
        accept: the request's Accept header; it selects the Prometheus format.

    Returns:
        Body and content type.
    """
    try:
        encode, content_type = choose_encoder(accept)
    except (TypeError, ValueError):  # the version in the header is not a number
        encode, content_type = choose_encoder("")
    steps = Steps()
    text: list[bytes] = []
    samples: dict[str, list[Sample]] = {name: [] for name in METRICS}
    for part in _parts(report):
        for sample in part:
            samples[sample.name].append(sample)
        await steps.pause()
    for name, definition in METRICS.items():
        found = samples[name]
        for start in range(0, len(found) or 1, _CHUNK):
            lines = encode(cast("CollectorRegistry", _OneFamily(_family(name, definition, found[start : start + _CHUNK]))))
            text.append(_without_comments(lines) if start else lines.removesuffix(_EOF))
            await steps.pause()
    if "openmetrics" in content_type:
        text.append(_EOF)
    return b"".join(text), content_type


class _OneFamily:
    """A metric family in the form in which an encoder requests it from a registry."""

    def __init__(self, family: Metric) -> None:
        self._family = family

    def collect(self) -> Iterator[Metric]:
        yield self._family


def _without_comments(lines: bytes) -> bytes:
    return b"".join(line for line in lines.splitlines(keepends=True) if not line.startswith(b"#"))


def _family(name: str, definition: Definition, samples: Iterable[Sample]) -> Metric:
    if definition.kind == "histogram":
        histogram = HistogramMetricFamily(name, definition.words, labels=definition.labels)
        for sample in samples:
            histogram.add_metric(sample.labels, list(_cumulative(sample.buckets or [])), sample.value)
        return histogram
    kind = CounterMetricFamily if definition.kind == "counter" else GaugeMetricFamily
    family = kind(name, definition.words, labels=definition.labels)
    for sample in samples:
        family.add_metric(sample.labels, sample.value)
    return family


def _cumulative(buckets: Iterable[int]) -> Iterator[tuple[str, float]]:
    total = 0
    for bound, count in zip(_BUCKETS, buckets, strict=True):
        total += count
        yield bound, total


def _parts(report: Report) -> Iterator[Iterator[Sample]]:
    """All samples of a report, in parts that each take little time."""
    yield _of_process(report)
    for tunnel in report.tunnels:
        yield _of_tunnel(tunnel)
        yield _of_counts(tunnel)
    yield _of_certificates(report.certificates)
    for key in report.keys:
        yield _of_key(key)


def _of_process(report: Report) -> Iterator[Sample]:
    process, reloads = report.process, report.reloads
    yield Sample("stcp_build_info", (process.version, platform.python_version()), 1)
    yield Sample("stcp_ready", (), process.state == "ready")
    yield Sample("stcp_workers", (), sum(worker.state != "silent" for worker in process.workers))
    yield _histogram("stcp_event_loop_lag_seconds", (), report.loop_delay)
    for result, number in process.spans.items():
        yield Sample("stcp_spans_total", (result,), number)
    for worker in process.workers:
        labels = (str(worker.number),)
        yield Sample("process_resident_memory_bytes", labels, worker.memory)
        yield Sample("process_open_fds", labels, worker.descriptors)
        yield Sample("process_max_fds", labels, worker.descriptor_limit)
        if worker.state != "silent":
            yield Sample("stcp_log_lines_dropped_total", labels, worker.log_lines_dropped)
            yield Sample("process_cpu_seconds_total", labels, worker.cpu)
            yield Sample("process_start_time_seconds", labels, worker.started)
    yield Sample("stcp_reloads_total", ("applied",), reloads.applied)
    yield Sample("stcp_reloads_total", ("failed",), reloads.failed)
    yield Sample("stcp_config_last_reload_successful", (), reloads.last is None or reloads.last.ok)
    last = process.started if reloads.last is None else reloads.last.time
    yield Sample("stcp_config_last_reload_timestamp_seconds", (), last)


def _of_tunnel(tunnel: TunnelReport) -> Iterator[Sample]:
    name, counts = (tunnel.name,), tunnel.counts
    if tunnel.rules in ("current", "outdated", "missing"):
        yield Sample("stcp_interception_rules_current", (tunnel.name,), tunnel.rules == "current")
    if tunnel.egress_filter in ("attached", "missing", "hidden"):
        yield Sample("stcp_egress_filter_attached", (tunnel.name,), tunnel.egress_filter == "attached")
    yield Sample("stcp_tunnel_listening", (tunnel.name, tunnel.mode), bool(tunnel.listening))
    yield Sample("stcp_connections_accepted_total", name, counts.accepted)
    yield Sample("stcp_connections_opening", name, tunnel.open - tunnel.relayed)
    yield Sample("stcp_wire_legs_idle", name, tunnel.idle_legs)
    yield Sample("stcp_connections_limit", name, tunnel.max_connections)
    yield Sample("stcp_bytes_total", (tunnel.name, "to_wire"), counts.bytes_to_wire + tunnel.open_to_wire)
    yield Sample("stcp_bytes_total", (tunnel.name, "to_plain"), counts.bytes_to_plain + tunnel.open_to_plain)
    for health in ("up", "down", "unknown"):
        yield Sample("stcp_targets", (tunnel.name, health), sum(target.health == health for target in tunnel.targets))


def _of_counts(tunnel: TunnelReport) -> Iterator[Sample]:
    name, counts = tunnel.name, tunnel.counts
    for (peer, engine), number in tunnel.carried.items():
        yield Sample("stcp_connections_open", (name, peer, engine), number)
    for labels, number in counts.ended.items():
        yield Sample("stcp_connections_closed_total", (name, *labels), number)
    for refused, number in counts.refused.items():
        yield Sample("stcp_connections_refused_total", (name, *refused), number)
    for reason, number in counts.audited.items():
        yield Sample("stcp_audited_connections_total", (name, reason), number)
    for reason, number in counts.checks.items():
        yield Sample("stcp_health_checks_total", (name, reason), number)
    for leg, number in counts.legs.items():
        yield Sample("stcp_connections_opened_total", (name, leg), number)
    for limit, number in counts.limits.items():
        yield Sample("stcp_limit_hits_total", (name, limit), number)
    yield from _of_steps("stcp_handshake", name, counts.handshakes)
    yield from _of_steps("stcp_dial", name, counts.dials)


def _of_steps(what: str, tunnel: str, steps: StepCounts) -> Iterator[Sample]:
    for result, count in steps.results.items():
        yield Sample(f"{what}s_total", (tunnel, result), count)
    if any(steps.durations.buckets):  # no empty histograms: an answer with thousands of idle tunnels stays small
        yield _histogram(f"{what}_duration_seconds", (tunnel,), steps.durations)


def _histogram(name: str, labels: tuple[str, ...], durations: Durations) -> Sample:
    return Sample(name, labels, durations.seconds, durations.buckets)


def _of_certificates(certificates: Iterable[CertificateStatus]) -> Iterator[Sample]:
    for each in certificates:
        labels = (each.kind, each.name, each.serial)
        if each.not_after is not None:
            yield Sample("stcp_certificate_not_after_timestamp_seconds", labels, each.not_after)
        yield Sample("stcp_certificate_not_before_timestamp_seconds", labels, each.not_before)


def _of_key(key: KeyStatus) -> Iterator[Sample]:
    labels = (key.key[:_SHORT_KEY], key.name, "yes" if key.own else "no")
    yield Sample("stcp_key_connections", labels, key.connections)
    yield Sample("stcp_key_handshakes_total", labels, key.total)
    yield Sample("stcp_key_last_use_timestamp_seconds", labels, key.last_use or 0)
