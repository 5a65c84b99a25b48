"""Where an application was going before rules of the host sent its connection here.

    redirect   the rules changed the destination (NAT); the kernel's connection tracking remembers the one before
    tproxy     the rules changed nothing: a transparent socket accepts for addresses that are not this host's, and the
               accepted socket's own address is the destination

A connection that no rule sent here, because somebody dialled the listener itself, must be found out: handing it on to its
"original destination" would be to dial this listener again, and again.
"""

from __future__ import annotations

import enum
import errno
import ipaddress
import socket
import sys
from typing import Final

from stcp_proxy.errors import ClientGone, ConfigError, NotIntercepted
from stcp_proxy.net import transparent
from stcp_proxy.net.special_addresses import is_own_address
from stcp_proxy.protocol.opening import Endpoint

_SO_ORIGINAL_DST: Final = 80
"""In linux/netfilter_ipv4.h and, as IP6T_SO_ORIGINAL_DST, in linux/netfilter_ipv6/ip6_tables.h."""
_SOCKADDR_IN: Final = 16
_SOCKADDR_IN6: Final = 28
_APPLY: Final = "dial the server's own address; where the rules are missing, install them with 'stcp-proxy intercept --apply'"


class Interception(enum.StrEnum):
    """How the rules of a host bring connections to a tunnel."""

    REDIRECT = "redirect"
    TPROXY = "tproxy"


def original_destination(sock: socket.socket, how: Interception) -> Endpoint:
    """The address that the application dialled.

    Args:
        sock: an accepted TCP socket.
        how: the way it came here.

    Raises:
        NotIntercepted: it was dialled directly.
        ClientGone: it is closed already.
    """
    try:
        mine = _endpoint(sock.getsockname())
        found = _from_conntrack(sock) if how is Interception.REDIRECT else mine
    except OSError as exc:
        if exc.errno in (errno.ENOENT, errno.ENOPROTOOPT):  # connection tracking does not know it, or does not run here
            what = "no rule redirected this connection: a client dialled the tunnel itself"
            raise NotIntercepted(what, remedy=_APPLY) from None
        raise ClientGone("the application was gone before its connection was looked at") from None
    if found == mine and (how is Interception.REDIRECT or is_own_address(mine.ip)):
        what = f"this connection was dialled to the tunnel itself ({mine}): to hand it on would be a loop"
        raise NotIntercepted(what, remedy=_APPLY)
    return found


def make_transparent(sock: socket.socket) -> None:
    """Let a listening socket accept connections for addresses that are not this host's.

    Raises:
        ConfigError: this process may not.
    """
    try:
        transparent.make_transparent(sock)
    except OSError as exc:
        raise ConfigError(
            f"'intercept: tproxy' needs a transparent socket, and the system refuses it: {exc.strerror}",
            remedy="grant CAP_NET_ADMIN to the proxy, or use 'intercept: redirect', which needs none",
        ) from None


def _from_conntrack(sock: socket.socket) -> Endpoint:
    if sock.family == socket.AF_INET6:
        raw = sock.getsockopt(socket.IPPROTO_IPV6, _SO_ORIGINAL_DST, _SOCKADDR_IN6)
        scope = int.from_bytes(raw[24:28], sys.byteorder)
        return _endpoint((str(ipaddress.IPv6Address(raw[8:24])), int.from_bytes(raw[2:4], "big"), 0, scope))
    raw = sock.getsockopt(socket.IPPROTO_IP, _SO_ORIGINAL_DST, _SOCKADDR_IN)
    return _endpoint((str(ipaddress.IPv4Address(raw[4:8])), int.from_bytes(raw[2:4], "big")))


def _endpoint(sockaddr: tuple[str, int] | tuple[str, int, int, int]) -> Endpoint:
    host, port = sockaddr[0].partition("%")[0], sockaddr[1]
    scope = f"%{sockaddr[3]}" if len(sockaddr) == 4 and sockaddr[3] else ""  # a link-local address means nothing without it
    return Endpoint(ipaddress.ip_address(host + scope), port)
