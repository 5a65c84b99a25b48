"""To dial from an address that is not this host's: the target sees its client's own.

A transparent socket may be bound to any address. What the target answers goes to that address, so routes have to bring it back to
this host; docs/TARGETS.md has them.
"""

from __future__ import annotations

import errno
import socket
from typing import Final

from stcp_proxy.errors import ConfigError
from stcp_proxy.protocol.opening import Endpoint

IP_TRANSPARENT: Final = 19
IPV6_TRANSPARENT: Final = 75
_IP_BIND_ADDRESS_NO_PORT: Final = 24
"""Leaves the choice of a port to connect(), which needs it free towards one destination alone."""


def make_transparent(sock: socket.socket) -> None:
    """Let a socket have addresses that are not this host's.

    Raises:
        OSError: this process may not.
    """
    if sock.family == socket.AF_INET6:
        sock.setsockopt(socket.IPPROTO_IPV6, IPV6_TRANSPARENT, 1)
    else:
        sock.setsockopt(socket.IPPROTO_IP, IP_TRANSPARENT, 1)


def is_transparent(sock: socket.socket) -> bool:
    """Whether a socket may have addresses that are not this host's."""
    if sock.family == socket.AF_INET6:
        return bool(sock.getsockopt(socket.IPPROTO_IPV6, IPV6_TRANSPARENT))
    return sock.family == socket.AF_INET and bool(sock.getsockopt(socket.IPPROTO_IP, IP_TRANSPARENT))


def bind_to_client(sock: socket.socket, client: Endpoint) -> None:
    """Before it is connected, give a socket its client's address and port.

    The port stays free for servers: whoever binds as they do, with SO_REUSEADDR, is not kept from it by a peer that claims it.

    Args:
        sock: of any family.
        client: whose address it gets; port 0 leaves the choice to connect().

    Raises:
        OSError: it cannot be had: it is of the other family, none that anybody has, taken, or this process may not.
    """
    if sock.family != (socket.AF_INET if client.ip.version == 4 else socket.AF_INET6):
        raise OSError(errno.EAFNOSUPPORT, "it is of the other family")
    make_transparent(sock)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if client.port == 0:
        sock.setsockopt(socket.IPPROTO_IP, _IP_BIND_ADDRESS_NO_PORT, 1)
    sock.bind((str(client.ip), client.port))


def check_transparent() -> None:
    """Raises ConfigError where this process may not dial from its clients' addresses."""
    with socket.socket() as probe:
        try:
            make_transparent(probe)
        except OSError as exc:
            raise ConfigError(
                f"'source: transparent' needs transparent sockets, and the system refuses them: {exc.strerror}",
                remedy="grant CAP_NET_ADMIN or CAP_NET_RAW to the proxy, or tell the target its client by 'proxy_protocol'",
            ) from None
