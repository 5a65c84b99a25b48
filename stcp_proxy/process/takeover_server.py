"""The old process's part of a takeover: hand the listening sockets to a new process, which then serves.

    the new process asks      its user is checked, its version is checked, and nobody else is taking over
    it gets the sockets       both processes have them; this one goes on accepting
    it says that it serves    this process closes them, names the new one to the service manager, and drains

Nothing changes before the last step: a new process that ends, fails or says nothing costs a line in the log.

All this is in a thread: the parent of worker processes has no event loop, and a single process does the same thing the same way.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import threading
import time
from collections.abc import Sequence
from typing import Final, Protocol

import structlog

from stcp_proxy.errors import ConfigError, ShuttingDown, StcpError
from stcp_proxy.net.address import UnixAddress
from stcp_proxy.net.listen_error import explain
from stcp_proxy.net.peer_credentials import PeerCredentials, peer_credentials
from stcp_proxy.net.unix_socket import close_unix, forget_file, listen_unix, made_here
from stcp_proxy.process import running, sd_notify, takeover_messages
from stcp_proxy.process.takeover_messages import Handed, Message
from stcp_proxy.redact import printable, shown
from stcp_proxy.session.handover import stopping

_log = structlog.get_logger("stcp_proxy.takeover")

PATIENCE: Final = 10.0
"""Seconds that a new process has to ask."""
START_PATIENCE: Final = 60.0
"""Seconds that a new process has to serve, once it has the sockets."""
_BACKLOG: Final = 8
_LAST_WORDS: Final = 2.0
_EXHAUSTED_PAUSE: Final = 0.1

Offer = list[tuple[Handed, socket.socket]]
"""Listening sockets with their descriptions."""


class Source(Protocol):
    """Where the listening sockets are: in this process, or in its workers. Called in the server's thread."""

    def offer(self) -> Offer:
        """All listening sockets of tunnels and admin address. Raises StcpError."""

    def done(self, offer: Offer) -> None:
        """The offer has been sent, or given up: close what was made for it."""

    def give_up(self, taken: Sequence[int]) -> None:
        """Stop accepting, close every listening socket, and drain.

        Args:
            taken: the sockets of the last offer that the new process has, counted from 0.

        Raises:
            StcpError: nothing was given up.
        """


def open_takeover_socket(address: UnixAddress) -> socket.socket:
    """The socket at which new processes ask. Only this user and root may connect: mode 0600.

    Raises:
        ConfigError: it cannot be listened on.
    """
    try:
        return listen_unix(address.path, _BACKLOG, kind=socket.SOCK_SEQPACKET)
    except OSError as exc:
        raise explain(address, exc) from None


class TakeoverServer:
    """Waits for a new process, in a thread.

    Args:
        address: of the listener, as in the file.
        listener: the socket at which new processes ask; owned by this object.
        source: where the other listening sockets are.
        start_patience: seconds that a new process has to serve.
    """

    def __init__(
        self, address: UnixAddress, listener: socket.socket, source: Source, *, start_patience: float = START_PATIENCE
    ) -> None:
        self._address = address
        self._listener = listener
        self._source = source
        self._start_patience = start_patience
        self._closing = False
        self._hears, self._wakes = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._wakes.setblocking(False)
        self._thread = threading.Thread(target=self._run, name="stcp-takeover", daemon=True)

    def start(self) -> None:
        """Start the thread. Call it after the last fork."""
        self._thread.start()

    def stop(self) -> None:
        """End a takeover that has not gone through, and accept none from now on. May be called by a signal handler."""
        self._closing = True
        with contextlib.suppress(OSError):
            self._wakes.send(b"!")

    def close(self) -> None:
        """`stop`, and close the socket."""
        self.stop()
        if self._thread.is_alive():
            self._thread.join(_LAST_WORDS)
        close_unix(self._listener)
        self._hears.close()
        self._wakes.close()

    # -- the thread ------------------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        while not self._closing:
            try:
                self._wait(None, None)
                connection, _ = self._listener.accept()
            except ShuttingDown:
                return
            except OSError:  # no descriptor is free, or the process that asked has ended
                time.sleep(_EXHAUSTED_PAUSE)
                continue
            with connection:
                if self._serve(connection):
                    return

    def _serve(self, connection: socket.socket) -> bool:
        """Serve one process that asks. Returns whether it has taken over."""
        peer = peer_credentials(connection)
        try:
            return self._hand_over(connection, peer)
        except StcpError as exc:
            with contextlib.suppress(OSError):
                takeover_messages.send(connection, "no", why=exc.what[: takeover_messages.MAX_TEXT], remedy=exc.remedy)
            if not self._closing:
                _log.warning(
                    "takeover refused: everything goes on as before",
                    who=str(peer),
                    why=exc.what,
                    **({"remedy": exc.remedy} if exc.remedy else {}),
                )
        except Exception as exc:
            why = f"{type(exc).__name__}: {exc}"
            _log.error("takeover failed: everything goes on as before", who=str(peer), why=why, remedy="try again", exc_info=exc)
        return False

    def _hand_over(self, connection: socket.socket, peer: PeerCredentials | None) -> bool:
        check_peer(peer, "asks for this proxy's sockets")
        asked = self._next(connection, "take", PATIENCE)
        if asked.version != takeover_messages.VERSION:
            what = f"it speaks version {asked.version} of the takeover, and this process version {takeover_messages.VERSION}"
            raise ConfigError(what, remedy="restart the proxy instead")
        running.check_replaceable()
        offer = self._source.offer()
        try:
            offer.append((Handed("takeover", "", str(self._address), made=made_here(self._listener)), self._listener))
            if len(offer) > takeover_messages.MAX_LISTENERS:
                raise ConfigError(f"{len(offer)} sockets are too many for a takeover", remedy="restart the proxy instead")
            manager = None if asked.managed else sd_notify.manager()
            connection.setblocking(True)
            connection.settimeout(PATIENCE)
            takeover_messages.send_sockets(connection, [each for each, _ in offer], [sock for _, sock in offer], manager)
        finally:
            self._source.done([each for each in offer if each[1] is not self._listener])
        _log.info("a new process takes over", who=str(peer), version=shown(asked.program), sockets=len(offer))
        serving = self._next(connection, "serving", self._start_patience)
        taken = set(serving.taken)
        if not taken <= set(range(len(offer))):
            raise ConfigError("it has taken sockets that it was not offered", remedy="restart the proxy instead")
        self._commit(connection, peer, len(offer) - 1, taken, managed=manager is not None)
        return True

    def _commit(
        self, connection: socket.socket, peer: PeerCredentials | None, own: int, taken: set[int], *, managed: bool
    ) -> None:
        """Give everything up. From there on the new process serves, whatever happens to the connection.

        Args:
            own: the number of the listener of this object.
            managed: whether the service manager of this process watches the new one from now on.
        """
        self._source.give_up(sorted(taken - {own}))  # first: until it has begun, it may be refused, and this process goes on
        if own in taken:
            forget_file([self._listener])
        close_unix(self._listener)
        if managed and peer is not None:
            sd_notify.hand_over(peer.pid)
        _log.info("replaced: a new process serves", who=str(peer))
        with contextlib.suppress(OSError):
            takeover_messages.send(connection, "yours")

    def _next(self, connection: socket.socket, verb: str, seconds: float) -> Message:
        """The next message of the process that takes over.

        Raises:
            StcpError: it sent something else, ended, or took too long.
        """
        self._wait(connection, seconds)
        try:
            message = takeover_messages.receive(connection)
        except OSError as exc:
            raise ConfigError(f"the new process cannot be heard: {exc.strerror}", remedy="try again") from None
        if message is None:
            raise ConfigError("the new process ended before it served", remedy="look for its reason in its own log")
        for each in message.sockets:
            each.close()
        if message.verb == "no":
            raise ConfigError(f"the new process gave up: {printable(message.why)}", remedy="look for its reason in its own log")
        if message.verb != verb:
            raise ConfigError(f"the new process sent '{message.verb}' instead of '{verb}'", remedy="restart the proxy instead")
        return message

    def _wait(self, connection: socket.socket | None, seconds: float | None) -> None:
        """Wait until the connection can be read, or without one until a process asks; others that ask meanwhile are refused.

        Raises:
            ShuttingDown: this process stops.
            ConfigError: the time is over.
        """
        wanted = self._listener if connection is None else connection
        poll = select.poll()
        for sock in {self._hears, self._listener, wanted}:
            poll.register(sock, select.POLLIN)
        deadline = None if seconds is None else time.monotonic() + seconds
        while True:
            left = None if deadline is None else deadline - time.monotonic()
            if left is not None and left <= 0:
                raise ConfigError(f"the new process did not serve within {seconds:g} seconds", remedy="look in its own log")
            ready = {fd for fd, _ in poll.poll(None if left is None else left * 1000 + 1)}
            if self._closing:
                raise stopping()
            if wanted.fileno() in ready:
                return
            if self._listener.fileno() in ready:
                self._refuse_another()

    def _refuse_another(self) -> None:
        with contextlib.suppress(OSError):
            other, _ = self._listener.accept()
            with other:
                why = "another process is taking over already"
                takeover_messages.send(other, "no", why=why, remedy="wait until it has, then try again")


def check_peer(peer: PeerCredentials | None, does: str) -> None:
    """Refuse a process at the other end that belongs to another user.

    Raises:
        ConfigError: it does.
    """
    if peer is None or not peer.same_user_or_root:
        who = "a process of an unknown user" if peer is None else str(peer)
        remedy = f"run both processes as user {os.geteuid()}"
        raise ConfigError(f"{who} {does}, and only this user and root may", remedy=remedy)
