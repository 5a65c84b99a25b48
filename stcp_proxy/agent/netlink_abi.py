"""The numbers that stcp.ko and its agent share: those of kernel/stcp.h, and those of generic netlink.

A test compares the first part with kernel/stcp.h. The second part is the stable interface of Linux: linux/genetlink.h.
"""

from __future__ import annotations

import enum
import struct
from typing import Final

PROTOCOL: Final = 253
"""Protocol number of the sockets, in `socket(AF_INET, SOCK_STREAM, 253)`."""
GENL_NAME: Final = "stcp"
GENL_VERSION: Final = 1
AGENT_INTERFACE: Final = 2
MAX_NAME: Final = 64
"""Most bytes of the name of an identity or a service."""
MAX_PEER: Final = 255
"""Most bytes of a peer's name."""
CHANNEL_ID_LEN: Final = 32
MAX_WIRE_BYTES: Final = 63 * 1024
"""Most bytes of the wire in DONE: they were read beyond the answer to OPEN."""
PEER: Final = 16
"""Option of a socket at SOL_STCP: the name of its peer."""
CHANNEL_ID: Final = 17
SERVICE: Final = 18
IDENTITY: Final = 19


class Command(enum.IntEnum):
    """enum stcp_command."""

    READY = 1
    ACCEPT = 2
    DONE = 3
    REGISTER = 4


class Attribute(enum.IntEnum):
    """enum stcp_attr."""

    ID = 1
    FD = 2
    ROLE = 3
    TIMEOUT_MS = 4
    UID = 5
    IDENTITY = 6
    SERVICE = 7
    ERROR = 8
    SEND_KEY = 9
    SEND_COUNTER = 10
    RECEIVE_KEY = 11
    RECEIVE_COUNTER = 12
    WIRE_BYTES = 13
    PEER = 14
    CHANNEL_ID = 15
    INTERFACE = 16
    PLACES = 17


class SocketRole(enum.IntEnum):
    """enum stcp_socket_role."""

    INITIATOR = 0
    RESPONDER = 1


# -- generic netlink -----------------------------------------------------------------------------------------------------------

GENL_HEADER: Final = struct.Struct("=BBH")
"""struct genlmsghdr: command, version, reserved."""
GENL_ID_CTRL: Final = 0x10
CTRL_VERSION: Final = 2
CTRL_CMD_DELFAMILY: Final = 2
CTRL_CMD_GETFAMILY: Final = 3
CTRL_GROUP: Final = 0x10
"""The group in which the kernel tells which families come and go."""
CTRL_ATTR_FAMILY_ID: Final = 1
CTRL_ATTR_FAMILY_NAME: Final = 2
