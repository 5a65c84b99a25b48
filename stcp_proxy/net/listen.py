"""Listening sockets for an address.

`:port` and `localhost:port` are two sockets, one for each family, both on the same port; an IPv6 socket never takes IPv4
(IPV6_V6ONLY), so a log never shows a mapped address and `[::]:port` beside `0.0.0.0:port` does not collide. A name is bound
on all its addresses. A unix socket is bound by `unix_socket`.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterable
from typing import Any, Final

from stcp_proxy.errors import ConfigError
from stcp_proxy.net.address import Address, TcpAddress, UnixAddress, describe_sockaddr
from stcp_proxy.net.listen_error import explain
from stcp_proxy.net.unix_socket import UNIX_MODE, close_unix, listen_unix
from stcp_proxy.net.zone import numeric_sockaddr

_PORT_ATTEMPTS: Final = 20
_EVERY: Final = ((socket.AF_INET, "0.0.0.0"), (socket.AF_INET6, "::"))  # noqa: S104
_LOOPBACK: Final = ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1"))
_FREEBIND: Final[dict[int, tuple[int, int]]] = {
    socket.AF_INET: (socket.IPPROTO_IP, 15),
    socket.AF_INET6: (socket.IPPROTO_IPV6, 78),
}
"""IP_FREEBIND and IPV6_FREEBIND, which the socket module does not name."""
_NO_FAMILY: Final = (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL, errno.EPROTONOSUPPORT)


def open_listeners(
    address: Address, *, backlog: int, shared: bool = False, mode: int = UNIX_MODE, freebind: bool = False
) -> list[socket.socket]:
    """Bound, listening, non-blocking sockets for an address; a name is resolved here, so call it before the event loop matters.

    Args:
        address: with port 0, the system picks one port for all sockets; `getsockname` tells which.
        backlog: connections that may wait to be accepted.
        shared: let other sockets of this user listen on the same port (SO_REUSEPORT); no meaning for a unix socket.
        mode: of a unix socket's file; no meaning for TCP.
        freebind: bind an address that no interface has yet (IP_FREEBIND); no meaning for a unix socket.

    Raises:
        ConfigError: it cannot be listened on; none of its sockets is left open.
    """
    if isinstance(address, UnixAddress):
        try:
            return [listen_unix(address.path, backlog, mode)]
        except OSError as exc:
            raise explain(address, exc) from None
    for attempt in range(_PORT_ATTEMPTS):
        try:
            return _listen_tcp(address, backlog, shared, freebind)
        except OSError as exc:
            # The port that the system picked for the first socket may be taken for the second: pick another.
            if address.port or exc.errno != errno.EADDRINUSE or attempt == _PORT_ATTEMPTS - 1:
                raise explain(address, exc) from None
    raise AssertionError("unreachable")


def open_in_place_of(
    leaving: Iterable[socket.socket],
    address: Address,
    *,
    backlog: int,
    shared: bool = False,
    mode: int = UNIX_MODE,
    freebind: bool = False,
) -> list[socket.socket]:
    """`open_listeners`, while sockets that are about to be closed may stand in the way.

    `0.0.0.0:80` and `127.0.0.1:80` exclude each other unless both say SO_REUSEPORT, so those that leave say it in hindsight.

    Args:
        leaving: listening sockets of this process that will be closed if this succeeds.
        address, backlog, shared, mode, freebind: as in `open_listeners`.

    Raises:
        ConfigError: as in `open_listeners`.
    """
    try:
        return open_listeners(address, backlog=backlog, shared=shared, mode=mode, freebind=freebind)
    except ConfigError:
        way = [] if isinstance(address, UnixAddress) else [sock for sock in leaving if _on_port(sock, address.port)]
        if not way:
            raise
    before = [sock.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT) for sock in way]
    for sock in way:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    try:
        return open_listeners(address, backlog=backlog, shared=True, freebind=freebind)
    except BaseException:
        for sock, value in zip(way, before, strict=True):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, value)
        raise


def _on_port(sock: socket.socket, port: int) -> bool:
    return sock.family != socket.AF_UNIX and sock.getsockname()[1] == port


def close_listeners(listeners: Iterable[socket.socket]) -> None:
    """Close listening sockets, and remove the file of a unix socket if it is still the one made here."""
    for sock in listeners:
        close_unix(sock)


# -- TCP -------------------------------------------------------------------------------------------------------------------


def _listen_tcp(address: TcpAddress, backlog: int, shared: bool, freebind: bool) -> list[socket.socket]:
    listeners: list[socket.socket] = []
    port = address.port
    try:
        for family, sockaddr in sockaddrs(address):
            try:
                sock = _listen_one(family, (sockaddr[0], port, *sockaddr[2:]), backlog, shared, freebind)
            except OSError as exc:
                if address.host in ("", "localhost") and family == socket.AF_INET6 and exc.errno in _NO_FAMILY:
                    continue  # a host without IPv6: every interface is every IPv4 interface
                raise
            listeners.append(sock)
            port = sock.getsockname()[1]
    except BaseException:
        close_listeners(listeners)
        raise
    return listeners


def sockaddrs(address: TcpAddress) -> list[tuple[int, tuple[Any, ...]]]:
    """Every (family, sockaddr) to bind, without repeats.

    Raises:
        ConfigError: a name that cannot be resolved.
    """
    if not address.host:
        return [(family, (host, address.port)) for family, host in _EVERY]
    if address.host == "localhost":  # by definition (RFC 6761), whatever the host's files say, as where it is dialled
        return [(family, (host, address.port)) for family, host in _LOOPBACK]
    if "%" in address.host:
        try:
            return [(socket.AF_INET6, numeric_sockaddr(address.host, address.port))]
        except OSError:
            zone = address.host.partition("%")[2]
            raise ConfigError(
                f"cannot listen on {address}: this machine has no interface {zone}", remedy="use a name that 'ip link' shows"
            ) from None
    try:
        found = socket.getaddrinfo(address.host.encode(), address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (socket.gaierror, UnicodeError) as exc:
        reason = exc.strerror if isinstance(exc, OSError) else str(exc)
        raise ConfigError(f"cannot resolve {address.host} to listen on it: {reason}", remedy="bind an IP address") from None
    return list(dict.fromkeys((family, sockaddr) for family, _, _, _, sockaddr in found))


def _listen_one(family: int, sockaddr: tuple[Any, ...], backlog: int, shared: bool, freebind: bool) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if shared:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        if freebind:
            level, option = _FREEBIND[family]
            sock.setsockopt(level, option, 1)
        sock.bind(sockaddr)
        sock.listen(backlog)
    except BaseException:
        sock.close()
        raise
    return sock


def listening_on(listeners: Iterable[socket.socket]) -> list[str]:
    """The concrete addresses of listening sockets, for the log: with the real port where the system picked it."""
    return [describe_sockaddr(sock.family, sock.getsockname()) for sock in listeners]
