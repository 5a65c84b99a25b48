"""The new process's part of a takeover: get the listening sockets of the process that runs, serve, and only then say so.

A socket goes to the tunnel that would bind the same address, as in a reload. What no tunnel of the new file wants stays with the
old process, which accepts what waits there and closes it.
"""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Sequence
from typing import Final

import structlog

from stcp_proxy import __version__
from stcp_proxy.config import AdminPlan, Plan
from stcp_proxy.errors import ConfigError
from stcp_proxy.net.address import TcpAddress, UnixAddress
from stcp_proxy.net.listen import open_in_place_of
from stcp_proxy.net.peer_credentials import peer_credentials
from stcp_proxy.net.unix_socket import adopt_file, change_mode
from stcp_proxy.process import sd_notify, takeover_messages
from stcp_proxy.process.takeover_messages import Handed, Manager, Message
from stcp_proxy.process.takeover_server import check_peer, open_takeover_socket
from stcp_proxy.redact import printable
from stcp_proxy.tunnel.acceptor import BACKLOG
from stcp_proxy.tunnel.listener_handover import ListeningKey, listening_key, match_listeners

_log = structlog.get_logger("stcp_proxy.takeover")

PATIENCE: Final = 20.0
"""Seconds that the old process has for each answer."""
_NOBODY: Final = (FileNotFoundError, ConnectionRefusedError)


class Takeover:
    """The sockets of the process that runs, until this one serves. Without such a process there are none.

    Args:
        connection: to the old process; None without one.
        handed, sockets: what it sent.
        manager: the service manager that watches it.
    """

    def __init__(
        self,
        connection: socket.socket | None = None,
        handed: Sequence[Handed] = (),
        sockets: Sequence[socket.socket] = (),
        manager: Manager | None = None,
    ) -> None:
        self._connection = connection
        self._offered = list(zip(handed, sockets, strict=True))
        self._taken: set[int] = set()
        self._modes: dict[socket.socket, int] = {}
        self.manager: Final = manager

    # -- which sockets are whose -----------------------------------------------------------------------------------------------

    def listeners(self, plan: Plan, given: Sequence[list[socket.socket] | None]) -> list[list[socket.socket] | None]:
        """The listening sockets for each tunnel; None for a tunnel that binds its own.

        Args:
            plan: what this process serves.
            given: sockets of a service manager, which come first.

        Raises:
            ConfigError: an address cannot be bound beside the old process's.
        """
        keys: dict[str, ListeningKey] = {}
        numbers: dict[str, list[int]] = {}
        for number, (each, _) in enumerate(self._offered):
            if each.owner == "tunnel":
                keys[each.name] = (each.bind, each.transparent)
                numbers.setdefault(each.name, []).append(number)
        wanted = {tunnel.name: tunnel for tunnel, has in zip(plan.tunnels, given, strict=True) if has is None}
        giver = match_listeners(keys, {name: listening_key(tunnel) for name, tunnel in wanted.items()})
        found = dict(zip((tunnel.name for tunnel in plan.tunnels), given, strict=True))
        for name, other in giver.items():
            found[name] = [self._take(number, wanted[name].bind_mode) for number in numbers[other]]
        for name, tunnel in wanted.items():
            if name not in giver and isinstance(tunnel.bind, TcpAddress):
                found[name] = self._beside(tunnel.bind, freebind=tunnel.freebind)
        return [found[tunnel.name] for tunnel in plan.tunnels]

    def _beside(self, address: TcpAddress, *, freebind: bool) -> list[socket.socket] | None:
        """Listen on an address that sockets of the old process exclude which nobody takes; None where none is in the way."""
        leaving = [sock for number, (_, sock) in enumerate(self._offered) if number not in self._taken]
        if not any(sock.family != socket.AF_UNIX and sock.getsockname()[1] == address.port for sock in leaving):
            return None
        return open_in_place_of(leaving, address, backlog=BACKLOG, freebind=freebind)

    def admin(self, plan: AdminPlan | None) -> list[socket.socket] | None:
        """The listening sockets of the admin address; None where this process binds its own."""
        return None if plan is None else self._owned("admin", str(plan.address))

    def takeover_socket(self, address: UnixAddress) -> socket.socket | None:
        """The socket at which the next process asks; None where this process binds its own."""
        return next(iter(self._owned("takeover", str(address)) or []), None)

    def _owned(self, owner: str, bind: str) -> list[socket.socket] | None:
        numbers = [number for number, (each, _) in enumerate(self._offered) if (each.owner, each.bind) == (owner, bind)]
        return [self._take(number) for number in numbers] or None

    def _take(self, number: int, mode: int | None = None) -> socket.socket:
        self._taken.add(number)
        sock = self._offered[number][1]
        if mode is not None:
            self._modes[sock] = mode
        return sock

    # -- the end ---------------------------------------------------------------------------------------------------------------

    def forked(self) -> None:
        """In a worker, after the fork: the parent completes the takeover."""
        if self._connection is not None:
            self._connection.close()
            self._close_rest()

    def complete(self) -> None:
        """Say that this process serves, and wait until the old one has given its sockets up. Without an old one only log that.

        Raises:
            ConfigError: the old process refuses, because it stops: this one has to stop, too.
        """
        connection, self._connection = self._connection, None
        if connection is None:
            _log.info("no process to take over from: this one serves alone")
            return
        self._close_rest()
        answer = None
        with connection:
            try:
                takeover_messages.send(connection, "serving", taken=sorted(self._taken))
                answer = takeover_messages.receive(connection)
            except (OSError, ConfigError) as exc:
                _log.warning(
                    "the old process does not answer: this process serves",
                    why=exc.what if isinstance(exc, ConfigError) else exc.strerror or str(exc),
                    remedy="see that it has ended",
                )
        if answer is not None and answer.verb == "no":
            raise _refused(answer)
        for number in sorted(self._taken):
            handed, sock = self._offered[number]
            if handed.made and sock.fileno() >= 0:
                adopt_file(sock)
                if sock in self._modes:
                    change_mode([sock], self._modes[sock])
        if self.manager is not None:
            sd_notify.take_over()
        _log.info("took over from the old process", sockets=len(self._taken))
        self._offered.clear()

    def abandon(self) -> None:
        """Give everything back: the old process goes on as before."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None
        for _, sock in self._offered:
            sock.close()

    def _close_rest(self) -> None:
        for number, (_, sock) in enumerate(self._offered):
            if number not in self._taken:
                sock.close()


def take_over(address: UnixAddress) -> Takeover:
    """Get the sockets of the process that runs; without such a process, an empty result.

    Args:
        address: the `takeover` socket.

    Raises:
        ConfigError: the process that runs refuses, does not answer, or belongs to another user.
    """
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        connection.settimeout(PATIENCE)
        try:
            connection.connect(address.path)
        except _NOBODY:
            connection.close()
            return Takeover()
        except OSError as exc:
            what = f"the process that runs cannot be asked at {address}: {exc.strerror}"
            raise ConfigError(what, remedy="run both processes as one user, with the same 'takeover'") from None
        check_peer(peer_credentials(connection), f"listens at {address}")
        return _ask(connection)
    except BaseException:
        connection.close()
        raise


def takeover_socket(address: UnixAddress, takeover: Takeover | None) -> socket.socket:
    """The socket at which the next process asks: the old process's, or a new one.

    Raises:
        ConfigError: it cannot be listened on.
    """
    found = None if takeover is None else takeover.takeover_socket(address)
    return found or open_takeover_socket(address)


def _ask(connection: socket.socket) -> Takeover:
    handed: list[Handed] = []
    sockets: list[socket.socket] = []
    try:
        version, managed = takeover_messages.VERSION, bool(os.environ.get("NOTIFY_SOCKET"))
        with contextlib.suppress(BrokenPipeError):  # it has refused already, and the reason can be read
            takeover_messages.send(connection, "take", version=version, program=__version__, managed=managed)
        while True:
            message = takeover_messages.receive(connection)
            if message is None:
                raise ConfigError("the process that runs ended while it was asked", remedy="start this one again")
            handed += message.handed
            sockets += message.sockets
            if message.verb == "no":
                raise _refused(message)
            if message.verb != "sockets" or len(handed) > takeover_messages.MAX_LISTENERS:
                raise ConfigError("the process that runs answers with something else", remedy="restart it instead")
            for sock in message.sockets:
                _check(sock)
            if message.last:
                return Takeover(connection, handed, sockets, message.manager)
    except BaseException as exc:
        for sock in sockets:
            sock.close()
        if isinstance(exc, OSError):
            why = exc.strerror or "no answer in time"
            raise ConfigError(f"the process that runs does not answer: {why}", remedy="restart it instead") from None
        raise


def _check(sock: socket.socket) -> None:
    """Refuse what is not a listening socket. Raises ConfigError."""
    listens = False
    with contextlib.suppress(OSError):
        listens = bool(sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN))
    if not listens or sock.family not in (socket.AF_INET, socket.AF_INET6, socket.AF_UNIX):
        raise ConfigError("the process that runs sent something that is no listening socket", remedy="restart it instead")


def _refused(message: Message) -> ConfigError:
    remedy = "restart it instead" if message.remedy is None else printable(message.remedy)
    return ConfigError(f"the process that runs refuses the takeover: {printable(message.why)}", remedy=remedy)
