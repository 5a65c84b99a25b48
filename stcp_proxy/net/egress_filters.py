"""On which interfaces the egress filter is attached: found out without any privilege.

The kernel lists interfaces and filters to every user (rtnetlink). So the proxy can tell that an interface has no egress filter,
or that a filter of another program comes first and may accept packets for good. It cannot see programs that were attached without
`tc` (`tcx`, Linux 6.6): the kernel lists these to privileged users only.
"""

from __future__ import annotations

import enum
import os
import socket
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, NamedTuple

from stcp_proxy.net.netlink_messages import MalformedMessage, attributes, dump

MAGIC: Final = 0x53544350
"""Loaded by the first instruction of an egress filter, by which it is recognised: "STCP"."""

_FIRST_INSTRUCTION: Final = struct.pack("=HBBI", 0, 0, 0, MAGIC)
"""struct sock_filter: A = MAGIC."""
_EGRESS: Final = 0xFFFFFFF3
"""The parent of filters for packets that leave (TC_H_CLSACT, TC_H_MIN_EGRESS)."""
_GETLINK, _GETTFILTER = 18, 46
_LOOPBACK: Final = 772
_IFF_UP: Final = 1
_IFNAME, _MASTER, _LINKINFO, _SLAVE_KIND = 3, 10, 18, 4
_OPTIONS: Final = 2
_BPF_OPS: Final = 5
_LINK: Final = struct.Struct("=BxHiII")
_FILTER: Final = struct.Struct("=BxxxiIII")
_TIMEOUT: Final = 1.0
"""Seconds; the kernel answers at once."""


class EgressState(enum.StrEnum):
    """The state of a host's egress filter."""

    NOT_WANTED = ""
    """The rules were installed without it, or there are none."""
    ATTACHED = "attached"
    """Every interface has it."""
    MISSING = "missing"
    """An interface lacks it."""
    HIDDEN = "hidden"
    """A filter of another program comes before it."""
    UNKNOWN = "unknown"
    """The kernel does not list filters to this process."""


@dataclass(frozen=True, slots=True)
class EgressFilters:
    """The interfaces with a fault of the egress filter.

    Attributes:
        bare: interfaces that send to other hosts and lack the filter.
        behind: interfaces where a filter of another program comes before it.
    """

    bare: tuple[str, ...] = ()
    behind: tuple[str, ...] = ()


class _Link(NamedTuple):
    number: int
    name: str


def state_of(found: EgressFilters | None) -> tuple[EgressState, tuple[str, ...]]:
    """The state of the egress filter where it is wanted, and the interfaces that the state is about."""
    if found is None:
        return EgressState.UNKNOWN, ()
    if found.bare:
        return EgressState.MISSING, found.bare
    return (EgressState.HIDDEN, found.behind) if found.behind else (EgressState.ATTACHED, ())


def egress_filters() -> EgressFilters | None:
    """Look at the filters of all interfaces that are up. Returns None where the kernel does not list them to this process."""
    bare, behind = [], []
    try:
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE) as sock:
            sock.settimeout(_TIMEOUT)
            for link in list(_links(sock)):
                prefs = list(_prefs(sock, link.number))
                ours = [pref for pref, is_ours in prefs if is_ours]
                if not ours:
                    bare.append(link.name)
                elif any(pref < min(ours) for pref, is_ours in prefs if not is_ours):
                    behind.append(link.name)
    except (OSError, struct.error, MalformedMessage):
        return None
    return EgressFilters(tuple(bare), tuple(behind))


def _links(sock: socket.socket) -> Iterator[_Link]:
    """The interfaces through which the IP stack of this host sends to other hosts now.

    A member of a VRF has addresses; other members (of a bridge, a bond) carry frames of others.
    """
    for message in dump(sock, _GETLINK, _LINK.pack(socket.AF_UNSPEC, 0, 0, 0, 0)):
        _, kind, index, flags, _ = _LINK.unpack_from(message)
        found = dict(attributes(message[_LINK.size :]))
        member_of = dict(attributes(found.get(_LINKINFO, b""))).get(_SLAVE_KIND, b"").rstrip(b"\0")
        if kind != _LOOPBACK and flags & _IFF_UP and (_MASTER not in found or member_of == b"vrf"):
            yield _Link(index, os.fsdecode(found.get(_IFNAME, b"").rstrip(b"\0")))


def _prefs(sock: socket.socket, index: int) -> Iterator[tuple[int, bool]]:
    """The preference of each filter for packets that leave by an interface, and whether it is an egress filter of ours."""
    for message in dump(sock, _GETTFILTER, _FILTER.pack(socket.AF_UNSPEC, index, 0, _EGRESS, 0)):
        options = dict(attributes(message[_FILTER.size :])).get(_OPTIONS)
        if options is not None:
            program = dict(attributes(options)).get(_BPF_OPS, b"")
            yield _FILTER.unpack_from(message)[-1] >> 16, program.startswith(_FIRST_INSTRUCTION)
