"""The interface of stcp.ko in Python: the numbers and structs of kernel/stcp.h. A test compares both files.

Structs are packed by `struct` with explicit sizes; the C side has no padding.
"""

from __future__ import annotations

import enum
import struct
from dataclasses import dataclass
from typing import Final

from stcp_proxy.protocol.wire import MAX_TEXT
from stcp_proxy.relay.engine import EndReason

TCP_ULP: Final = 31
"""Linux option at SOL_TCP that Python's `socket` does not define."""
ULP_NAME: Final = b"stcp"
SOL_STCP: Final = 21332
INTERFACE: Final = 1
RELAY: Final = 1
ABORT: Final = 2
STATUS: Final = 3
GIVE_BACK: Final = 4
RELAY_KEEP: Final = 1
"""Flag of RELAY: leave the wire leg open after both FINs, for GIVE_BACK."""
MAX_QUEUED: Final = 256 * 1024
"""Most bytes, for each direction, that a handover may carry: they are already read from a leg."""

RELAY_ARGS: Final = struct.Struct("=HHi Q32s Q32s QQ II III I")
ABORT_ARGS: Final = struct.Struct(f"=HHI{MAX_TEXT}s")
STATUS_ARGS: Final = struct.Struct(f"=HBBi QQQQ I HH{MAX_TEXT}s B7s")
"""An older module writes less of it."""


class End(enum.IntEnum):
    """enum stcp_end."""

    NONE = 0
    FINISHED = 1
    PLAIN_RESET = 2
    PEER_RESET = 3
    TRUNCATED = 4
    BAD_FRAME = 5
    IDLE_TIMEOUT = 6
    HALF_CLOSE_TIMEOUT = 7
    ABORTED = 8
    INTERNAL_ERROR = 9


REASON: Final[dict[End, EndReason]] = {end: EndReason[end.name] for end in End if end is not End.NONE}


@dataclass(frozen=True, slots=True)
class Status:
    """struct stcp_status.

    Attributes:
        ended: the module has released both legs.
        end: why the connection ended; set a moment before `ended`.
        error: errno of the cause, 0 or negative.
        bytes_to_wire: application bytes sealed.
        bytes_to_plain: application bytes that the plain leg took.
        send_counter: number of the next frame to the wire.
        receive_counter: number of the next frame from the wire.
        buffered: bytes of buffer that the module holds for the connection.
        code: code of the RESET that was sent or received, else 0.
        text: text of that RESET.
        kept: GIVE_BACK makes the wire leg usable again.
    """

    ended: bool
    end: End
    error: int
    bytes_to_wire: int
    bytes_to_plain: int
    send_counter: int
    receive_counter: int
    buffered: int
    code: int
    text: bytes
    kept: bool

    @classmethod
    def unpack(cls, raw: bytes) -> Status:
        (_, ended, end, error, sent, received, send_counter, receive_counter, buffered, code, text_len, text, kept, _) = (
            STATUS_ARGS.unpack(raw.ljust(STATUS_ARGS.size, b"\0"))
        )
        return cls(
            bool(ended), End(end), error, sent, received, send_counter, receive_counter, buffered, code, text[:text_len],
            bool(kept),
        )  # fmt: skip
