"""What the module and its agent say to each other: a pending handshake, and how it ended."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from stcp_proxy.agent.netlink_abi import CHANNEL_ID_LEN, MAX_NAME, MAX_PEER, MAX_WIRE_BYTES, Attribute, SocketRole
from stcp_proxy.net import netlink_messages as nl
from stcp_proxy.net.netlink_messages import MalformedMessage
from stcp_proxy.redact import shown
from stcp_proxy.relay.engine import DirectionKey

_U32, _U64 = 4, 8
_NUL = b"\0"


class UnreadableHandshake(Exception):
    """A reply to ACCEPT that describes no pending handshake.

    Args:
        what: what is wrong with it.
        number: the handshake, for DONE; None where the reply does not tell.
    """

    def __init__(self, what: str, number: int | None = None) -> None:
        super().__init__(what)
        self.number = number


@dataclass(frozen=True, slots=True)
class Pending:
    """A handshake that the agent has taken: the reply to ACCEPT.

    Attributes:
        id: its number, for DONE.
        fd: descriptor of the TCP connection; owned by whoever receives this object.
        role: this side's role.
        timeout: seconds that are left for it.
        uid: the effective user of the socket's owner.
        identity: the name of STCP_IDENTITY; None without one.
        service: the name of STCP_SERVICE; None without one.
        bad_name: which of the two is no name, with its value, escaped; empty where both are. Any bytes can be set as a name.
    """

    id: int
    fd: int
    role: SocketRole
    timeout: float
    uid: int
    identity: str | None = None
    service: str | None = None
    bad_name: str = ""


@dataclass(frozen=True, slots=True)
class Opened:
    """The keys of a connection whose peer has authenticated, for DONE.

    Attributes:
        send: key and counter of the direction to the peer.
        receive: key and counter of the other direction.
        wire_bytes: bytes that were read beyond the opening.
        peer: the peer's name; empty with a shared secret.
        channel_id: the final handshake hash.
    """

    send: DirectionKey
    receive: DirectionKey
    wire_bytes: bytes
    peer: str
    channel_id: bytes


def descriptor_of(found: Mapping[int, bytes]) -> int | None:
    """The descriptor in a reply to ACCEPT, whatever else is wrong with it: somebody has to close it. None without one."""
    try:
        fd = nl.number(found, Attribute.FD, _U32, signed=True)
    except MalformedMessage:
        return None
    return fd if fd >= 0 else None


def number_of(found: Mapping[int, bytes]) -> int | None:
    """The number of the handshake in a reply to ACCEPT, whatever else is wrong with it. None without one."""
    try:
        return nl.number(found, Attribute.ID, _U64)
    except MalformedMessage:
        return None


def read_pending(found: Mapping[int, bytes]) -> Pending:
    """Read the reply to ACCEPT.

    A name comes from an application, so a malformed name is a fault of this one handshake: see `Pending.bad_name`.

    Raises:
        MalformedMessage: another attribute is missing or does not fit. The descriptor, if there is one, is open.
    """
    fd = descriptor_of(found)
    role = nl.number(found, Attribute.ROLE, _U32)
    if fd is None:
        raise MalformedMessage("a pending handshake without a descriptor")
    if role not in list(SocketRole):
        raise MalformedMessage(f"a pending handshake in role {role}")
    identity, bad_identity = _name(found, Attribute.IDENTITY)
    service, bad_service = _name(found, Attribute.SERVICE)
    return Pending(
        id=nl.number(found, Attribute.ID, _U64),
        fd=fd,
        role=SocketRole(role),
        timeout=nl.number(found, Attribute.TIMEOUT_MS, _U32) / 1000,
        uid=nl.number(found, Attribute.UID, _U32),
        identity=identity,
        service=service,
        bad_name=bad_identity or bad_service,
    )


def _name(found: Mapping[int, bytes], kind: Attribute) -> tuple[str | None, str]:
    """A name, None without one; and what is wrong with it, empty where nothing is."""
    try:
        return nl.text(found, kind, MAX_NAME), ""
    except MalformedMessage:
        return None, f"STCP_{kind.name} of the socket is {shown(found[kind].removesuffix(_NUL))}"


def failed(number: int, error: int) -> bytearray:
    """The attributes of DONE for a handshake that failed.

    Args:
        number: the handshake.
        error: an errno for the application, greater than 0.
    """
    return nl.pack(
        {
            Attribute.ID: nl.encode_number(number, _U64),
            Attribute.ERROR: nl.encode_number(-error, _U32, signed=True),
        }
    )


def succeeded(number: int, opened: Opened) -> bytearray:
    """The attributes of DONE for a handshake that succeeded. They contain keys: overwrite them after they were sent.

    Args:
        number: the handshake.
        opened: its result.

    Raises:
        ValueError: a part does not fit the format.
    """
    peer = opened.peer.encode()
    fits = len(peer) <= MAX_PEER and b"\0" not in peer and len(opened.channel_id) == CHANNEL_ID_LEN
    if not fits or len(opened.wire_bytes) > MAX_WIRE_BYTES:
        raise ValueError("the result of a handshake does not fit into DONE")
    found: dict[int, bytes] = {
        Attribute.ID: nl.encode_number(number, _U64),
        Attribute.ERROR: nl.encode_number(0, _U32),
        Attribute.SEND_KEY: opened.send.key.reveal(),
        Attribute.SEND_COUNTER: nl.encode_number(opened.send.counter, _U64),
        Attribute.RECEIVE_KEY: opened.receive.key.reveal(),
        Attribute.RECEIVE_COUNTER: nl.encode_number(opened.receive.counter, _U64),
        Attribute.CHANNEL_ID: opened.channel_id,
    }
    if opened.wire_bytes:
        found[Attribute.WIRE_BYTES] = opened.wire_bytes
    if peer:
        found[Attribute.PEER] = peer + b"\0"
    return nl.pack(found)
