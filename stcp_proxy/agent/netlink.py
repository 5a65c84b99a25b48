"""Generic netlink to the module's family "stcp", over one socket.

The kernel handles a request inside of `send` and queues its answer before `send` returns. So a request never waits, and no other
task can come between a request and its answer. Only READY comes at any time; it may be lost when the socket's queue overflows.

Invariants:
- Only messages from the kernel (port 0) count.
- A descriptor in an answer is owned by the caller of `accept`, or closed here.
- A request is overwritten after it was sent, because it may contain keys.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
from typing import Final

import trio

from stcp_proxy.agent import messages
from stcp_proxy.agent import netlink_abi as abi
from stcp_proxy.agent.messages import Opened, Pending, UnreadableHandshake
from stcp_proxy.agent.netlink_abi import Attribute, Command
from stcp_proxy.net import netlink_messages as nl
from stcp_proxy.net.netlink_messages import MalformedMessage, Message

_SIZE: Final = 128 * 1024
"""Bytes of one read: more than the kernel puts into one datagram here."""
_ERRORS: Final = {errno.ENOENT: "no such family or handshake"}


class NetlinkError(OSError):
    """The kernel refused a request, or its answer makes no sense."""


class Netlink:
    """The connection to the module.

    Args:
        sock: a non-blocking netlink socket that is connected to the kernel; owned by this object.
    """

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._family = 0
        self._sequence = 0
        self._is_ready = False
        self._is_gone = False
        self._waiting: trio.CancelScope | None = None
        """The wait of `wait_ready`. Another task's request may read what it waits for."""

    def close(self) -> None:
        """Close the socket. The module then has no agent."""
        self._sock.close()

    def find(self) -> None:
        """Find the family of the module, and join the group in which the kernel reports that a family was removed.

        Raises:
            NetlinkError: ENOENT where the kernel has no such family.
        """
        name = nl.pack({abi.CTRL_ATTR_FAMILY_NAME: abi.GENL_NAME.encode() + b"\0"})
        answer = self._request(abi.GENL_ID_CTRL, abi.CTRL_CMD_GETFAMILY, abi.CTRL_VERSION, name)
        if answer is None:
            raise NetlinkError(errno.EPROTO, "the kernel does not describe its family")
        try:
            found = nl.parse(answer.body[abi.GENL_HEADER.size :])
            self._family = nl.number(found, abi.CTRL_ATTR_FAMILY_ID, 2)
        except MalformedMessage as exc:
            raise NetlinkError(errno.EPROTO, str(exc)) from None
        self._sock.setsockopt(nl.SOL_NETLINK, nl.NETLINK_ADD_MEMBERSHIP, abi.CTRL_GROUP)

    def register(self) -> None:
        """Become the agent of this network namespace.

        Raises:
            NetlinkError: EBUSY where there is one already, EPERM without CAP_NET_ADMIN, EPROTONOSUPPORT for a module with another
                interface.
        """
        self._ask(Command.REGISTER, nl.pack({Attribute.INTERFACE: nl.encode_number(abi.AGENT_INTERFACE, 4)}))

    def accept(self, places: int) -> Pending | None:
        """Take the next pending handshake.

        Args:
            places: how many handshakes this agent has a place for. The kernel leaves room in them for each user.

        Returns:
            None where nothing is pending, or nothing that has a place: then ask again when a handshake of this agent has ended.

        Raises:
            NetlinkError: the kernel refuses.
            UnreadableHandshake: its answer is malformed or missing. The descriptor is closed; the handshake waits for DONE.
        """
        try:
            answer = self._ask(Command.ACCEPT, nl.pack({Attribute.PLACES: nl.encode_number(places, 4)}))
        except NetlinkError as exc:
            if exc.errno == errno.ENOENT:
                return None
            raise
        if answer is None:
            raise UnreadableHandshake("the kernel does not describe a pending handshake")
        data = answer.body[abi.GENL_HEADER.size :]
        try:
            return messages.read_pending(nl.parse(data))
        except MalformedMessage as exc:
            self._drop(answer)
            raise UnreadableHandshake(str(exc), messages.number_of(nl.parse_prefix(data))) from None

    def done(self, number: int, result: Opened | int) -> None:
        """End a handshake.

        Args:
            number: the handshake.
            result: its keys, or an errno for the application.

        Raises:
            NetlinkError: ENOENT where it has ended already: its application closed the socket, or its time is over.
            ValueError: a part of the result does not fit the format.
        """
        body = messages.failed(number, result) if isinstance(result, int) else messages.succeeded(number, result)
        self._ask(Command.DONE, body)

    async def wait_ready(self) -> None:
        """Return when a handshake may be pending.

        Raises:
            NetlinkError: the module was unloaded, or the socket is broken.
        """
        while not self._is_ready:
            if self._is_gone:
                raise NetlinkError(errno.ENODEV, "the module was unloaded")
            with trio.CancelScope() as self._waiting:
                await trio.lowlevel.wait_readable(self._sock)
            self._waiting = None
            self._read(None)
        self._is_ready = False

    def look_again(self) -> None:
        """Let `wait_ready` return, as READY does: a place is free for what the kernel held back."""
        self._note_ready()

    # -- requests ----------------------------------------------------------------------------------------------------------

    def _ask(self, command: Command, body: bytearray) -> Message | None:
        return self._request(self._family, command, abi.GENL_VERSION, body)

    def _request(self, family: int, command: int, version: int, body: bytearray) -> Message | None:
        """Send a request. Returns the message in answer to it; None where the kernel only acknowledges.

        Raises:
            NetlinkError: the kernel refuses, with its errno; EAGAIN where the answer is missing.
        """
        self._read(None)  # makes room for the answer
        self._sequence = self._sequence % 0xFFFFFFFF + 1
        head = abi.GENL_HEADER.pack(command, version, 0)
        request = nl.message(family, nl.NLM_F_REQUEST | nl.NLM_F_ACK, self._sequence, head, body)
        try:
            self._sock.send(request)
        except OSError as exc:
            raise NetlinkError(exc.errno, f"netlink takes no request: {exc.strerror}") from None
        finally:
            request[:] = bytes(len(request))
            body[:] = bytes(len(body))
        answer, status = self._read(self._sequence)
        if status == 0:
            return answer
        self._drop(answer)
        if status is None:
            raise NetlinkError(errno.EAGAIN, "the kernel did not answer a request")
        raise NetlinkError(status, _ERRORS.get(status, os.strerror(status)))

    def _note_ready(self) -> None:
        self._is_ready = True
        self._wake()

    def _wake(self) -> None:
        if self._waiting is not None:
            self._waiting.cancel()

    def _is_own(self, message: Message) -> bool:
        """Whether a message of the controller is about the module's family."""
        found = nl.parse(message.body[abi.GENL_HEADER.size :])
        return nl.number(found, abi.CTRL_ATTR_FAMILY_ID, 2) == self._family

    def _drop(self, answer: Message | None) -> None:
        """Close the descriptor in an answer that nobody takes."""
        if answer is None or answer.kind != self._family or answer.body[:1] != bytes([Command.ACCEPT]):
            return
        fd = messages.descriptor_of(nl.parse_prefix(answer.body[abi.GENL_HEADER.size :]))
        if fd is not None:
            with contextlib.suppress(OSError):
                os.close(fd)

    def _read(self, sequence: int | None) -> tuple[Message | None, int | None]:
        """Read all that waits. Returns the answer to a request, and the errno that ends it; None where either is missing."""
        answer: Message | None = None
        status: int | None = None
        while True:
            try:
                datagram, address = self._sock.recvfrom(_SIZE)
            except BlockingIOError:
                return answer, status
            except OSError as exc:
                if exc.errno != errno.ENOBUFS:
                    raise NetlinkError(exc.errno, f"netlink cannot be read: {exc.strerror}") from None
                self._note_ready()  # a notification may be lost
                continue
            if isinstance(address, tuple) and address[0] != 0:
                continue
            with contextlib.suppress(MalformedMessage):  # the answer is missing then
                for message in nl.messages(datagram):
                    if message.sequence == sequence and message.error is not None:
                        status = message.error
                    elif message.sequence == sequence and message.kind != nl.NLMSG_ERROR:
                        answer = message
                    elif message.kind == self._family and message.body[:1] == bytes([Command.READY]):
                        self._note_ready()
                    elif message.kind == abi.GENL_ID_CTRL and message.body[:1] == bytes([abi.CTRL_CMD_DELFAMILY]):
                        self._is_gone |= self._is_own(message)
                        self._wake()
                    else:  # an answer to a request that was given up
                        self._drop(message)


def open_netlink() -> Netlink:
    """Open a netlink socket and find the module.

    Raises:
        NetlinkError: see `Netlink.find`.
    """
    sock = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK, nl.NETLINK_GENERIC)
    try:
        sock.connect((0, 0))
        netlink = Netlink(sock)
        netlink.find()
    except BaseException:
        sock.close()
        raise
    return netlink
