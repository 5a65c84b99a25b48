"""What this process dials itself, so that rules which intercept connections leave it alone, and what they send back is known.

The rules spare the proxy by its user, or by the mark that its sockets carry. Where they were made for another user they send the
proxy's own connections back to it, and each would make another. So both addresses of every socket that is being dialled are kept
until the peer at its other end has proved itself: a connection accepted *from* the one that was going *to* the other is this
process's own. The first alone would not tell: the system gives one local port to sockets that are connected to different places.
With several workers another one may accept it; sooner or later it meets the one who dialled, and that ends it.
"""

from __future__ import annotations

import ipaddress
import socket
from typing import Any, Final, TypeAlias

from stcp_proxy.errors import ConfigError

_Name: TypeAlias = tuple[ipaddress.IPv4Address | ipaddress.IPv6Address, int]
_IP: Final = (socket.AF_INET, socket.AF_INET6)


class OwnConnections:
    """The connections of one tunnel that are on their way.

    Args:
        mark: SO_MARK for every socket that is dialled; None for none.
        before: those that this one comes in place of: it knows them too.
    """

    __slots__ = ("_dials", "_mark")

    def __init__(self, mark: int | None = None, before: OwnConnections | None = None) -> None:
        self._mark = mark
        self._dials: dict[_Name, set[_Name]] = {} if before is None else before._dials

    def prepare(self, sock: socket.socket) -> None:
        """Before it is connected.

        Raises:
            OSError: the mark may not be set.
        """
        if self._mark is not None and sock.family in _IP:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, self._mark)

    def under_way(self, sock: socket.socket, sockaddr: Any) -> None:
        """As soon as it has a local address, before anybody can have accepted it; `sockaddr` is where it is going."""
        if sock.family in _IP:
            self._dials.setdefault(_name(sock.getsockname()), set()).add(_name(sockaddr))

    def forget(self, sockname: Any) -> None:
        """What was dialled from there has arrived, or is given up."""
        if isinstance(sockname, tuple):
            self._dials.pop(_name(sockname), None)

    def knows(self, peername: Any, original: Any) -> bool:
        """Whether a connection from the one address, that was going to the other, is one of these."""
        return _name(original) in self._dials.get(_name(peername), ())

    def __len__(self) -> int:
        return len(self._dials)


def check_mark(mark: int) -> None:
    """Raises ConfigError where this process may not mark its sockets."""
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
