"""One look at a process: live objects to the shape of `/status`."""

from __future__ import annotations

import heapq
import math
import os
import resource
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Literal, cast

import trio

from stcp_proxy import __version__
from stcp_proxy.admin.interface import Endpoint, Host, Link, Tunnel
from stcp_proxy.admin.live_bytes import Counts, Meter
from stcp_proxy.admin.status_schema import (
    Connections,
    ConnectionStatus,
    EngineChoice,
    KeyStatus,
    Process,
    RefusalStatus,
    Reload,
    Reloads,
    State,
    Status,
    Target,
    TunnelStatus,
    Worker,
)
from stcp_proxy.config import KeyAuth
from stcp_proxy.keys import PublicKey

Order = Literal["newest", "busiest"]
MAX_CONNECTIONS: Final = 1000
"""Most connections that one answer lists."""
MAX_REFUSALS: Final = 50
_PAGE: Final = resource.getpagesize()


@dataclass(frozen=True, slots=True)
class Wanted:
    """What somebody wants to know.

    Attributes:
        count: at most this many connections are listed.
        order: which come first.
        tunnel: of this tunnel alone; empty is all.
        metrics: whether it is for metrics.
    """

    count: int = 100
    order: Order = "newest"
    tunnel: str = ""
    metrics: bool = False


def look(host: Host, wanted: Wanted, meter: Meter) -> Status:
    """What a process is doing now.

    Args:
        host: the process.
        wanted: what of its connections is to be listed.
        meter: reads their bytes.
    """
    now = time.time()
    counts = meter.read(link for tunnel in host.tunnels for link in tunnel.connections)
    return Status(
        time=now,
        process=_process(host, now, len(counts)),
        tunnels=[_tunnel(host, tunnel, counts) for tunnel in host.tunnels],
        connections=_connections(host, wanted, counts),
        keys=list(_keys(host)),
        refusals=_refusals(host),
        reloads=_reloads(host),
    )


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
    )
    engines = [EngineChoice(choice=choice, engine=engine, why=why) for choice, (engine, why) in host.engines.items()]
    return Process(
        version=__version__, started=host.started, uptime=now - host.started, state=state, workers=[worker], engines=engines
    )


def descriptors() -> int:
    """Descriptors in use."""
    try:
        # Since Linux 6.2 the folder's size is their number; before, they have to be counted.
        return os.stat("/proc/self/fd").st_size or len(os.listdir("/proc/self/fd"))
    except OSError:
        return 0


def resident() -> int:
    """Resident memory, bytes."""
    try:
        with open("/proc/self/statm", "rb") as file:
            return int(file.read().split()[1]) * _PAGE
    except (OSError, ValueError, IndexError):
        return 0


def _tunnel(host: Host, tunnel: Tunnel, counts: Counts) -> TunnelStatus:
    plan, ledger = tunnel.plan, tunnel.ledger
    live = [counts[link] for link in tunnel.connections]
    engine, why = host.engines.get(plan.engine, (tunnel.engine.name, ""))
    keys = isinstance(plan.auth, KeyAuth)
    return TunnelStatus(
        name=plan.name,
        mode=plan.mode.value,
        bind=str(plan.bind),
        listening=tunnel.addresses,
        targets=_targets(tunnel),
        auth="keys" if keys else "psk",
        peers=list(plan.auth.peers.values()) if isinstance(plan.auth, KeyAuth) else [],
        engine=engine,
        why_engine=why,
        open=len(live),
        proving=tunnel.proving,
        relayed=sum(link.relay is not None for link in tunnel.connections),
        max_connections=plan.max_connections,
        max_handshakes=plan.max_handshakes,
        accepted=ledger.accepted,
        ended=dict(ledger.ended_by()),
        refused=dict(ledger.refused_by()),
        bytes_to_wire=ledger.bytes_to_wire + sum(to_wire for to_wire, _ in live),
        bytes_to_plain=ledger.bytes_to_plain + sum(to_plain for _, to_plain in live),
    )


def _targets(tunnel: Tunnel) -> list[Target]:
    """What is known of the addresses behind a tunnel; names that nobody has looked up yet are as they were written."""
    now = trio.current_time()
    found: list[Target] = []
    for service, route, targets in tunnel.behind:
        known = [_target(endpoint, now) for endpoint in targets.endpoints]
        for target in known or [Target(address=str(address)) for address in targets.to]:
            target.service, target.route = service, route
            found.append(target)
    return found


def _target(endpoint: Endpoint, now: float) -> Target:
    if endpoint.failures:
        why = endpoint.why.what if endpoint.why is not None else ""
        retry = round(max(0.0, endpoint.until - now), 3)
        return Target(address=str(endpoint), health="down", why=why, live=endpoint.live, retry=retry)
    health: Literal["up", "unknown"] = "up" if endpoint.reached_at > -math.inf else "unknown"
    return Target(address=str(endpoint), health=health, live=endpoint.live)


def _connections(host: Host, wanted: Wanted, counts: Counts) -> Connections:
    mine = [
        (tunnel.plan.name, link)
        for tunnel in host.tunnels
        if wanted.tunnel in ("", tunnel.plan.name)
        for link in tunnel.connections
    ]
    rank = (lambda entry: entry[1].started) if wanted.order == "newest" else (lambda entry: sum(counts[entry[1]]))
    now = time.monotonic()
    shown = [_connection(host, name, link, now, counts[link]) for name, link in heapq.nlargest(wanted.count, mine, key=rank)]
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


def _keys(host: Host) -> Iterator[KeyStatus]:
    """Own keys, then the peers'; each once, with what all its tunnels have seen of it."""
    found: dict[tuple[bool, bytes], KeyStatus] = {}
    for tunnel in host.tunnels:
        auth = tunnel.plan.auth
        if not isinstance(auth, KeyAuth):
            continue
        for identity in auth.ring:
            _entry(found, identity.public, "(own)", own=True).tunnels.append(tunnel.plan.name)
        for key, name in auth.peers.items():
            _entry(found, key, name, own=False).tunnels.append(tunnel.plan.name)
        for link in tunnel.connections:
            for status in (found.get((True, link.own or b"")), found.get((False, link.key or b""))):
                if status is not None:
                    status.connections += 1
        for (mine, theirs), use in tunnel.ledger.pairs.items():
            peer = found.get((False, theirs))
            for status in (found.get((True, mine)), peer):
                if status is not None:
                    status.total += use.total
                    status.last_use = max(status.last_use or 0.0, use.last or 0.0) or None
                    if peer is not None:
                        status.uses[peer.name] = max(status.uses.get(peer.name, 0.0), use.last or 0.0)
        for key, name in auth.peers.items():
            for identity in auth.ring:
                for status in (found[True, identity.public.raw], found[False, key.raw]):
                    status.uses.setdefault(name, 0.0)
    yield from sorted(found.values(), key=lambda status: not status.own)


def _entry(found: dict[tuple[bool, bytes], KeyStatus], key: PublicKey, name: str, *, own: bool) -> KeyStatus:
    fresh = KeyStatus(key=str(key), name=name, own=own, tunnels=[], connections=0, total=0, last_use=None, uses={})
    return found.setdefault((own, key.raw), fresh)


def _reloads(host: Host) -> Reloads:
    done = host.reloads
    last = None if done.at is None else Reload(time=done.at, ok=done.ok, what=done.what)
    return Reloads(applied=done.applied, failed=done.failed, last=last)


def _refusals(host: Host) -> list[RefusalStatus]:
    found = [
        RefusalStatus(
            time=refusal.at,
            tunnel=tunnel.plan.name,
            client=refusal.client,
            peer=refusal.peer,
            reason=refusal.reason,
            why=refusal.why,
            remedy=refusal.remedy,
            count=refusal.count,
        )
        for tunnel in host.tunnels
        for refusal in tunnel.ledger.refusals
    ]
    return sorted(found, key=lambda refusal: refusal.time, reverse=True)[:MAX_REFUSALS]
