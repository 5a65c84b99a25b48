"""A connected socket for one resolved address, or the reason why there is none.

Users write addresses, `db.example:7443`. A connection attempt has a `SocketAddress`, one sockaddr of that address; `name_cache`
leads from the first to the second.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import trio

from stcp_proxy.errors import OverLimit, TargetError, TargetRefused, TargetTimedOut, TargetUnreachable
from stcp_proxy.net.address import describe_sockaddr
from stcp_proxy.net.first_steps import in_task, soon_writable
from stcp_proxy.net.own_connections import OwnConnections
from stcp_proxy.net.shortage import NO_PORTS, has_source_address, no_port, shortage
from stcp_proxy.net.transparent import bind_to_client
from stcp_proxy.protocol.opening import Endpoint

_UNIX_RETRY: Final = 0.01
"""Seconds between attempts at a unix socket whose backlog is full: the system has no readiness event for that."""
_TIMED_OUT: Final = "no answer in time"
_WORDS: Final = {
    errno.ECONNREFUSED: "connection refused",
    errno.ETIMEDOUT: _TIMED_OUT,
    errno.ENOENT: "no such socket",
    errno.EADDRNOTAVAIL: "this machine has no address of that family",
}


@dataclass(frozen=True, slots=True)
class SocketAddress:
    """One resolved address.

    Attributes:
        family: AF_INET, AF_INET6 or AF_UNIX.
        sockaddr: in the form of that family.
    """

    family: int
    sockaddr: Any

    def __str__(self) -> str:
        return describe_sockaddr(self.family, self.sockaddr)


def socket_address(endpoint: Endpoint) -> SocketAddress:
    """The socket address of an IP address and port."""
    host, _, scope = str(endpoint.ip).partition("%")
    if endpoint.ip.version == 4:
        return SocketAddress(socket.AF_INET, (host, endpoint.port))
    return SocketAddress(socket.AF_INET6, (host, endpoint.port, 0, int(scope or 0)))


@dataclass(frozen=True, slots=True)
class Dialled:
    """A connection that was made. The receiver owns the socket.

    Attributes:
        sock: connected, non-blocking.
        name: text of the concrete address.
    """

    sock: socket.socket
    name: str


@dataclass(frozen=True, slots=True)
class Failure:
    """A connection attempt or a name lookup that failed.

    Attributes:
        name: the address or name.
        status: the errno; 0 where there is none.
        words: what happened.
        local: whether the address is not to blame: this machine could not take the source address for it.
        lack: what this machine lacks, where that is the reason.
    """

    name: str
    status: int
    words: str
    local: bool = False
    lack: OverLimit | None = None

    def __str__(self) -> str:
        return f"{self.name}: {self.words}"


async def connect(
    address: SocketAddress, deadline: float, *, own: OwnConnections | None = None, source: Endpoint | None = None
) -> socket.socket | Failure:
    """Connect to one address.

    Args:
        address: of the other end.
        deadline: on Trio's clock.
        own: registers the socket; the caller removes it later, and a socket that fails is removed here.
        source: a client whose own address is the source, and whose port where that is free. [default: this machine's address]

    Returns:
        A connected, non-blocking socket, or why there is none.

    Raises:
        OverLimit: this machine lacks descriptors, memory or local ports.

    Cancellation closes the socket under way.
    """
    if source is not None and source.port:
        with contextlib.suppress(OverLimit):  # its own port is not free: another port of its address may be
            made = await _attempt(address, deadline, own, source)
            if not (isinstance(made, Failure) and made.local):
                return made
        source = Endpoint(source.ip, 0)
    return await _attempt(address, deadline, own, source)


async def _attempt(
    address: SocketAddress, deadline: float, own: OwnConnections | None, source: Endpoint | None
) -> socket.socket | Failure:
    try:
        sock = socket.socket(address.family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    except OSError as exc:
        status = exc.errno or errno.EIO  # a host without IPv6, say
    else:
        if source is not None and (refused := _take_address(sock, source)):
            sock.close()
            return Failure(str(address), refused[0], f"cannot be dialled from {source.ip}: {refused[1]}", local=True)
        status = await _connect(sock, address.sockaddr, deadline, own)
        if status == 0:
            return sock
        _give_up(sock, own)
    _check_shortage(status, address, source)
    return Failure(str(address), status, _WORDS.get(status) or os.strerror(status).lower())


def _check_shortage(status: int, address: SocketAddress, source: Endpoint | None) -> None:
    """Raises OverLimit where an errno of socket() or connect() is this machine's own."""
    lack = shortage(status)
    if lack is None and status in NO_PORTS and address.family != socket.AF_UNIX:
        if source is not None:
            lack = no_port(address, source.ip)
        elif has_source_address(address.family, address.sockaddr):
            lack = no_port(address)
    if lack is not None:
        raise lack


def _take_address(sock: socket.socket, source: Endpoint) -> tuple[int, str] | None:
    """Bind to a client's address; errno and words where that fails.

    Raises:
        OverLimit: this machine lacks memory.
    """
    try:
        bind_to_client(sock, source)
    except OSError as exc:
        if (lack := shortage(exc.errno)) is not None:
            sock.close()
            raise lack from None
        return exc.errno or errno.EIO, (exc.strerror or "it is refused").lower()
    return None


async def _connect(sock: socket.socket, sockaddr: Any, deadline: float, own: OwnConnections | None) -> int:
    """Connect, and return 0 or the errno. Closes the socket when it is cancelled; no checkpoint where it succeeds at once."""
    try:
        status = _connect_now(sock, sockaddr, own)
        if status == errno.EALREADY and await soon_writable(sock):
            # Asked again, and not taken from SO_ERROR: the event may be that of an older socket with the same descriptor.
            status = _unless_it_met_itself(sock, sockaddr, sock.connect_ex(sockaddr))
        if status == errno.EALREADY or (status == errno.EAGAIN and sock.family == socket.AF_UNIX):
            await in_task()
            with trio.move_on_at(deadline):
                return await _connect_patiently(sock, sockaddr)
            return errno.ETIMEDOUT
        if status != 0:
            await in_task()
            await trio.lowlevel.checkpoint()  # a hundred refusals in a row must not starve other tasks
        return status
    except BaseException:
        _give_up(sock, own)
        raise


def _give_up(sock: socket.socket, own: OwnConnections | None) -> None:
    if own is not None:
        own.forget(sock.getsockname())
    sock.close()


def _connect_now(sock: socket.socket, sockaddr: Any, own: OwnConnections | None) -> int:
    """Connect as far as that goes without waiting: 0, an errno, or EALREADY where the answer is still to come.

    On the same host TCP has its answer before `connect` returns, which says "in progress" nevertheless. Asked a second time it
    says how it went, and a wait is saved.
    """
    if own is not None:
        own.prepare(sock)
    status = sock.connect_ex(sockaddr)
    if own is not None:
        own.under_way(sock, sockaddr)
    if status == errno.EINPROGRESS:
        status = sock.connect_ex(sockaddr)
    return _unless_it_met_itself(sock, sockaddr, status)


async def _connect_patiently(sock: socket.socket, sockaddr: Any) -> int:
    """Wait for the result of a connection attempt in progress."""
    if sock.family == socket.AF_UNIX:
        status = errno.EAGAIN
        while status == errno.EAGAIN:
            await trio.sleep(_UNIX_RETRY)
            status = sock.connect_ex(sockaddr)
        return status
    await trio.lowlevel.wait_writable(sock.fileno())
    return _unless_it_met_itself(sock, sockaddr, sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR))


def _unless_it_met_itself(sock: socket.socket, sockaddr: Any, status: int) -> int:
    """`status`, or ECONNREFUSED where TCP has connected the socket to itself.

    TCP does that when the destination is a local port without a listener, and the system picks the same port as the source.
    """
    if status == 0 and isinstance(sockaddr, tuple) and sock.getsockname()[1] == sockaddr[1] and _met_itself(sock):
        return errno.ECONNREFUSED
    return status


def _met_itself(sock: socket.socket) -> bool:
    try:
        return bool(sock.getsockname() == sock.getpeername())
    except OSError:
        return False  # connected and already reset: the reader will see it


def summary(targets: Sequence[object], failures: Sequence[Failure]) -> TargetError | OverLimit:
    """The error for `targets`, none of which answered. What this machine lacks comes before a time-out, a time-out before a
    refusal, and a refusal before anything else."""
    for failure in failures:
        if failure.lack is not None:
            return failure.lack
    statuses = {failure.status for failure in failures}
    names = [str(target) for target in targets]
    what = f"cannot reach {' or '.join(names)} ({'; '.join(map(str, failures))})"
    if sorted(names) == sorted(failure.name for failure in failures):
        # In the order of the file, whichever was tried first: one fault has one sentence, and is counted once.
        what = f"cannot reach {'; '.join(map(str, sorted(failures, key=lambda failure: names.index(failure.name))))}"
    if errno.ETIMEDOUT in statuses:
        return TargetTimedOut(what, remedy="check that it is up and that no firewall drops its packets")
    if errno.ECONNREFUSED in statuses:
        return TargetRefused(what, remedy="check that the program is running and listens there")
    if failures and all(failure.local for failure in failures):
        return TargetUnreachable(
            what, remedy="give the target an address of its clients' family, or leave out 'source: transparent'"
        )
    return TargetUnreachable(what, remedy="check the address and the route to it")
