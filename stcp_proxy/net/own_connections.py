"""The connections that this process makes itself: no rule may intercept them, and those that come back are recognised.

The rules of interception exempt the proxy by its user, or by the mark of its sockets. Rules made for another user redirect the
proxy's own connections to it, and each would make another. So both addresses of a connection attempt are registered until the
peer has authenticated: an accepted connection *from* the first address that was going *to* the second is this process's own. The
first address alone is not enough: the system gives one local port to sockets with different destinations.

A connection is not recognised in two cases: a different worker process accepts it, or NAT has changed its source port, because
an earlier connection still has this port in connection tracking. Its session then dials again. The loop ends at the first
connection that is recognised.
"""

from __future__ import annotations

import ipaddress
import socket
from typing import Any, Final, TypeAlias

from stcp_proxy.errors import ConfigError

_Name: TypeAlias = tuple[ipaddress.IPv4Address | ipaddress.IPv6Address, int]
_IP: Final = (socket.AF_INET, socket.AF_INET6)


class OwnConnections:
    """The connection attempts of one tunnel.

    Args:
        mark: SO_MARK for every socket; None for none.
        before: the registry of the tunnel's earlier plan, whose attempts are taken over.
    """

    __slots__ = ("_dials", "_mark")

    def __init__(self, mark: int | None = None, before: OwnConnections | None = None) -> None:
        self._mark = mark
        self._dials: dict[_Name, set[_Name]] = {} if before is None else before._dials

    def prepare(self, sock: socket.socket) -> None:
        """Set the mark of a socket that is going to be connected.

        Raises:
            OSError: the mark may not be set.
        """
        if self._mark is not None and sock.family in _IP:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, self._mark)

    def under_way(self, sock: socket.socket, sockaddr: Any) -> None:
        """Register a socket that has a local address and cannot have been accepted yet; `sockaddr` is its destination."""
        if sock.family in _IP:
            self._dials.setdefault(_name(sock.getsockname()), set()).add(_name(sockaddr))

    def forget(self, sockname: Any) -> None:
        """Remove the attempt from this local address: it has been authenticated, or has failed."""
        if isinstance(sockname, tuple):
            self._dials.pop(_name(sockname), None)

    def knows(self, peername: Any, original: Any) -> bool:
        """Whether a connection from `peername` that was going to `original` is a registered attempt."""
        return _name(original) in self._dials.get(_name(peername), ())

    def __len__(self) -> int:
        return len(self._dials)


def check_mark(mark: int) -> None:
    """Raise ConfigError where this process may not mark its sockets."""
    with socket.socket() as sock:
        try:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, mark)
        except OSError as exc:
            raise ConfigError(
                f"the mark {mark:#x}, by which the rules know the proxy's own connections, cannot be set: {exc.strerror}",
                remedy="grant CAP_NET_ADMIN to the proxy; with 'intercept: redirect' it does without 'mark', by its user",
            ) from None


def _name(sockaddr: Any) -> _Name:
    return ipaddress.ip_address(sockaddr[0].partition("%")[0]), sockaddr[1]
