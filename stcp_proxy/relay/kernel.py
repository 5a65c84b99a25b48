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
import ctypes
import errno
import logging
import os
import select
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Final

from stcp_proxy.errors import Code
from stcp_proxy.protocol import opening
from stcp_proxy.protocol.wire import CODE_LEN
from stcp_proxy.relay import kernel_abi as abi
from stcp_proxy.relay.engine import EndReason, Handover, Relay, RelayEnd
from stcp_proxy.relay.plain_leg import finish_on_close
from stcp_proxy.relay.pump import PumpEngine

_log: Final = logging.getLogger(__name__)
_MAX_EVENTS: Final = 512


class KernelUnavailable(OSError):
    """The module cannot be used on this machine; the text gives the reason."""


def probe() -> None:
    """Check that the module is there and has the interface version of this program. Loads it if the process may do that.

    Raises:
        KernelUnavailable: the module is missing, or has another interface version.
    """
    with contextlib.ExitStack() as stack:
        try:
            listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
            near = stack.enter_context(socket.create_connection(listener.getsockname(), timeout=5))
            stack.enter_context(listener.accept()[0])
            near.setsockopt(socket.SOL_TCP, abi.TCP_ULP, abi.ULP_NAME)
        except FileNotFoundError:
            raise KernelUnavailable(errno.ENOENT, "the module stcp is not loaded") from None
        except OSError as exc:
            raise KernelUnavailable(exc.errno, f"the module stcp cannot be tried: {exc.strerror or exc}") from None
        try:
            near.getsockopt(abi.SOL_STCP, abi.STATUS, abi.STATUS_ARGS.size)
        except OSError as exc:
            if exc.errno != errno.ENOTCONN:  # ENOTCONN is right: nothing is relayed yet
                raise KernelUnavailable(
                    exc.errno, f"the module stcp speaks another interface than version {abi.INTERFACE}"
                ) from None


def _relay_args(
    plain_fd: int,
    send_key: bytes,
    send_counter: int,
    receive_key: bytes,
    receive_counter: int,
    *,
    wire_at: int = 0,
    wire_len: int = 0,
    milliseconds: tuple[int, int, int] = (0, 0, 0),
) -> bytearray:
    """struct stcp_relay_args, as a bytearray that the caller can overwrite with zeros: it holds keys."""
    args = bytearray(abi.RELAY_ARGS.size)
    abi.RELAY_ARGS.pack_into(
        args, 0,
        abi.INTERFACE, len(args), plain_fd,
        send_counter, send_key, receive_counter, receive_key,
        wire_at, 0, wire_len, 0, *milliseconds, 0,
    )  # fmt: skip
    return args


class KernelRelay:
    """A connection that the kernel carries; see `stcp_proxy.relay.engine.Relay`."""

    __slots__ = ("_end", "_engine", "fd", "on_end")

    engine: Final = "kernel"
    why_engine: Final = ""

    def __init__(self, engine: KernelEngine, fd: int, on_end: Callable[[RelayEnd], None]) -> None:
        self._engine = engine
        self.fd = fd
        """The wire leg's descriptor. Only the engine's thread closes it, under the engine's lock."""
        self.on_end = on_end
        self._end: RelayEnd | None = None

    def counts(self) -> tuple[int, int]:
        """Application bytes so far: (plain to wire, wire to plain)."""
        with self._engine.lock:
            if self._end is None:
                status = _status(self.fd)
                return status.bytes_to_wire, status.bytes_to_plain
        return self._end.bytes_to_wire, self._end.bytes_to_plain

    def status(self) -> abi.Status | None:
        """The module's counters and state of this connection; None after its end."""
        with self._engine.lock:
            return _status(self.fd) if self._end is None else None

    def abort(self, code: Code, text: str) -> None:
        """Send RESET to the peer and a TCP RST to the application."""
        raw = opening.encode_reason(code, text)[CODE_LEN:]
        args = abi.ABORT_ARGS.pack(abi.INTERFACE, code, len(raw), raw)
        with self._engine.lock:
            if self._end is None:
                with _borrow(self.fd) as wire, contextlib.suppress(OSError):  # EALREADY: the connection ends already
                    wire.setsockopt(abi.SOL_STCP, abi.ABORT, args)

    def close(self, end: RelayEnd) -> None:
        """Keep the end and close the wire leg. For the engine's thread."""
        with self._engine.lock:
            self._end = end
            os.close(self.fd)


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
    keeps_legs: Final = False

    def __init__(self) -> None:
        self.lock: Final = threading.Lock()
        """Held while a relay's descriptor is used or closed: a closed number may already belong to another file."""
        self.fallbacks: Final[collections.Counter[str]] = collections.Counter()
        """Connections that the user-space engine carries instead, by reason."""
        self._relays: dict[int, KernelRelay] = {}
        self._python = PumpEngine()
        self._thread: threading.Thread | None = None
        self._stopping = False

    # -- from any thread ---------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Check the module, open the epoll set, start the thread and the user-space engine for refused connections.

        Raises:
            KernelUnavailable: the module is not there.
            OSError: the process is out of descriptors.
        """
        probe()
        self._python.start()
        self._epoll = select.epoll()
        self._wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._epoll.register(self._wake, select.EPOLLIN)
        self._thread = threading.Thread(target=self._run, name="stcp-kernel", daemon=True)
        self._thread.start()

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
                relay = KernelRelay(self, handover.wire.detach(), on_end)
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
            _hand_over(handover)
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
            self._python.close()
            return
        os.eventfd_write(self._wake, 1)
        self._thread.join()
        self._python.close()

    def _fall_back(self, reason: str, handover: Handover, on_end: Callable[[RelayEnd], None]) -> Relay:
        with self.lock:
            self.fallbacks[reason] += 1
        return FallenBack(self._python.adopt(handover, on_end), reason)

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
            status = None if relay is None else _status(fd)
            if relay is None or status is None or not status.ended:
                return
            del self._relays[fd]
        end = _end_of(status)
        relay.close(end)
        _tell(relay, end)

    def _drop(self, relay: KernelRelay) -> None:
        """Close the wire leg, which makes the module send a TCP RST to both legs."""
        status = _status(relay.fd)
        text = "the engine was closed"
        end = RelayEnd(EndReason.ABORTED, status.bytes_to_wire, status.bytes_to_plain, text=text)
        if status.end is not abi.End.NONE:
            end = _end_of(status)
        relay.close(end)
        _tell(relay, end)


def _tell(relay: KernelRelay, end: RelayEnd) -> None:
    on_end = relay.on_end
    relay.on_end = _nobody
    try:
        on_end(end)
    except Exception:  # a bug of the owner must not end the other connections
        _log.exception("on_end of a relayed connection raised")


def _nobody(end: RelayEnd) -> None:
    pass


# -- talking to the module -----------------------------------------------------------------------------------------------


def _hand_over(handover: Handover) -> None:
    """Give both sockets to the module.

    Raises:
        OSError: the module refused them. Both are unchanged, but for the protocol "stcp", which has no effect by itself.
    """
    if len(handover.wire_bytes) > abi.MAX_QUEUED:
        raise OSError(errno.EMSGSIZE, os.strerror(errno.EMSGSIZE))
    for leg in (handover.plain, handover.wire):
        leg.setsockopt(socket.SOL_TCP, abi.TCP_ULP, abi.ULP_NAME)
    queued = ctypes.create_string_buffer(handover.wire_bytes, max(1, len(handover.wire_bytes)))
    limits = handover.limits
    args = _relay_args(
        handover.plain.fileno(),
        handover.send.key.reveal(),
        handover.send.counter,
        handover.receive.key.reveal(),
        handover.receive.counter,
        wire_at=ctypes.addressof(queued),
        wire_len=len(handover.wire_bytes),
        milliseconds=(_milliseconds(limits.idle), _milliseconds(limits.half_close), _milliseconds(limits.linger)),
    )
    # The module closes the plain leg itself, and resets it when this process dies.
    finish_on_close(handover.plain)
    try:
        handover.wire.setsockopt(abi.SOL_STCP, abi.RELAY, args)
    finally:
        args[:] = bytes(len(args))


@contextlib.contextmanager
def _borrow(fd: int) -> Iterator[socket.socket]:
    """Make a socket object for a descriptor, for one use. It is not kept, because it is larger than the rest of a relay."""
    sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM, fileno=fd)
    try:
        yield sock
    finally:
        sock.detach()


def _milliseconds(seconds: float | None) -> int:
    """A deadline in the module's unit. 0 is no deadline, so the shortest deadline is 1."""
    return 0 if seconds is None else min(max(1, round(seconds * 1000)), (1 << 31) - 1)


def _status(fd: int) -> abi.Status:
    with _borrow(fd) as wire:
        return abi.Status.unpack(wire.getsockopt(abi.SOL_STCP, abi.STATUS, abi.STATUS_ARGS.size))


def _end_of(status: abi.Status) -> RelayEnd:
    reason = abi.REASON[status.end]
    text = status.text.decode(errors="replace")
    if not status.code and status.error:
        text = f"{_CAUSE.get(reason, 'the kernel engine failed')}: {os.strerror(-status.error)}"
    elif reason is EndReason.TRUNCATED:
        text = "the peer closed the wire leg without FIN or inside a frame"
    return RelayEnd(reason, status.bytes_to_wire, status.bytes_to_plain, status.code or None, text)


_CAUSE: Final = {
    EndReason.TRUNCATED: "the wire leg broke",
    EndReason.BAD_FRAME: "a frame that is malformed, out of place or not authentic",
}


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
