"""Which process is at the other end of a unix socket, as the kernel says (SO_PEERCRED)."""

from __future__ import annotations

import os
import socket
import struct
from dataclasses import dataclass
from typing import Final

_UCRED: Final = struct.Struct("iII")
_NOBODY: Final = 2**32 - 1
_ROOT: Final = 0


@dataclass(frozen=True, slots=True)
class PeerCredentials:
    """The process that connected, or that listens, at the time when it did so.

    Attributes:
        pid: its process id; 0 where it is in another PID namespace.
        uid: its user id.
    """

    pid: int
    uid: int

    @property
    def same_user_or_root(self) -> bool:
        """Whether it could do to this process whatever it likes anyway."""
        return self.uid in (os.geteuid(), _ROOT)

    def __str__(self) -> str:
        return f"process {self.pid} of user {self.uid}"


def peer_credentials(sock: socket.socket) -> PeerCredentials | None:
    """The credentials of the peer of a connected unix socket; None where the kernel does not tell, and for other sockets."""
    if sock.family != socket.AF_UNIX:
        return None
    try:
        pid, uid, _ = _UCRED.unpack(sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size))
    except OSError:
        return None
    return None if uid == _NOBODY else PeerCredentials(pid, uid)
