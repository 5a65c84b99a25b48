"""Whose connections the rules leave alone."""

from __future__ import annotations

import os
import pwd
from collections.abc import Sequence
from typing import Final

from stcp_proxy.config.plan import CapturePlan
from stcp_proxy.errors import ConfigError
from stcp_proxy.redact import shown

_MAX_ID: Final = 2**32 - 2


def exempt_users(given: Sequence[str], capture: CapturePlan) -> list[int]:
    """Ids of the users as whom the proxy may run.

    Args:
        given: names or numbers; without any, whoever calls is meant, unless that is root.
        capture: with a mark, the proxy is known by that, and no user is needed.

    Raises:
        ConfigError: no such user, or nobody can be left alone.
    """
    if given:
        return [_id(text) for text in given]
    if os.geteuid() != 0:
        return [os.geteuid()]
    if capture.mark is None:
        raise ConfigError(
            "the rules cannot tell the proxy's own connections from others: it is not said who runs it",
            remedy="name its user with --uid, or give the tunnel a 'mark'",
        )
    return []


def _id(text: str) -> int:
    if text.isascii() and text.isdigit() and len(text) <= 10 and int(text) <= _MAX_ID:
        return int(text)
    try:
        return pwd.getpwnam(text).pw_uid
    except (KeyError, ValueError):
        raise ConfigError(f"--uid: there is no user {shown(text)} here", remedy="give the number of the user") from None
