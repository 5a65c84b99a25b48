"""The errno that an application gets from `connect`, for each way in which a handshake fails.

The module tells an application only errnos that a connection can have. It refuses others.
"""

from __future__ import annotations

import errno
from typing import Final

from stcp_proxy.errors import (
    Code,
    Denied,
    FrameError,
    HandshakeError,
    HandshakeTimedOut,
    KeyRevoked,
    NoAnswer,
    NoIdentity,
    PeerRejected,
    ServiceUnknown,
    StcpError,
    Truncated,
)

REJECTED: Final = {
    Code.DENIED: errno.EACCES,
    Code.UNKNOWN_SERVICE: errno.EACCES,
    Code.KEY_REVOKED: errno.EACCES,
    Code.TARGET_REFUSED: errno.ECONNREFUSED,
    Code.TARGET_TIMED_OUT: errno.ETIMEDOUT,
    Code.TARGET_UNREACHABLE: errno.EHOSTUNREACH,
    Code.OVER_LIMIT: errno.ECONNREFUSED,
    Code.SHUTTING_DOWN: errno.ECONNREFUSED,
}
"""By the code of REJECT. A code that is not here is a protocol error."""

_FAILED: Final[tuple[tuple[type[StcpError], int], ...]] = (
    (NoIdentity, errno.ENOKEY),
    (HandshakeTimedOut, errno.ETIMEDOUT),
    (HandshakeError, errno.EKEYREJECTED),
    (KeyRevoked, errno.EACCES),
    (Denied, errno.EACCES),
    (ServiceUnknown, errno.EACCES),
    (NoAnswer, errno.ETIMEDOUT),
    (Truncated, errno.ECONNRESET),
    (FrameError, errno.EPROTO),
)
"""The first kind that fits decides."""
OTHER: Final = errno.ECONNABORTED
"""For a failure of this process: a stop, a lack of memory, a bug."""


def errno_of(exc: BaseException) -> int:
    """The errno for the application."""
    if isinstance(exc, PeerRejected):
        return next((number for code, number in REJECTED.items() if code == exc.reason), errno.EPROTO)
    return next((number for kind, number in _FAILED if isinstance(exc, kind)), OTHER)
