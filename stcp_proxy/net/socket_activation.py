"""Socket activation: listening sockets that a service manager opened before this process started.

The protocol is systemd's: $LISTEN_FDS descriptors from 3 up, named by $LISTEN_FDNAMES, for the process $LISTEN_PID. A socket
belongs to the tunnel of the same name (`FileDescriptorName=` in its .socket unit), and must have the address that the tunnel
would bind itself: a unit and a configuration that disagree are reported at the start.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterable, Mapping, MutableMapping, Sequence
from typing import Final

from stcp_proxy.errors import ConfigError
from stcp_proxy.net.address import Address, UnixAddress, describe_sockaddr
from stcp_proxy.net.listen import close_listeners, sockaddrs
from stcp_proxy.redact import shown

_FIRST: Final = 3
_MAX: Final = 4096
"""The largest number of descriptors that is accepted."""

Sockets = Mapping[str, list[socket.socket]]
"""Listening sockets by name."""


def take(environ: MutableMapping[str, str] = os.environ) -> dict[str, list[socket.socket]]:
    """Take the sockets that were handed to this process: non-blocking, and no longer inherited by its children.

    Args:
        environ: the environment; the variables of the protocol are removed if they are for this process.

    Raises:
        ConfigError: a descriptor is no listening stream socket.
    """
    if environ.get("LISTEN_PID") != str(os.getpid()):
        return {}
    del environ["LISTEN_PID"]
    count, names = environ.pop("LISTEN_FDS", ""), environ.pop("LISTEN_FDNAMES", "")
    if not (count.isascii() and count.isdigit() and int(count) <= _MAX):
        raise ConfigError(f"LISTEN_FDS is {shown(count)}, which is no number of sockets", remedy="start it by systemd")
    found: dict[str, list[socket.socket]] = {}
    named = names.split(":") if names else []
    try:
        for index in range(int(count)):
            name = named[index] if index < len(named) else ""
            found.setdefault(name, []).append(_listener(_FIRST + index, name))
    except BaseException:
        close_listeners(_all(found))
        raise
    return found


def assign(sockets: Sockets, tunnels: Sequence[tuple[str, Address]]) -> list[list[socket.socket] | None]:
    """Assign each socket to its tunnel.

    Args:
        sockets: as `take` gave them.
        tunnels: each with its name and the address that it would bind.

    Returns:
        For each tunnel its sockets, or None where it has to bind itself.

    Raises:
        ConfigError: no tunnel has the name of a socket, or its tunnel binds another address. All sockets are closed.
    """
    try:
        for name in sockets.keys() - {name for name, _ in tunnels}:
            remedy = f"write FileDescriptorName= and one of these in its .socket unit: {', '.join(name for name, _ in tunnels)}"
            raise ConfigError(f"systemd handed over a socket named {shown(name)}, and no tunnel has that name", remedy=remedy)
        for name, bind in tunnels:
            for sock in sockets.get(name, []):
                _check(name, bind, sock)
    except BaseException:
        close_listeners(_all(sockets))
        raise
    return [sockets.get(name) for name, _ in tunnels]


def _all(sockets: Sockets) -> Iterable[socket.socket]:
    return (sock for group in sockets.values() for sock in group)


def _listener(fd: int, name: str) -> socket.socket:
    what = f"systemd handed over {shown(name)} (descriptor {fd})"
    try:
        sock = socket.socket(fileno=fd)
    except OSError as exc:
        raise ConfigError(
            f"{what}, which is no socket: {exc.strerror}", remedy="use ListenStream= alone in the .socket unit"
        ) from None
    try:
        if sock.type != socket.SOCK_STREAM:
            raise ConfigError(f"{what}, which is no stream socket", remedy="write ListenStream= in the .socket unit")
        if not sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
            raise ConfigError(f"{what}, which does not listen", remedy="write Accept=no in the .socket unit")
        if sock.family not in (socket.AF_INET, socket.AF_INET6, socket.AF_UNIX):
            raise ConfigError(f"{what}, which is neither TCP nor a unix socket", remedy="write a TCP port or a path in its unit")
        sock.set_inheritable(False)
        sock.setblocking(False)
    except BaseException:
        sock.close()
        raise
    return sock


def _check(name: str, bind: Address, sock: socket.socket) -> None:
    """Refuse a socket that is not at an address that `bind` means."""
    if not _fits(bind, sock):
        where = describe_sockaddr(sock.family, sock.getsockname())
        raise ConfigError(
            f"tunnel '{name}' binds {bind}, and the socket that systemd handed over for it is at {where}",
            remedy="write the same address behind ListenStream= as behind 'bind'",
        )


def _fits(bind: Address, sock: socket.socket) -> bool:
    if isinstance(bind, UnixAddress):
        return sock.family == socket.AF_UNIX and os.fsdecode(sock.getsockname()) == bind.path
    if sock.family == socket.AF_UNIX:
        return False
    host, port = sock.getsockname()[:2]
    return any(host == meant[0] and bind.port in (0, port) for family, meant in sockaddrs(bind) if family == sock.family)
