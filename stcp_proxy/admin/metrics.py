"""A report in the form that Prometheus reads.

Every metric stands in one table, with its help text and labels. Labels are bounded by the configuration: peers have their
configured names, and whoever is none of them is one `(unknown)`; a client's address is never a label.
"""

from __future__ import annotations

import platform
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final, Literal, cast

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import choose_encoder

from stcp_proxy.admin.report import Report, Sample
from stcp_proxy.admin.status_schema import KeyStatus, Status, TunnelStatus
from stcp_proxy.counters import BOUNDS

_BUCKETS: Final = (*(str(bound) for bound in BOUNDS), "+Inf")
_SHORT_KEY: Final = len("stcp-pub:") + 12


@dataclass(frozen=True, slots=True)
class Definition:
    """A metric.

    Attributes:
        kind: what it is to Prometheus.
        words: its help text.
        labels: names of its labels.
    """

    kind: Literal["counter", "gauge", "histogram"]
    words: str
    labels: tuple[str, ...] = ()


METRICS: Final[dict[str, Definition]] = {
    "stcp_build_info": Definition("gauge", "Always 1; the labels say what runs.", ("version", "python")),
    "stcp_ready": Definition("gauge", "1 when every worker serves, 0 while it starts or drains."),
    "stcp_workers": Definition("gauge", "Processes that share the load and answer."),
    "stcp_tunnel_listening": Definition("gauge", "1 when the tunnel accepts connections.", ("tunnel", "mode")),
    "stcp_connections_accepted_total": Definition("counter", "Connections accepted.", ("tunnel",)),
    "stcp_connections_opening": Definition("gauge", "Connections accepted and not yet relayed or refused.", ("tunnel",)),
    "stcp_connections_open": Definition("gauge", "Connections that are relayed now.", ("tunnel", "peer", "engine")),
    "stcp_connections_closed_total": Definition(
        "counter", "Relayed connections that have ended, by the reason of their end.", ("tunnel", "peer", "engine", "reason")
    ),
    "stcp_connections_refused_total": Definition(
        "counter", "Connections that did not come to be relayed, by the reason.", ("tunnel", "peer", "reason")
    ),
    "stcp_connections_limit": Definition("gauge", "The tunnel's max_connections.", ("tunnel",)),
    "stcp_bytes_total": Definition(
        "counter", "Application bytes carried, those of open connections among them.", ("tunnel", "direction")
    ),
    "stcp_handshakes_total": Definition("counter", "Handshakes by result, ok or the reason.", ("tunnel", "result")),
    "stcp_handshake_duration_seconds": Definition("histogram", "Time that completed handshakes took.", ("tunnel",)),
    "stcp_dials_total": Definition("counter", "Attempts to reach a target or peer, ok or the reason.", ("tunnel", "result")),
    "stcp_dial_duration_seconds": Definition("histogram", "Time that it took to reach a target or peer.", ("tunnel",)),
    "stcp_targets": Definition("gauge", "Addresses that the tunnel dials, by how they fared last.", ("tunnel", "health")),
    "stcp_limit_hits_total": Definition("counter", "Times that a limit made newcomers wait.", ("tunnel", "limit")),
    "stcp_key_connections": Definition("gauge", "Open connections that a key has opened.", ("key", "name", "own")),
    "stcp_key_handshakes_total": Definition("counter", "Handshakes in which a key has proved itself.", ("key", "name", "own")),
    "stcp_key_last_use_timestamp_seconds": Definition(
        "gauge", "When a key last proved itself; 0 is not since the start.", ("key", "name", "own")
    ),
    "stcp_reloads_total": Definition("counter", "Readings of the configuration, applied or failed.", ("result",)),
    "stcp_config_last_reload_successful": Definition("gauge", "0 when the last reading of the configuration failed."),
    "stcp_config_last_reload_timestamp_seconds": Definition("gauge", "When the configuration was last read, or the start."),
    "stcp_event_loop_lag_seconds": Definition(
        "histogram", "How late the event loop is; measured four times a second while metrics are asked for."
    ),
    "process_cpu_seconds_total": Definition("counter", "Processor time used.", ("worker",)),
    "process_start_time_seconds": Definition("gauge", "When the process started.", ("worker",)),
    "process_resident_memory_bytes": Definition("gauge", "Resident memory.", ("worker",)),
    "process_open_fds": Definition("gauge", "File descriptors in use.", ("worker",)),
    "process_max_fds": Definition("gauge", "File descriptors that the process may have.", ("worker",)),
}


def expose(report: Report, accept: str) -> tuple[bytes, str]:
    """The metrics as text.

    Args:
        report: of all workers.
        accept: the request's Accept header; Prometheus' own formats are told apart by it.

    Returns:
        Body and content type.
    """
    try:
        encode, content_type = choose_encoder(accept)
    except (TypeError, ValueError):  # a version that is none
        encode, content_type = choose_encoder("")
    return encode(cast("CollectorRegistry", _Families(report))), content_type


class _Families:
    """The metric families of a report, as an encoder asks a registry for them."""

    def __init__(self, report: Report) -> None:
        self._report = report

    def collect(self) -> Iterator[Metric]:
        samples: dict[str, list[Sample]] = {name: [] for name in METRICS}
        for sample in (*of_status(self._report.status), *self._report.samples):
            samples[sample.name].append(sample)
        for name, definition in METRICS.items():
            yield _family(name, definition, samples[name])


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


def of_status(status: Status) -> Iterator[Sample]:
    """The samples that follow from a status."""
    process = status.process
    yield Sample(name="stcp_build_info", labels=(process.version, platform.python_version()), value=1)
    yield Sample(name="stcp_ready", value=process.state == "ready")
    yield Sample(name="stcp_workers", value=sum(worker.state != "silent" for worker in process.workers))
    for worker in process.workers:
        labels = (str(worker.number),)
        yield Sample(name="process_resident_memory_bytes", labels=labels, value=worker.memory)
        yield Sample(name="process_open_fds", labels=labels, value=worker.descriptors)
        yield Sample(name="process_max_fds", labels=labels, value=worker.descriptor_limit)
    for tunnel in status.tunnels:
        yield from _of_tunnel(tunnel)
    for key in status.keys:
        yield from _of_key(key)
    reloads = status.reloads
    yield Sample(name="stcp_reloads_total", labels=("applied",), value=reloads.applied)
    yield Sample(name="stcp_reloads_total", labels=("failed",), value=reloads.failed)
    yield Sample(name="stcp_config_last_reload_successful", value=reloads.last is None or reloads.last.ok)
    last = process.started if reloads.last is None else reloads.last.time
    yield Sample(name="stcp_config_last_reload_timestamp_seconds", value=last)


def _of_tunnel(tunnel: TunnelStatus) -> Iterator[Sample]:
    name = (tunnel.name,)
    yield Sample(name="stcp_tunnel_listening", labels=(tunnel.name, tunnel.mode), value=bool(tunnel.listening))
    yield Sample(name="stcp_connections_accepted_total", labels=name, value=tunnel.accepted)
    yield Sample(name="stcp_connections_opening", labels=name, value=tunnel.open - tunnel.relayed)
    yield Sample(name="stcp_connections_limit", labels=name, value=tunnel.max_connections)
    yield Sample(name="stcp_bytes_total", labels=(tunnel.name, "to_wire"), value=tunnel.bytes_to_wire)
    yield Sample(name="stcp_bytes_total", labels=(tunnel.name, "to_plain"), value=tunnel.bytes_to_plain)
    for health in ("up", "down", "unknown"):
        count = sum(target.health == health for target in tunnel.targets)
        yield Sample(name="stcp_targets", labels=(tunnel.name, health), value=count)


def _of_key(key: KeyStatus) -> Iterator[Sample]:
    labels = (key.key[:_SHORT_KEY], key.name, "yes" if key.own else "no")
    yield Sample(name="stcp_key_connections", labels=labels, value=key.connections)
    yield Sample(name="stcp_key_handshakes_total", labels=labels, value=key.total)
    yield Sample(name="stcp_key_last_use_timestamp_seconds", labels=labels, value=key.last_use or 0)
