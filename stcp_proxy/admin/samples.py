"""What a process has counted beyond its status: the samples of its metrics."""

from __future__ import annotations

import collections
import time
from collections.abc import Iterator

from stcp_proxy.admin.interface import Host, Tunnel
from stcp_proxy.admin.report import Sample
from stcp_proxy.counters import UNKNOWN, Durations, Steps


def measure(host: Host, lag: Durations) -> list[Sample]:
    """All samples of a process.

    Args:
        host: the process.
        lag: what was measured of its event loop.
    """
    worker = (str(host.worker),)
    return [
        Sample(name="process_cpu_seconds_total", labels=worker, value=time.process_time()),
        Sample(name="process_start_time_seconds", labels=worker, value=host.started),
        _histogram("stcp_event_loop_lag_seconds", (), lag),
        *(sample for tunnel in host.tunnels for sample in _tunnel(tunnel)),
    ]


def _tunnel(tunnel: Tunnel) -> Iterator[Sample]:
    name, ledger = tunnel.plan.name, tunnel.ledger
    live = collections.Counter((link.peer or UNKNOWN, link.relay.engine) for link in tunnel.connections if link.relay is not None)
    for (peer, engine), count in live.items():
        yield Sample(name="stcp_connections_open", labels=(name, peer, engine), value=count)
    for (peer, engine, reason), count in ledger.ended.items():
        yield Sample(name="stcp_connections_closed_total", labels=(name, peer, engine, reason.value), value=count)
        if (peer, engine) not in live:  # a series that has been there stays, at nought
            live[peer, engine] = 0
            yield Sample(name="stcp_connections_open", labels=(name, peer, engine))
    for (peer, label), count in ledger.refused.items():
        yield Sample(name="stcp_connections_refused_total", labels=(name, peer, label), value=count)
    for limit, count in ledger.limits.items():
        yield Sample(name="stcp_limit_hits_total", labels=(name, limit), value=count)
    yield from _steps("stcp_handshake", name, ledger.handshakes)
    yield from _steps("stcp_dial", name, ledger.dials)


def _steps(what: str, tunnel: str, steps: Steps) -> Iterator[Sample]:
    for result, count in steps.results.items():
        yield Sample(name=f"{what}s_total", labels=(tunnel, result), value=count)
    yield _histogram(f"{what}_duration_seconds", (tunnel,), steps.durations)


def _histogram(name: str, labels: tuple[str, ...], durations: Durations) -> Sample:
    return Sample(name=name, labels=labels, value=durations.seconds, buckets=list(durations.buckets))
