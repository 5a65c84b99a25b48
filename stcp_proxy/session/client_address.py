"""The address of the application's client, and the PROXY header that tells it to the target.

A peer can name any address in OPEN, so the address may be false. This side therefore chooses:

- It tells the target the address in OPEN where the rule allows it: any harmless address, or those that `allow_clients` lists.
- It tells the address of the wire leg where OPEN has no address, or an address that has a meaning only on the peer's host. For
  example, a client that connects to its sidecar over loopback is on that host.
- It refuses the connection for any other address: this host's own, multicast, and those outside of `allow_clients`.
"""

from __future__ import annotations

import functools
import ipaddress
import socket

import trio

from stcp_proxy.config import HandOn
from stcp_proxy.errors import Denied, TargetUnreachable
from stcp_proxy.net.leg_stream import LegStream
from stcp_proxy.net.pattern import plain_ip
from stcp_proxy.net.proxy_header import TLV_PEER, TLV_SERVICE, TLV_UNIQUE_ID, ProxyHeader, encode_header
from stcp_proxy.net.special_addresses import is_local_to_a_host, required_network
from stcp_proxy.protocol.opening import Endpoint
from stcp_proxy.session.record import Connection


def endpoint_of(sock: socket.socket) -> Endpoint | None:
    """The IP address and port of the other end; None for a unix socket, and for a connection that has ended."""
    try:
        name = sock.getpeername()
        return Endpoint(_ip(name[0]), name[1]) if isinstance(name, tuple) else None
    except (OSError, ValueError):
        return None


@functools.lru_cache(maxsize=256)
def _ip(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    """The IP address of a socket name, without its zone. Cached, because the same few clients connect again and again."""
    return ipaddress.ip_address(host.partition("%")[0])


def plain_endpoint(endpoint: Endpoint) -> Endpoint:
    """The endpoint, with an IPv4 address instead of an IPv4-mapped one."""
    ip = plain_ip(endpoint.ip)
    return endpoint if ip is endpoint.ip else Endpoint(ip, endpoint.port)


def client_of(claimed: Endpoint | None, seen: Endpoint | None, hand_on: HandOn) -> Endpoint | None:
    """The address to pass on as the client's.

    Args:
        claimed: the address in OPEN.
        seen: the other end of the wire leg; None for a unix socket.
        hand_on: the rule.

    Returns:
        The address; None where it is unknown. Where the target learns no address, this function checks none.

    Raises:
        Denied: the peer may not name this address.
    """
    if claimed is None or not hand_on.tells_client:
        return seen
    client = plain_endpoint(claimed)
    if _may_claim(client, hand_on):
        return client
    if is_local_to_a_host(client.ip):
        return seen
    raise Denied(
        f"the peer says that its client is {client.ip}, which it may not claim{_why_not(client)}",
        remedy="if it may, add the address to 'allow_clients'",
    )


def source_for(client: Endpoint | None, hand_on: HandOn) -> Endpoint | None:
    """The address to dial the target from; None for this host's own.

    Args:
        client: from `client_of`.
        hand_on: the rule.

    Raises:
        Denied: the client's address is unknown. This host's own address must not replace it, because the target may trust it.
    """
    if not hand_on.transparent:
        return None
    if client is None:
        what = "the target must be dialled from the client's own address, and the peer does not name this address"
        raise Denied(what, remedy="let the client connect to the peer by TCP, or remove 'source: transparent'")
    return plain_endpoint(client)


def _may_claim(client: Endpoint, hand_on: HandOn) -> bool:
    rules = hand_on.allow_clients
    covering = [rule for rule in rules or () if rule.covers(client.ip)]
    guard = required_network(client.ip)
    if guard is not None:
        return any(rule.within(guard[0]) for rule in covering)
    return rules is None or bool(covering)


def _why_not(client: Endpoint) -> str:
    guard = required_network(client.ip)
    return f": it is {guard[1]}" if guard is not None else ""


def proxy_header(
    hand_on: HandOn, client: Endpoint | None, original: Endpoint | None, plain: socket.socket, record: Connection, *, peer: str
) -> bytes:
    """The PROXY header of a connection; empty where none is configured.

    Args:
        hand_on: the rule.
        client: from `client_of`.
        original: the client's destination, where OPEN has it.
        plain: the connected leg to the target.
        record: the record of the connection.
        peer: its name; empty where it has none.
    """
    if hand_on.proxy_protocol is None:
        return b""
    if client is None:
        return encode_header(ProxyHeader(), hand_on.proxy_protocol)
    destination = _destination(client, original, plain)
    tlvs = [(TLV_UNIQUE_ID, record.channel), (TLV_PEER, peer), (TLV_SERVICE, record.service)]
    said = tuple((kind, text.encode()) for kind, text in tlvs if text)
    return encode_header(ProxyHeader(client, destination, said), hand_on.proxy_protocol)


def _destination(client: Endpoint, original: Endpoint | None, plain: socket.socket) -> Endpoint:
    """The client's destination, or else the target's address. The format requires the client's address family."""
    target = endpoint_of(plain)
    for endpoint in (original, target):
        if endpoint is not None and (found := plain_endpoint(endpoint)).ip.version == client.ip.version:
            return found
    anywhere = ipaddress.IPv4Address(0) if client.ip.version == 4 else ipaddress.IPv6Address(0)
    return Endpoint(anywhere, target.port if target is not None else 0)


async def send_header(stream: LegStream, header: bytes) -> None:
    """Send the target its header. It fits into the send buffer of any new connection.

    Raises:
        TargetUnreachable: the target closed the connection.
    """
    try:
        await stream.send_all(header)
    except trio.BrokenResourceError:
        raise TargetUnreachable("the target closed the connection before its PROXY header", remedy="look in its log") from None
