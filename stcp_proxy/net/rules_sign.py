"""Which rules of interception are installed: found out without any privilege.

The rules refuse connections to port 1 of two loopback addresses by an ICMP message, "host prohibited". One address is the same
for all rules; the other is made from the digest of what the file captures. Without rules the kernel refuses such a connection,
by a TCP RST. So an attempt to connect tells whether rules are there, and whether they are those of a file. It never leaves the
host.
"""

from __future__ import annotations

import enum
import errno
import socket
from typing import Final

SIGN: Final = "127.83.84.67"
"""Refused by every table of rules."""
EGRESS_SIGN: Final = "127.83.84.69"
"""Refused by a table of rules that was installed with the egress filter."""
_CONTROL: Final = "127.83.84.68"
"""Refused by no table of rules: a firewall that answers for this address answers for all."""
PORT: Final = 1
"""No program listens there."""
_TIMEOUT: Final = 0.2
"""Seconds; the kernel answers in microseconds, inside of connect()."""


class Installed(enum.StrEnum):
    """Which rules this host has."""

    CURRENT = "current"
    """Those of the file."""
    OUTDATED = "outdated"
    """Those of another file, or of an earlier version of it."""
    MISSING = "missing"
    """None."""
    UNKNOWN = "unknown"
    """It cannot be told: another firewall answers or drops."""


def sign_of(digest: str) -> str:
    """The loopback address that stands for a digest.

    Args:
        digest: at least six hexadecimal digits.
    """
    number = int(digest[:6], 16)
    return f"127.{number >> 16 | 128}.{number >> 8 & 255}.{number & 255}"


def installed_rules(digest: str) -> Installed:
    """Which rules this host has, compared with those for a digest."""
    answers = [_is_prohibited(address) for address in (_CONTROL, SIGN, sign_of(digest))]
    if None in answers or answers[0]:
        return Installed.UNKNOWN
    if answers[2]:
        return Installed.CURRENT
    return Installed.OUTDATED if answers[1] else Installed.MISSING


def asked_for_egress_filter() -> bool:
    """Whether the installed rules were installed with the egress filter. Rules of earlier releases do not say it."""
    return _is_prohibited(_CONTROL) is False and _is_prohibited(EGRESS_SIGN) is True


def _is_prohibited(address: str) -> bool | None:
    """Whether rules refuse connections to an address; None where that cannot be told."""
    with socket.socket() as sock:
        sock.settimeout(_TIMEOUT)
        try:
            sock.connect((address, PORT))
        except ConnectionRefusedError:
            return False
        except OSError as exc:
            return True if exc.errno == errno.EHOSTUNREACH else None
    return None
