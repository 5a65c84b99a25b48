"""Reports for the tests of faults and of the history."""

from __future__ import annotations

from typing import Any

from stcp_proxy.admin.certificate_schema import CertificateStatus
from stcp_proxy.admin.process_schema import Process, Worker
from stcp_proxy.admin.report import Report, TunnelReport
from stcp_proxy.admin.status_schema import Connections, RefusalStatus, Target
from stcp_proxy.counters import Counts

NOW = 1_800_000_000.0


def tunnel(name: str = "redis", **fields: Any) -> TunnelReport:
    """A tunnel that works, changed by `fields`."""
    plain: dict[str, Any] = {
        "mode": "listen", "bind": ":1", "listening": ["127.0.0.1:1"], "targets": [Target(address="a:1", health="up")],
        "auth": "keys", "peers": ["app"], "engine": "python", "why_engine": "", "open": 0, "proving": 0, "relayed": 0,
        "max_connections": 100, "max_handshakes": 10, "counts": Counts(), "open_to_wire": 0, "open_to_plain": 0, "carried": {},
    }  # fmt: skip
    return TunnelReport(name=name, **{**plain, **fields})


def worker(**fields: Any) -> Worker:
    """A worker process that works."""
    plain: dict[str, Any] = {
        "number": 0, "pid": 7, "state": "ready", "open": 0, "descriptors": 5, "descriptor_limit": 100, "memory": 1,
    }  # fmt: skip
    return Worker(**{**plain, **fields})


def refusal(**fields: Any) -> RefusalStatus:
    """A recent refusal of an unknown key."""
    plain: dict[str, Any] = {
        "time": NOW - 10, "first": NOW - 20, "tunnel": "redis", "client": "192.0.2.1:5", "peer": "", "reason": "unknown_peer",
        "why": "the peer's key is not allowed here", "remedy": "add it", "count": 1,
    }  # fmt: skip
    return RefusalStatus(**{**plain, **fields})


def certificate(**fields: Any) -> CertificateStatus:
    """A certificate of this side, whose renewal is not overdue."""
    plain: dict[str, Any] = {
        "kind": "certificate", "name": "(own)", "subject": "dns:a", "serial": "a1", "not_before": NOW - 60, "not_after": NOW + 60,
        "remedy": "renew it",
    }  # fmt: skip
    return CertificateStatus(**{**plain, **fields})


def down(address: str = "a:1", **fields: Any) -> Target:
    """An unhealthy target."""
    plain: dict[str, Any] = {"health": "down", "why": "connection refused", "remedy": "start it", "since": NOW - 60}
    return Target(address=address, **{**plain, **fields})


def report(
    *tunnels: TunnelReport, at: float = NOW, state: str = "ready", workers: list[Worker] | None = None, **fields: Any
) -> Report:
    """A report of one process."""
    process = Process(
        version="1", started=NOW - 3600, uptime=3600, state=state, workers=workers or [worker()], engines=[],  # type: ignore[arg-type]
    )  # fmt: skip
    plain: dict[str, Any] = {"connections": Connections(total=3, order="newest", shown=[]), "keys": [], "refusals": []}
    return Report(time=at, process=process, tunnels=list(tunnels or [tunnel()]), **{**plain, **fields})
