"""Make the report of this process from its live objects."""

from __future__ import annotations

import collections
import heapq
import math
import os
import resource
import time
from typing import Final, Literal, cast

import trio

from stcp_proxy import __version__
from stcp_proxy.admin.certificate_snapshot import add_certificates
from stcp_proxy.admin.cooperate import Steps
from stcp_proxy.admin.interface import Endpoint, Host, Link, Tunnel, Unresolved
from stcp_proxy.admin.live_bytes import BytesOfConnections, Meter
from stcp_proxy.admin.process_schema import EngineChoice, Process, State, Worker
from stcp_proxy.admin.report import Report, TunnelReport
from stcp_proxy.admin.snapshot_request import MAX_REFUSALS, SnapshotRequest
from stcp_proxy.admin.status_schema import (
    Connections,
    ConnectionStatus,
    EgressFilter,
    KeyStatus,
    RefusalStatus,
    Reload,
    Reloads,
    Rules,
    Target,
)
from stcp_proxy.admin.verdict_schema import Level
from stcp_proxy.config import KeyAuth, Mode, PskAuth
from stcp_proxy.counters import UNKNOWN, Durations, KeyUse
from stcp_proxy.counters.tunnel import Refusal
from stcp_proxy.errors import Severity
from stcp_proxy.keys import PublicKey
from stcp_proxy.net.address import Destination

_PAGE: Final = resource.getpagesize()


async def snapshot(host: Host, wanted: SnapshotRequest, meter: Meter, loop_delay: Durations, steps: Steps) -> Report:
    """Report the state of a process.

    Keys and connections, which may be thousands, are read in steps; the event loop runs in between. A connection that ends
    meanwhile is in the counts of its tunnel. A connection that begins meanwhile is not listed yet.

    Args:
        host: the process.
        wanted: which of its connections to list.
        meter: reads the byte counts of connections.
        loop_delay: the measured delays of the event loop.
        steps: lets the event loop run between steps.
    """
    keys = [] if wanted.probe else await _keys(host, steps)
    counts = await meter.read([link for tunnel in host.tunnels for link in tunnel.connections], steps)
    connections = await _connections(host, wanted, counts, steps)
    tunnels = []
    for tunnel in host.tunnels:
        tunnels.append(_tunnel(host, tunnel, counts))
        await steps.pause()
    now = time.time()
    report = Report(
        time=now,
        process=_process(host, now, sum(len(tunnel.connections) + tunnel.strangers for tunnel in host.tunnels)),
        tunnels=tunnels,
        connections=connections,
        keys=keys,
        refusals=_refusals(host),
        reloads=_reloads(host),
        loop_delay=loop_delay,
    )
    await add_certificates(host, report, steps, full=not wanted.probe)
    return report


def _process(host: Host, now: float, count: int) -> Process:
    state = cast("State", str(host.state))
    worker = Worker(
        number=host.worker,
        pid=os.getpid(),
        state=state,
        open=count,
        descriptors=descriptors(),
        descriptor_limit=resource.getrlimit(resource.RLIMIT_NOFILE)[0],
        memory=resident(),
        started=host.started,
        cpu=time.process_time(),
        log_lines_dropped=host.log_lines_dropped,
    )
    engines = [EngineChoice(choice=choice, engine=engine, why=why) for choice, (engine, why) in host.engines.items()]
    return Process(
        version=__version__,
        started=host.started,
        uptime=now - host.started,
        state=state,
        workers=[worker],
        engines=engines,
        spans=host.spans,
    )


def descriptors() -> int:
    """The number of open file descriptors."""
    try:
        # Since Linux 6.2 the folder's size is the number of its entries. Older kernels need a count.
        return os.stat("/proc/self/fd").st_size or len(os.listdir("/proc/self/fd"))
    except OSError:
        return 0


def resident() -> int:
    """Resident memory in bytes."""
    try:
        with open("/proc/self/statm", "rb") as file:
            return int(file.read().split()[1]) * _PAGE
    except (OSError, ValueError, IndexError):
        return 0


def _tunnel(host: Host, tunnel: Tunnel, counts: BytesOfConnections) -> TunnelReport:
    plan, lost = tunnel.plan, tunnel.lost
    live = [counts.get(link, (0, 0)) for link in tunnel.connections]
    engine, why = host.engines.get(plan.engine, (tunnel.engine.name, ""))
    return TunnelReport(
        name=plan.name,
        mode=plan.mode.value,
        bind=str(plan.bind),
        listening=[address for address in tunnel.addresses if address not in lost],
        lost=lost,
        targets=_targets(tunnel),
        auth=_auth_kind(plan.auth),
        peers=plan.auth.peer_names if isinstance(plan.auth, KeyAuth) else [],
        engine=engine,
        why_engine=why,
        open=len(live) + tunnel.strangers,
        proving=tunnel.proving,
        idle_legs=tunnel.idle_legs,
        relayed=sum(link.relay is not None for link in tunnel.connections),
        max_connections=plan.max_connections,
        max_handshakes=plan.max_handshakes,
        rules=cast("Rules", host.rules) if plan.intercept is not None else "",
        egress_filter=cast("EgressFilter", host.egress_filter[0]) if plan.intercept is not None else "",
        egress_interfaces=list(host.egress_filter[1]) if plan.intercept is not None else [],
        audit_until=None if plan.audit is None else plan.audit.until,
        counts=tunnel.ledger,
        open_to_wire=sum(to_wire for to_wire, _ in live),
        open_to_plain=sum(to_plain for _, to_plain in live),
        carried=_carried(tunnel),
    )


def _auth_kind(auth: KeyAuth | PskAuth) -> Literal["keys", "psk", "certificates", "keys and certificates"]:
    if isinstance(auth, PskAuth):
        return "psk"
    if auth.certificates is None:
        return "keys"
    return "certificates" if auth.identity is None else "keys and certificates"


def _carried(tunnel: Tunnel) -> dict[tuple[str, str], int]:
    """Open connections by peer and engine. An entry stays, with 0, after its last connection has ended."""
    live = collections.Counter((link.rule or UNKNOWN, link.relay.engine) for link in tunnel.connections if link.relay is not None)
    return dict.fromkeys(((peer, engine) for peer, engine, _ in tunnel.ledger.ended), 0) | live


def _targets(tunnel: Tunnel) -> list[Target]:
    """The targets of a tunnel, with the health of each endpoint. A name without an address is shown as configured."""
    now = trio.current_time()
    found: list[Target] = []
    for service, route, targets in tunnel.behind:
        known = [_target(endpoint, now) for endpoint in targets.endpoints]
        unknown = [_without_address(address, why, now) for address, why in targets.without_endpoint]
        for target in (*known, *unknown):
            target.service, target.route = service, route
            found.append(target)
    return found


def _target(endpoint: Endpoint, now: float) -> Target:
    if endpoint.failures:
        why = endpoint.why.what if endpoint.why is not None else ""
        remedy = (endpoint.why.remedy if endpoint.why is not None else None) or ""
        retry = round(max(0.0, endpoint.until - now), 3)
        since = _wall_time(endpoint.failing_since, now)
        return Target(address=str(endpoint), health="down", why=why, remedy=remedy, since=since, live=endpoint.live, retry=retry)
    health: Literal["up", "unknown"] = "up" if endpoint.reached_at > -math.inf else "unknown"
    return Target(address=str(endpoint), health=health, live=endpoint.live)


def _without_address(address: Destination, failure: Unresolved | None, now: float) -> Target:
    if failure is None:
        return Target(address=str(address))
    since = _wall_time(failure.since, now)
    return Target(address=str(address), health="down", why=failure.why, remedy=failure.remedy, since=since)


def _wall_time(at: float, now: float) -> float:
    """Seconds since 1970 for a time on Trio's clock, whose present time is `now`."""
    return round(time.time() - (now - at), 3)


async def _connections(host: Host, wanted: SnapshotRequest, counts: BytesOfConnections, steps: Steps) -> Connections:
    mine = [
        (tunnel.plan.name, link)
        for tunnel in host.tunnels
        if wanted.tunnel in ("", tunnel.plan.name)
        for link in tunnel.connections
        if link in counts
    ]
    await steps.pause()
    rank = (lambda entry: entry[1].started) if wanted.order == "newest" else (lambda entry: sum(counts[entry[1]]))
    now = time.monotonic()
    shown = []
    for name, link in heapq.nlargest(wanted.count, mine, key=rank):
        shown.append(_connection(host, name, link, now, counts[link]))
        await steps.pause()
    return Connections(total=len(mine), order=wanted.order, shown=shown)


def _connection(host: Host, tunnel: str, link: Link, now: float, counts: tuple[int, int]) -> ConnectionStatus:
    relay = link.relay
    return ConnectionStatus(
        tunnel=tunnel,
        worker=host.worker,
        channel=link.channel,
        client=link.client,
        peer=link.peer,
        target=link.target,
        engine=relay.engine if relay is not None else "",
        why_engine=relay.why_engine if relay is not None else "",
        age=round(now - link.started, 3),
        bytes_to_wire=counts[0],
        bytes_to_plain=counts[1],
    )


async def _keys(host: Host, steps: Steps) -> list[KeyStatus]:
    """Own keys, then the peers' keys; each key once, with its use in all tunnels."""
    found: dict[tuple[bool, bytes], KeyStatus] = {}
    for tunnel in host.tunnels:
        if isinstance(tunnel.plan.auth, KeyAuth):
            await _add_keys(found, tunnel, tunnel.plan.auth, steps)
    return sorted(found.values(), key=lambda status: not status.own)


async def _add_keys(found: dict[tuple[bool, bytes], KeyStatus], tunnel: Tunnel, auth: KeyAuth, steps: Steps) -> None:
    """Add the keys of one tunnel and their use."""
    own = [_entry(found, identity.public, "(own)", own=True) for identity in auth.ring]
    for mine in own:
        mine.tunnels.append(tunnel.plan.name)
    for key, name in auth.peers.items():
        peer = _entry(found, key, name, own=False)
        peer.tunnels.append(tunnel.plan.name)
        for status in (*own, peer):
            status.uses.setdefault(name, 0.0)
        await steps.pause()
    for link in tunnel.connections:
        for known in (found.get((True, link.own or b"")), found.get((False, link.key or b""))):
            if known is not None:
                known.connections += 1
    for (mine_raw, theirs), use in list(tunnel.ledger.pairs.items()):
        _add_use(found.get((True, mine_raw)), found.get((False, theirs)), use)
        await steps.pause()


def _add_use(own: KeyStatus | None, peer: KeyStatus | None, use: KeyUse) -> None:
    """Add the use of a pair of keys to both keys, where they are still in the file."""
    for status in (own, peer):
        if status is not None:
            status.total += use.total
            status.last_use = max(status.last_use or 0.0, use.last or 0.0) or None
            if peer is not None:
                status.uses[peer.name] = max(status.uses.get(peer.name, 0.0), use.last or 0.0)


def _entry(found: dict[tuple[bool, bytes], KeyStatus], key: PublicKey, name: str, *, own: bool) -> KeyStatus:
    fresh = KeyStatus(key=str(key), name=name, own=own, tunnels=[], connections=0, total=0, last_use=None, uses={})
    return found.setdefault((own, key.raw), fresh)


def _reloads(host: Host) -> Reloads:
    done = host.reloads
    last = None if done.at is None else Reload(time=done.at, ok=done.ok, what=done.what)
    return Reloads(applied=done.applied, failed=done.failed, last=last)


def _refusals(host: Host) -> list[RefusalStatus]:
    found = [_refusal(tunnel, refusal, host.reloads.at) for tunnel in host.tunnels for refusal in tunnel.ledger.refusals]
    return sorted(found, key=lambda refusal: refusal.time, reverse=True)[:MAX_REFUSALS]


def _refusal(tunnel: Tunnel, refusal: Refusal, reloaded: float | None) -> RefusalStatus:
    judgement, connects = refusal.judgement, tunnel.plan.mode is Mode.CONNECT
    level: Level = "warn"
    if judgement.severity is Severity.ERROR:
        level = "bad"
    elif judgement.by_strangers and not connects:
        level = "note"
    served, auth = refusal.served, tunnel.plan.auth
    if refusal.key and isinstance(auth, KeyAuth) and PublicKey.parse(refusal.key) in auth.peers:
        served = max(refusal.at, reloaded or 0.0)
    return RefusalStatus(
        time=refusal.at,
        tunnel=tunnel.plan.name,
        client=refusal.client,
        peer=refusal.peer,
        reason=refusal.reason,
        why=refusal.why,
        remedy=refusal.remedy,
        key=refusal.key,
        count=refusal.count,
        first=refusal.first,
        level=level,
        is_target=refusal.at_target or (connects and judgement.blames_endpoint),
        served=served,
    )
