"""The kernel engine: the module stcp.ko carries the connection, and reports its end to user space.

A relayed connection costs this process one descriptor, the wire leg, and one small object. The relay lives as long as this
descriptor is open. The module reports EPOLLHUP on it after it has released both legs, and no event before. So one thread in
epoll_wait serves any number of connections, and does not wake up for their bytes.

The module cannot take a connection whose plain leg is a unix socket, or whose leg is already gone. The user-space engine then
carries it, with the reason in `why_engine` and in `fallbacks`. A refused connection is unchanged.
"""

from __future__ import annotations

import collections
import contextlib
import errno
import logging
import os
import select
import socket
import threading
from collections.abc import Callable
from typing import Final

from stcp_proxy.errors import Code
from stcp_proxy.protocol import opening
from stcp_proxy.protocol.wire import CODE_LEN
from stcp_proxy.relay import kernel_abi as abi
from stcp_proxy.relay.engine import EndReason, Handover, Relay, RelayEnd, WireLeg
from stcp_proxy.relay.kernel_module import KernelUnavailable, borrow, end_of, hand_over, probe, status_of, take_back
from stcp_proxy.relay.pump import PumpEngine

__all__ = ["FallenBack", "KernelEngine", "KernelRelay", "KernelUnavailable", "probe"]

_log: Final = logging.getLogger(__name__)
_MAX_EVENTS: Final = 512


class KernelRelay:
    """A connection that the kernel carries; see `stcp_proxy.relay.engine.Relay`."""

    __slots__ = ("_end", "_engine", "fd", "give_back", "on_end")

    engine: Final = "kernel"
    why_engine: Final = ""

    def __init__(
        self,
        engine: KernelEngine,
        fd: int,
        on_end: Callable[[RelayEnd], None],
        give_back: Callable[[WireLeg], None] | None,
    ) -> None:
        self._engine = engine
        self.fd = fd
        """The wire leg's descriptor. Only the engine's thread closes it or gives it back, under the engine's lock."""
        self.on_end = on_end
        self.give_back = give_back
        """See `Handover.give_back`."""
        self._end: RelayEnd | None = None

    def counts(self) -> tuple[int, int]:
        """Application bytes so far: (plain to wire, wire to plain)."""
        with self._engine.lock:
            if self._end is None:
                status = status_of(self.fd)
                return status.bytes_to_wire, status.bytes_to_plain
        return self._end.bytes_to_wire, self._end.bytes_to_plain

    def status(self) -> abi.Status | None:
        """The module's counters and state of this connection; None after its end."""
        with self._engine.lock:
            return status_of(self.fd) if self._end is None else None

    def abort(self, code: Code, text: str) -> None:
        """Send RESET to the peer and a TCP RST to the application."""
        raw = opening.encode_reason(code, text)[CODE_LEN:]
        args = abi.ABORT_ARGS.pack(abi.INTERFACE, code, len(raw), raw)
        with self._engine.lock:
            if self._end is None:
                with borrow(self.fd) as wire, contextlib.suppress(OSError):  # EALREADY: the connection ends already
                    wire.setsockopt(abi.SOL_STCP, abi.ABORT, args)

    def close(self, end: RelayEnd) -> None:
        """Keep the end and close the wire leg. For the engine's thread."""
        with self._engine.lock:
            self._end = end
            os.close(self.fd)

    def part(self, end: RelayEnd, status: abi.Status) -> WireLeg | None:
        """Keep the end and take the wire leg from the module. For the engine's thread.

        Returns:
            The leg; None where the module does not give it back. Then it is closed.
        """
        with self._engine.lock:
            self._end = end
            wire = take_back(self.fd)
        return None if wire is None else WireLeg(wire, status.send_counter, status.receive_counter, b"")


class FallenBack:
    """A connection that the module refused and the user-space engine carries, with the reason."""

    __slots__ = ("_relay", "why_engine")

    def __init__(self, relay: Relay, why_engine: str) -> None:
        self._relay = relay
        self.why_engine: Final = why_engine

    @property
    def engine(self) -> str:
        return self._relay.engine

    def counts(self) -> tuple[int, int]:
        return self._relay.counts()

    def abort(self, code: Code, text: str) -> None:
        self._relay.abort(code, text)


class KernelEngine:
    """Carries connections in the kernel. See `stcp_proxy.relay.engine.Engine`."""

    name: Final = "kernel"
    keeps_legs = False
    """Whether the module gives wire legs back. Known after `start`."""

    def __init__(self) -> None:
        self.lock: Final = threading.Lock()
        """Held while a relay's descriptor is used or closed: a closed number may already belong to another file."""
        self.fallbacks: Final[collections.Counter[str]] = collections.Counter()
        """Connections that the user-space engine carries instead, by reason."""
        self._relays: dict[int, KernelRelay] = {}
        self.fallback = PumpEngine()
        """The user-space engine for refused connections."""
        self._shares_fallback = False
        self._thread: threading.Thread | None = None
        self._stopping = False

    # -- from any thread ---------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Check the module, open the epoll set, start the thread, and the user-space engine where it does not run yet.

        Raises:
            KernelUnavailable: the module is not there.
            OSError: the process is out of descriptors.
        """
        self.keeps_legs = probe()
        if not self.fallback.opened:
            self.fallback.start()
        self._epoll = select.epoll()
        self._wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._epoll.register(self._wake, select.EPOLLIN)
        self._thread = threading.Thread(target=self._run, name="stcp-kernel", daemon=True)
        self._thread.start()

    def share(self, pump: PumpEngine) -> None:
        """Let a running engine take the refused connections, which its owner closes. Call it before `start`."""
        self.fallback = pump
        self._shares_fallback = True

    def adopt(self, handover: Handover, on_end: Callable[[RelayEnd], None]) -> Relay:
        """Carry a connection until it ends; see `Engine.adopt`."""
        with self.lock:
            stopping = self._stopping
            failure: OSError | None = None
            try:
                self._hand_over(handover, watch=not stopping)
            except OSError as exc:
                failure = exc
            else:
                handover.plain.close()  # the module holds a reference of its own
                relay = KernelRelay(self, handover.wire.detach(), on_end, handover.give_back)
                if not stopping:
                    self._relays[relay.fd] = relay
        if failure is not None:
            return self._fall_back(_words(failure, handover), handover, on_end)
        if stopping:
            self._drop(relay)
        return relay

    def _hand_over(self, handover: Handover, *, watch: bool) -> None:
        """Watch the wire leg for its end, then give both legs to the module. No step after that can fail.

        Raises:
            OSError: one of the two steps failed, and the wire leg is not watched.
        """
        if watch:
            self._epoll.register(handover.wire.fileno(), 0)  # epoll always reports EPOLLHUP
        try:
            hand_over(handover)
        except OSError:
            if watch:
                self._epoll.unregister(handover.wire.fileno())
            raise

    def close(self) -> None:
        """Send a TCP RST to every leg, stop the thread and close the descriptors. Idempotent."""
        with self.lock:
            already, self._stopping = self._stopping, True
        if already:
            return
        if self._thread is None:  # it was not started, or not completely
            self._close_fallback()
            return
        os.eventfd_write(self._wake, 1)
        self._thread.join()
        self._close_fallback()

    def _close_fallback(self) -> None:
        if not self._shares_fallback:
            self.fallback.close()

    def _fall_back(self, reason: str, handover: Handover, on_end: Callable[[RelayEnd], None]) -> Relay:
        with self.lock:
            self.fallbacks[reason] += 1
        return FallenBack(self.fallback.adopt(handover, on_end), reason)

    # -- the engine's thread -----------------------------------------------------------------------------------------------

    def _run(self) -> None:
        while not self._stopping:
            for fd, _ in self._epoll.poll(None, _MAX_EVENTS):
                if fd != self._wake:
                    self._ended(fd)
        for relay in list(self._relays.values()):
            self._drop(relay)
        self._relays.clear()
        self._epoll.close()
        os.close(self._wake)

    def _ended(self, fd: int) -> None:
        """The module has released a connection: report its end."""
        with self.lock:  # during a handover, the leg may already report EPOLLHUP
            relay = self._relays.get(fd)
            status = None if relay is None else status_of(fd)
            if relay is None or status is None or not status.ended:
                return
            del self._relays[fd]
        end, give_back = end_of(status), relay.give_back
        if status.kept and give_back is not None:
            self._epoll.unregister(fd)
            wire = relay.part(end, status)
            if wire is not None:
                _give_back(give_back, wire)
        else:
            relay.close(end)
        _tell(relay, end)

    def _drop(self, relay: KernelRelay) -> None:
        """Close the wire leg, which makes the module send a TCP RST to both legs."""
        status = status_of(relay.fd)
        text = "the engine was closed"
        end = RelayEnd(EndReason.ABORTED, status.bytes_to_wire, status.bytes_to_plain, text=text)
        if status.end is not abi.End.NONE:
            end = end_of(status)
        relay.close(end)
        _tell(relay, end)


def _give_back(give_back: Callable[[WireLeg], None], wire: WireLeg) -> None:
    try:
        give_back(wire)
    except Exception:  # a bug of the owner must not end the other connections
        wire.socket.close()
        _log.exception("give_back of a relayed connection raised")


def _tell(relay: KernelRelay, end: RelayEnd) -> None:
    on_end = relay.on_end
    relay.on_end = _nobody
    try:
        on_end(end)
    except Exception:  # a bug of the owner must not end the other connections
        _log.exception("on_end of a relayed connection raised")


def _nobody(end: RelayEnd) -> None:
    pass


def _is_unix(sock: socket.socket) -> bool:
    return sock.family == socket.AF_UNIX


def _words(exc: OSError, handover: Handover) -> str:
    """Why the module refused a connection."""
    if _is_unix(handover.plain):
        return "its plain leg is a unix socket"
    if exc.errno == errno.ENOTCONN:
        return "one of its legs is gone already"
    if exc.errno == errno.ENOENT:
        return "the module stcp is not loaded any more"
    return f"the module stcp refused it: {exc.strerror or exc}"
