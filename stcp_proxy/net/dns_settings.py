"""How names are looked up. This module imports no event loop: reading a configuration needs it."""

from __future__ import annotations

from dataclasses import dataclass

from stcp_proxy.net.address import TcpAddress


@dataclass(frozen=True, slots=True)
class DnsSettings:
    """How names are looked up.

    Attributes:
        ttl: seconds for which an answer is used, at most; 0 looks up for every connection.
        stale: seconds after that in which it is used while no resolver answers.
        keep: seconds for which a route by name still covers an address that an answer contained.
        servers: name servers, IP address and port, to ask in place of the system's resolver; empty for the system's.
    """

    ttl: float = 5.0
    stale: float = 3600.0
    keep: float = 3600.0
    servers: tuple[TcpAddress, ...] = ()
