"""Listening sockets for an address.

`:port` and `localhost:port` are two sockets, one for each family, both on the same port; an IPv6 socket never takes IPv4
(IPV6_V6ONLY), so a log never shows a mapped address and `[::]:port` beside `0.0.0.0:port` does not collide. A name is bound
on all its addresses.

A unix socket left behind by a crash is taken over, a live one never: only a refused connect proves that nobody listens. The
file is created with mode 0600 (on Linux, fchmod on the unbound socket decides it, without touching the process's umask), or with
a wider one where that is asked for, which it has before anybody can connect. It is unlinked *before* its socket is closed: until
then, nobody else may take it for stale and bind there.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import stat
import weakref
from collections.abc import Iterable
from typing import Any, Final

from stcp_proxy.errors import ConfigError
from stcp_proxy.net.address import Address, TcpAddress, UnixAddress, describe_sockaddr
from stcp_proxy.net.zone import numeric_sockaddr

UNIX_MODE: Final = 0o600
"""Whoever may write to a unix socket may connect to it: the user who made it."""
_PORT_ATTEMPTS: Final = 20
_EVERY: Final = ((socket.AF_INET, "0.0.0.0"), (socket.AF_INET6, "::"))  # noqa: S104
_LOOPBACK: Final = ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1"))
_NO_FAMILY: Final = (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL, errno.EPROTONOSUPPORT)

_inodes: weakref.WeakKeyDictionary[socket.socket, tuple[int, int]] = weakref.WeakKeyDictionary()
"""Device and inode of each unix socket's file as we made it: only that file is ours to unlink."""


def open_listeners(address: Address, *, backlog: int, shared: bool = False, mode: int = UNIX_MODE) -> list[socket.socket]:
    """Bound, listening, non-blocking sockets for an address; a name is resolved here, so call it before the event loop matters.

    Args:
        address: with port 0, the system picks one port for all sockets; `getsockname` tells which.
        backlog: connections that may wait to be accepted.
        shared: let other sockets of this user listen on the same port (SO_REUSEPORT); no meaning for a unix socket.
        mode: of a unix socket's file; no meaning for TCP.

    Raises:
        ConfigError: it cannot be listened on; none of its sockets is left open.
    """
    if isinstance(address, UnixAddress):
        return [_listen_unix(address, backlog, mode)]
    for attempt in range(_PORT_ATTEMPTS):
        try:
            return _listen_tcp(address, backlog, shared)
        except OSError as exc:
            # The port that the system picked for the first socket may be taken for the second: pick another.
            if address.port or exc.errno != errno.EADDRINUSE or attempt == _PORT_ATTEMPTS - 1:
                raise _explain(address, exc) from None
    raise AssertionError("unreachable")


def open_in_place_of(
    leaving: Iterable[socket.socket], address: Address, *, backlog: int, shared: bool = False, mode: int = UNIX_MODE
) -> list[socket.socket]:
    """`open_listeners`, while sockets that are about to be closed may stand in the way.

    `0.0.0.0:80` and `127.0.0.1:80` exclude each other unless both say SO_REUSEPORT, so those that leave say it in hindsight.

    Args:
        leaving: listening sockets of this process that will be closed if this succeeds.
        address, backlog, shared, mode: as in `open_listeners`.

    Raises:
        ConfigError: as in `open_listeners`.
    """
    try:
        return open_listeners(address, backlog=backlog, shared=shared, mode=mode)
    except ConfigError:
        way = [] if isinstance(address, UnixAddress) else [sock for sock in leaving if _on_port(sock, address.port)]
        if not way:
            raise
    before = [sock.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT) for sock in way]
    for sock in way:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    try:
        return open_listeners(address, backlog=backlog, shared=True)
    except BaseException:
        for sock, value in zip(way, before, strict=True):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, value)
        raise


def change_mode(listeners: Iterable[socket.socket], mode: int) -> None:
    """Another mode for the files of those unix sockets among `listeners` that were made here and are still in place."""
    for sock in listeners:
        inode = _inodes.get(sock)
        if inode is not None:
            path = sock.getsockname()
            with contextlib.suppress(OSError):
                made = os.lstat(path)
                if (made.st_dev, made.st_ino) == inode:
                    _widen(path, made, mode)


def _on_port(sock: socket.socket, port: int) -> bool:
    return sock.family != socket.AF_UNIX and sock.getsockname()[1] == port


def close_listeners(listeners: Iterable[socket.socket]) -> None:
    """Close sockets from `open_listeners`, and remove the file of a unix socket if it is still the one made there."""
    for sock in listeners:
        inode = _inodes.pop(sock, None)
        if inode is not None:
            _unlink_ours(sock.getsockname(), inode)
        sock.close()


def leave_file(listeners: Iterable[socket.socket]) -> None:
    """Let another process remove the files of these unix sockets: closing them here will not."""
    for sock in listeners:
        _inodes.pop(sock, None)


# -- TCP -------------------------------------------------------------------------------------------------------------------


def _listen_tcp(address: TcpAddress, backlog: int, shared: bool) -> list[socket.socket]:
    listeners: list[socket.socket] = []
    port = address.port
    try:
        for family, sockaddr in sockaddrs(address):
            try:
                sock = _listen_one(family, (sockaddr[0], port, *sockaddr[2:]), backlog, shared)
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
        found = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (socket.gaierror, UnicodeError) as exc:
        reason = exc.strerror if isinstance(exc, OSError) else str(exc)
        raise ConfigError(f"cannot resolve {address.host} to listen on it: {reason}", remedy="bind an IP address") from None
    return list(dict.fromkeys((family, sockaddr) for family, _, _, _, sockaddr in found))


def _listen_one(family: int, sockaddr: tuple[Any, ...], backlog: int, shared: bool) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if shared:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind(sockaddr)
        sock.listen(backlog)
    except BaseException:
        sock.close()
        raise
    return sock


# -- unix ------------------------------------------------------------------------------------------------------------------


def _listen_unix(address: UnixAddress, backlog: int, mode: int) -> socket.socket:
    path = address.path
    try:
        _clear_the_way(path)
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        try:
            os.fchmod(sock.fileno(), mode)
            sock.bind(path)
            made = os.lstat(path)
            _inodes[sock] = (made.st_dev, made.st_ino)
            if stat.S_IMODE(made.st_mode) != mode:
                _widen(path, made, mode)  # bind() takes away what the umask says
            sock.listen(backlog)
        except BaseException:
            close_listeners([sock])
            raise
    except OSError as exc:
        raise _explain(address, exc) from None
    return sock


def _widen(path: str, made: os.stat_result, mode: int) -> None:
    """Give the file that `made` tells of its mode, and no other that may have come to stand at `path`."""
    fd = os.open(path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        found = os.fstat(fd)
        if stat.S_ISSOCK(found.st_mode) and (found.st_dev, found.st_ino) == (made.st_dev, made.st_ino):
            os.chmod(f"/proc/self/fd/{fd}", mode)
    finally:
        os.close(fd)


def _clear_the_way(path: str) -> None:
    """Remove a stale socket at `path`; refuse to touch anything else."""
    try:
        found = os.lstat(path)
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(found.st_mode):
        raise ConfigError(f"{path} exists and is not a socket", remedy="remove it, or choose another path")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as probe:
        status = probe.connect_ex(path)
    if status == errno.ECONNREFUSED:
        _unlink_ours(path, (found.st_dev, found.st_ino))
    elif status in (0, errno.EAGAIN):
        raise ConfigError(f"another program is listening on unix:{path}", remedy="stop it, or choose another path")
    elif status != errno.ENOENT:
        raise ConfigError(f"unix:{path} exists and cannot be probed: {os.strerror(status)}", remedy="remove it if nobody uses it")


def _unlink_ours(path: str, inode: tuple[int, int]) -> None:
    with contextlib.suppress(OSError):
        found = os.lstat(path)
        if (found.st_dev, found.st_ino) == inode:
            os.unlink(path)


# -- what to say -----------------------------------------------------------------------------------------------------------


def _explain(address: Address, exc: OSError) -> ConfigError:
    """The sentence for an operator: what the system refused, and what to do about it."""
    what, remedy = f"cannot listen on {address}: {exc.strerror or exc}", None
    if exc.errno in (errno.EMFILE, errno.ENFILE):
        return ConfigError(what, remedy="raise the limit of open files ('ulimit -n')")
    if isinstance(address, UnixAddress):
        if exc.errno == errno.ENOENT:
            what, remedy = f"cannot listen on {address}: its folder does not exist", "create the folder"
        elif exc.errno in (errno.EACCES, errno.EPERM):
            what = f"cannot listen on {address}: user {os.geteuid()} may not write to its folder"
            remedy = "choose a folder that this user owns"
    elif exc.errno == errno.EADDRINUSE:
        what = f"cannot listen on {address}: another program is listening there"
        remedy = f"stop it ('ss -ltnp sport = {address.port}' shows it), or bind another port"
    elif exc.errno == errno.EADDRNOTAVAIL:
        what = f"cannot listen on {address}: no interface of this machine has this address"
        remedy = "bind one that 'ip address' shows, or :port for all"
    elif exc.errno in (errno.EACCES, errno.EPERM):
        what = f"cannot listen on {address}: user {os.geteuid()} may not bind a privileged port"
        remedy = "bind a port from 1024 up, or grant CAP_NET_BIND_SERVICE"
    return ConfigError(what, remedy=remedy)


def listening_on(listeners: Iterable[socket.socket]) -> list[str]:
    """The concrete addresses of listening sockets, for the log: with the real port where the system picked it."""
    return [describe_sockaddr(sock.family, sock.getsockname()) for sock in listeners]
