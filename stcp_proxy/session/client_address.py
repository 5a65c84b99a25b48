"""Who the application's client is said to be, and the PROXY header that tells the target.

A peer's word about its client is authentic and not thereby true: whoever holds an allowed key can name any address. What is
passed on is therefore

- the address in OPEN, where the rule allows it: everything that is no danger to believe, or what `allow_clients` lists;
- the wire leg's address, which this side has seen itself, where OPEN has none, and where it has one that says nothing outside of
  the peer's host (a client that came to its sidecar over loopback is on that host);
- a refusal for everything else: this host's own addresses, multicast, and what `allow_clients` leaves out.
"""

from __future__ import annotations

import contextlib
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
    """The other end's IP address and port; None for a unix socket, and for one that is gone."""
    with contextlib.suppress(OSError, ValueError):
        name = sock.getpeername()
        if isinstance(name, tuple):
            return Endpoint(_ip(name[0]), name[1])
    return None


@functools.lru_cache(maxsize=256)
def _ip(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    """The address that a socket's host is, less its scope; the same few clients come again and again."""
    return ipaddress.ip_address(host.partition("%")[0])


def plain_endpoint(endpoint: Endpoint) -> Endpoint:
    """The same with an IPv4 address undressed."""
    return Endpoint(plain_ip(endpoint.ip), endpoint.port)


def client_of(claimed: Endpoint | None, seen: Endpoint | None, hand_on: HandOn) -> Endpoint | None:
    """The address to pass on as the client's.

    Args:
        claimed: what the peer says.
        seen: the other end of the wire leg; None where that is a unix socket.
        hand_on: the rule.

    Returns:
        None where nothing is known. Where nobody is told, no claim is judged.

    Raises:
        Denied: the peer may not claim this.
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
        Denied: it should be the client's, and nobody knows that. The target may trust this host's own, so that is no stand-in.
    """
    if not hand_on.transparent:
        return None
    if client is None:
        what = "the target is to be dialled from the client's own address, and the peer does not say what that is"
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
    """The header that goes ahead of a connection's bytes; empty where none is wanted.

    Args:
        hand_on: the rule.
        client: from `client_of`.
        original: where the client wanted to go, if the peer says.
        plain: the connected leg to the target.
        record: what is known of the connection.
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
    """Where the client wanted to go, or else where the target is: of the client's family, as the format demands."""
    target = endpoint_of(plain)
    for endpoint in (original, target):
        if endpoint is not None and (found := plain_endpoint(endpoint)).ip.version == client.ip.version:
            return found
    anywhere = ipaddress.IPv4Address(0) if client.ip.version == 4 else ipaddress.IPv6Address(0)
    return Endpoint(anywhere, target.port if target is not None else 0)


async def send_header(stream: LegStream, header: bytes) -> None:
    """Give the target its header, which fits into what any new connection takes at once.

    Raises:
        TargetUnreachable: it closed the connection instead.
    """
    try:
        await stream.send_all(header)
    except trio.BrokenResourceError:
        raise TargetUnreachable("the target closed the connection before its PROXY header", remedy="look in its log") from None
