"""POSIX access control lists, as far as a key file needs them: does one let in anybody but root and this user?

systemd gives a service its credentials (`LoadCredential=`) as files of root's with a list that admits the service's user. Their
mode shows 0440 then, for the bits of the group show the list's mask; the group itself may do nothing.
"""

from __future__ import annotations

import os
import struct
from typing import Final

_ATTRIBUTE: Final = "system.posix_acl_access"
_HEADER: Final = struct.Struct("<I")
_ENTRY: Final = struct.Struct("<HHI")
_VERSION: Final = 2

_USER_OBJ: Final = 0x01
_USER: Final = 0x02
_GROUP_OBJ: Final = 0x04
_MASK: Final = 0x10
_OTHER: Final = 0x20
_READ: Final = 4


def admits_only(fd: int, user: int) -> bool | None:
    """Whether an open file of root's has a list that lets `user` read it, and nobody else but root do anything.

    Args:
        fd: the file.
        user: a user id.

    Returns:
        None where there is no list; False, too, where it cannot be understood.
    """
    try:
        raw = os.getxattr(fd, _ATTRIBUTE)
    except OSError:
        return None
    try:
        (version,) = _HEADER.unpack_from(raw)
        entries = list(_ENTRY.iter_unpack(raw[_HEADER.size :]))
    except struct.error:
        return False
    if version != _VERSION:
        return False
    named = {who: rights for tag, rights, who in entries if tag == _USER}
    shut = all(rights == 0 for tag, rights, _ in entries if tag in (_GROUP_OBJ, _OTHER))
    known = {tag for tag, _, _ in entries} <= {_USER_OBJ, _USER, _GROUP_OBJ, _MASK, _OTHER}
    return known and shut and named.get(user) == _READ and named.keys() <= {0, user}
