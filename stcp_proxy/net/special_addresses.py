"""Addresses that mean a different host to the receiver than to the sender.

127.0.0.1 is each host's own loopback, 0.0.0.0 is the host that connects to it, and other programs of a host may trust that host's
own addresses. To connect to such an address because a peer named it, or to believe a peer that claims it, bypasses a firewall.
"""

from __future__ import annotations

import ipaddress
import socket
import struct
from typing import Final

from stcp_proxy.net import netlink_messages as nl
from stcp_proxy.net.pattern import IPAddress, IPNetwork, plain_ip
from stcp_proxy.net.shortage import shortage

_NETWORKS: Final = tuple(
    (ipaddress.ip_network(text), word)
    for text, word in (
        ("127.0.0.0/8", "a loopback address"),
        ("::1/128", "a loopback address"),
        ("0.0.0.0/8", "an unspecified address"),
        ("::/128", "an unspecified address"),
        ("169.254.0.0/16", "a link-local address"),
        ("fe80::/10", "a link-local address"),
        ("224.0.0.0/4", "a multicast address"),
        ("ff00::/8", "a multicast address"),
        ("240.0.0.0/4", "a reserved address"),
        # Other forms of IPv4 addresses in IPv6. Only ::ffff:0:0/96 is converted, so the IPv4 address inside was not checked.
        ("::/96", "an IPv4-compatible address"),
        ("64:ff9b::/96", "a translated IPv4 address"),
        ("64:ff9b:1::/48", "a translated IPv4 address"),
        ("::ffff:0:0:0/96", "a translated IPv4 address"),
        ("2001::/32", "a Teredo address"),
        ("2002::/16", "a 6to4 address"),
    )
)

LOCAL_TO_A_HOST: Final[tuple[IPNetwork, ...]] = tuple(
    ipaddress.ip_network(text) for text in ("127.0.0.0/8", "::1/128", "0.0.0.0/8", "::/128", "169.254.0.0/16", "fe80::/10")
)
"""Addresses that have a meaning on one host and its links only."""

OWN: Final = "an address of this host"


def is_loopback(host: str) -> bool:
    """Whether a host, as a number or as `localhost`, is loopback. Any other name may resolve to any address, so it is not."""
    try:
        return ipaddress.ip_address(host.partition("%")[0]).is_loopback
    except ValueError:
        return host == "localhost"


def special_network(ip: IPAddress) -> tuple[IPNetwork, str] | None:
    """The special network that an address belongs to, and words for it."""
    ip = plain_ip(ip)
    return next(((network, word) for network, word in _NETWORKS if ip in network), None)


def required_network(ip: IPAddress) -> tuple[IPNetwork, str] | None:
    """The network that a rule must lie within before it covers `ip`, and words for that network.

    Returns:
        None for an ordinary address, which every rule covers that contains it. Each of this host's own addresses is a network of
        its own, and has to be named by itself.
    """
    ip = plain_ip(ip)
    special = special_network(ip)
    if special is not None:
        return special
    return (ipaddress.ip_network(ip), OWN) if is_own_address(ip) else None


def is_local_to_a_host(ip: IPAddress) -> bool:
    """Whether an address has a meaning on one host or link only."""
    ip = plain_ip(ip)
    return any(ip in network for network in LOCAL_TO_A_HOST)


# -- the host's own --------------------------------------------------------------------------------------------------------

_ROUTE, _ASK, _DESTINATION = 24, 26, 1
"""RTM_NEWROUTE, RTM_GETROUTE, RTA_DST."""
_RTMSG: Final = struct.Struct("=BBBBBBBBI")
"""struct rtmsg; the eighth is the type of the route."""
_DELIVERED_HERE: Final = {2, 3, 4, 5}
"""RTN_LOCAL, RTN_BROADCAST, RTN_ANYCAST, RTN_MULTICAST."""


def is_own_address(ip: IPAddress) -> bool:
    """Whether this host delivers packets for `ip` to itself.

    The routing table tells, which also knows addresses that no interface shows. Where it cannot be asked, the answer is yes.

    Raises:
        OverLimit: this machine lacks descriptors or memory to ask.
    """
    ip = plain_ip(ip)
    family = socket.AF_INET if ip.version == 4 else socket.AF_INET6
    body = _RTMSG.pack(family, ip.max_prefixlen, 0, 0, 0, 0, 0, 0, 0)
    question = nl.message(_ASK, nl.NLM_F_REQUEST, 1, body, nl.pack({_DESTINATION: ip.packed}))
    try:
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK, socket.NETLINK_ROUTE) as sock:
            sock.sendto(question, (0, 0))
            answer = sock.recv(4096)  # which is there: the kernel answers inside of the call that asks
    except OSError as exc:
        lack = shortage(exc.errno)
        if lack is not None:
            raise lack from None
        return True
    try:
        first = next(nl.messages(answer))
        # An error in place of a route says that no route leads there.
        return first.kind == _ROUTE and _RTMSG.unpack_from(first.body)[7] in _DELIVERED_HERE
    except (nl.MalformedMessage, struct.error, StopIteration):
        return True
