"""The prologue and the length fields around Noise messages (PROTOCOL.md section 1).

    "STCP" ‖ version (u8) ‖ suite (u8)     then for each message     length (u16) ‖ message

Every function follows one contract: a result, an exception, or None while bytes are missing.
"""

from __future__ import annotations

from collections.abc import Collection

from stcp_proxy.errors import MalformedHandshake, NotStcp, SuiteRefused, VersionRefused
from stcp_proxy.protocol.greeting import PROXY_HEADER, protocol_of
from stcp_proxy.protocol.wire import MAGIC, MESSAGE_1_LEN, MESSAGE_LENGTH_LEN, PROLOGUE_LEN, VERSION, Suite

Buffer = bytes | bytearray


def prologue(suite: Suite) -> bytes:
    """The six bytes that open a wire leg. They are the Noise prologue too."""
    return MAGIC + bytes([VERSION, suite])


def read_prologue(buffer: Buffer, suites: Collection[Suite]) -> Suite | None:
    """Read the suite that the initiator uses.

    Args:
        buffer: bytes from the wire, of any length.
        suites: suites that this side accepts.

    Returns:
        The suite, or None while the prologue is incomplete.

    Raises:
        NotStcp: the first bytes belong to another protocol. One wrong byte is enough.
        VersionRefused: another version of STCP.
        SuiteRefused: a suite that `suites` does not contain.
    """
    head = bytes(buffer[:PROLOGUE_LEN])
    if head[: len(MAGIC)] != MAGIC[: len(head)]:
        raise _not_stcp(bytes(buffer))
    if len(head) > len(MAGIC) and head[len(MAGIC)] != VERSION:
        raise VersionRefused(
            f"the peer speaks version {head[len(MAGIC)]} of STCP, this side version {VERSION}",
            remedy="run the same release on both sides",
        )
    if len(head) < PROLOGUE_LEN:
        return None
    number = head[PROLOGUE_LEN - 1]
    if number not in suites:
        raise _suite_refused(number, suites)
    return Suite(number)


def first_message_size(buffer: Buffer, suites: Collection[Suite]) -> int | None:
    """How many bytes the initiator sends before it waits for an answer: prologue, length field and message 1.

    Args:
        buffer: the first bytes from the wire, of any length.
        suites: suites that this side accepts.

    Returns:
        The size in bytes, or None while the length field is incomplete.

    Raises:
        HandshakeError: the bytes are refused, as `read_prologue` and `take_message` refuse them.
    """
    suite = read_prologue(buffer, suites)
    if suite is None or len(buffer) < PROLOGUE_LEN + MESSAGE_LENGTH_LEN:
        return None
    length = MESSAGE_1_LEN[suite]
    take_message(buffer[: PROLOGUE_LEN + MESSAGE_LENGTH_LEN], PROLOGUE_LEN, length, length)
    return PROLOGUE_LEN + MESSAGE_LENGTH_LEN + length


def framed(message: bytes) -> bytes:
    """A Noise message with its length field."""
    return len(message).to_bytes(MESSAGE_LENGTH_LEN, "big") + message


def take_message(buffer: Buffer, at: int, least: int, most: int) -> bytes | None:
    """Read the message whose length field stands at `at`.

    Args:
        buffer: bytes from the wire, of any length.
        at: index of the length field.
        least: smallest length that the suite allows.
        most: largest length that the suite allows.

    Returns:
        The message, or None while it is incomplete.

    Raises:
        MalformedHandshake: the length is out of bounds. It is checked before the message is waited for.
    """
    start = at + MESSAGE_LENGTH_LEN
    if len(buffer) < start:
        return None
    length = int.from_bytes(buffer[at:start], "big")
    if not least <= length <= most:
        allowed = str(least) if least == most else f"{least} to {most}"
        raise MalformedHandshake(f"a handshake message has {length} bytes, and its suite allows {allowed}")
    if len(buffer) < start + length:
        return None
    return bytes(buffer[start : start + length])


def _suite_refused(number: int, suites: Collection[Suite]) -> SuiteRefused:
    name = Suite(number).name.lower() if number in set(Suite) else "unknown"
    allowed = ", ".join(str(int(suite)) for suite in sorted(suites))
    return SuiteRefused(
        f"the peer uses suite {number} ({name}), this side allows {allowed}",
        remedy="give both sides the same kind of key and the same --suite",
    )


def _not_stcp(head: bytes) -> NotStcp:
    """The failure of a connection whose first bytes belong to another protocol."""
    name = protocol_of(head)
    remedy = "point only `stcp-proxy connect` at this address"
    if name == PROXY_HEADER:
        remedy = "switch the PROXY protocol off at the load balancer: this port takes none"
    return NotStcp(f"the first bytes are not STCP's{f' (they look like {name})' if name else ''}", remedy=remedy)
