"""Calls of the module stcp.ko: is it there, hand a connection over, ask for its state, take a kept wire leg back."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import socket
from collections.abc import Iterator
from typing import Final

from stcp_proxy.relay import kernel_abi as abi
from stcp_proxy.relay.engine import EndReason, Handover, RelayEnd
from stcp_proxy.relay.plain_leg import finish_on_close


class KernelUnavailable(OSError):
    """The module cannot be used on this machine; the text gives the reason."""


def probe() -> bool:
    """Check that the module is there and has the interface version of this program. Loads it if the process may do that.

    Returns:
        Whether it gives wire legs back. Older modules do not.

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
        try:
            near.setsockopt(abi.SOL_STCP, abi.RELAY, relay_args(-1, bytes(32), 0, bytes(32), 0, flags=abi.RELAY_KEEP))
        except OSError as exc:
            return exc.errno == errno.EBADF  # there is no plain leg; a module that does not know the flag says EINVAL
    return False


def relay_args(
    plain_fd: int,
    send_key: bytes,
    send_counter: int,
    receive_key: bytes,
    receive_counter: int,
    *,
    wire_at: int = 0,
    wire_len: int = 0,
    milliseconds: tuple[int, int, int] = (0, 0, 0),
    flags: int = 0,
) -> bytearray:
    """struct stcp_relay_args, as a bytearray that the caller can overwrite with zeros: it holds keys."""
    args = bytearray(abi.RELAY_ARGS.size)
    abi.RELAY_ARGS.pack_into(
        args, 0,
        abi.INTERFACE, len(args), plain_fd,
        send_counter, send_key, receive_counter, receive_key,
        wire_at, 0, wire_len, 0, *milliseconds, flags,
    )  # fmt: skip
    return args


def hand_over(handover: Handover) -> None:
    """Give both sockets to the module.

    Raises:
        OSError: the module refused them. Both are unchanged, but for the protocol "stcp", which has no effect by itself.
    """
    if len(handover.wire_bytes) > abi.MAX_QUEUED:
        raise OSError(errno.EMSGSIZE, os.strerror(errno.EMSGSIZE))
    for leg in (handover.plain, handover.wire):
        _put_protocol_on(leg)
    queued = ctypes.create_string_buffer(handover.wire_bytes, max(1, len(handover.wire_bytes)))
    limits = handover.limits
    args = relay_args(
        handover.plain.fileno(),
        handover.send.key.reveal(),
        handover.send.counter,
        handover.receive.key.reveal(),
        handover.receive.counter,
        wire_at=ctypes.addressof(queued),
        wire_len=len(handover.wire_bytes),
        milliseconds=(_milliseconds(limits.idle), _milliseconds(limits.half_close), _milliseconds(limits.linger)),
        flags=0 if handover.give_back is None else abi.RELAY_KEEP,
    )
    # The module closes the plain leg itself, and resets it when this process dies.
    finish_on_close(handover.plain)
    try:
        handover.wire.setsockopt(abi.SOL_STCP, abi.RELAY, args)
    finally:
        args[:] = bytes(len(args))


def _put_protocol_on(leg: socket.socket) -> None:
    """Put the protocol "stcp" on a leg. A wire leg that was given back has it already."""
    try:
        leg.setsockopt(socket.SOL_TCP, abi.TCP_ULP, abi.ULP_NAME)
    except FileExistsError:
        if leg.getsockopt(socket.SOL_TCP, abi.TCP_ULP, 16).rstrip(b"\0") != abi.ULP_NAME:
            raise


def take_back(fd: int) -> socket.socket | None:
    """Take the wire leg of a relay that has ended with `Status.kept`. The caller owns the socket.

    Returns:
        The leg, non-blocking; None where the module refuses. Then the descriptor is closed.
    """
    leg = socket.socket(fileno=fd)
    try:
        leg.setsockopt(abi.SOL_STCP, abi.GIVE_BACK, b"")
        leg.setblocking(False)
    except OSError:
        leg.close()
        return None
    return leg


@contextlib.contextmanager
def borrow(fd: int) -> Iterator[socket.socket]:
    """Make a socket object for a descriptor, for one use. It is not kept, because it is larger than the rest of a relay."""
    sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM, fileno=fd)
    try:
        yield sock
    finally:
        sock.detach()


def _milliseconds(seconds: float | None) -> int:
    """A deadline in the module's unit. 0 is no deadline, so the shortest deadline is 1."""
    return 0 if seconds is None else min(max(1, round(seconds * 1000)), (1 << 31) - 1)


def status_of(fd: int) -> abi.Status:
    with borrow(fd) as wire:
        return abi.Status.unpack(wire.getsockopt(abi.SOL_STCP, abi.STATUS, abi.STATUS_ARGS.size))


def end_of(status: abi.Status) -> RelayEnd:
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
