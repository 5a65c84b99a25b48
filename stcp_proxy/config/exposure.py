"""Plain legs of a tunnel that are reachable from the network: bytes without encryption, or a key that any host may use."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from dataclasses import dataclass

from stcp_proxy.config.plan import Mode, TunnelPlan
from stcp_proxy.net.address import Destination, TcpAddress
from stcp_proxy.net.special_addresses import is_loopback, is_own_address


@dataclass(frozen=True, slots=True)
class Exposure:
    """A plain leg that is reachable from the network.

    Attributes:
        address: the address as configured.
        why: the risk.
        remedy: the instruction that removes the risk.
    """

    address: str
    why: str
    remedy: str


def exposures(tunnel: TunnelPlan) -> list[Exposure]:
    """The exposed plain legs of a tunnel. An intercepting tunnel refuses direct connections, so it has none."""
    if tunnel.intercept is not None:
        return []
    return list(_of_connect(tunnel) if tunnel.mode is Mode.CONNECT else _of_listen(tunnel))


def _of_connect(tunnel: TunnelPlan) -> Iterator[Exposure]:
    if tunnel.accept_proxy is not None and tunnel.accept_proxy.senders is not None:
        return  # only the listed load balancers may connect
    if isinstance(tunnel.bind, TcpAddress) and not is_loopback(tunnel.bind.host):
        yield Exposure(
            str(tunnel.bind),
            "every host that reaches this address can use the tunnel with this host's key, and its bytes arrive unencrypted",
            "bind 127.0.0.1, [::1] or a unix socket; otherwise let a firewall admit only the hosts that may use the tunnel",
        )


def _of_listen(tunnel: TunnelPlan) -> Iterator[Exposure]:
    seen: set[Destination] = set()
    for target in (*tunnel.to, *(each for service in tunnel.services.values() for each in service.to)):
        if isinstance(target, TcpAddress) and target not in seen and not _is_here(target):
            yield Exposure(
                str(target),
                "the target is on another host: bytes travel there without encryption",
                "run `stcp-proxy listen` on the target's host; otherwise make sure that the network between the hosts is trusted",
            )
        seen.add(target)


def _is_here(target: TcpAddress) -> bool:
    """Whether traffic to a target stays on this host. An empty host means this host; a name may resolve to a different host."""
    if not target.host or is_loopback(target.host):
        return True
    try:
        return is_own_address(ipaddress.ip_address(target.host.partition("%")[0]))
    except ValueError:
        return False
