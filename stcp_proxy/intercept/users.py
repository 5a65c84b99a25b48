"""The users that the proxy runs as. The rules leave their connections alone."""

from __future__ import annotations

import os
import pwd
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from stcp_proxy.config.plan import CapturePlan, TunnelPlan
from stcp_proxy.errors import ConfigError
from stcp_proxy.redact import shown

_MAX_ID: Final = 2**32 - 2
_SHARED: Final = {
    0: "root, as whom many programs run",
    1: "'daemon' of most distributions",
    33: "'www-data', as whom web servers run",
    65532: "'nonroot' of distroless images and of what is built on them",
    65533: "'nogroup' or 'nonroot' of some base images",
    65534: "'nobody', as whom many programs run",
    1000: "the first user of a machine, and the usual one of images",
    1001: "a usual user of images",
    101: "'nginx' or another service of common images",
    999: "a service of common images (Redis, PostgreSQL, MySQL)",
}
"""Users that several programs of one host or pod are likely to share."""
_CGROUP: Final = re.compile(r"[A-Za-z0-9_.@:\\-]{1,255}(?:/[A-Za-z0-9_.@:\\-]{1,255}){0,30}", re.ASCII)


def exempt_users(given: Sequence[str], capture: CapturePlan) -> list[int]:
    """Ids of the users that the proxy may run as.

    Args:
        given: names or numbers; when empty, the caller's user, except root.
        capture: with a mark, the rules recognise the proxy by it, and no user is required.

    Raises:
        ConfigError: a user does not exist, or neither a user nor a mark identifies the proxy.
    """
    if given:
        return user_ids(given)
    if os.geteuid() != 0:
        return [os.geteuid()]
    if capture.mark is None:
        raise ConfigError(
            "the rules cannot tell the proxy's own connections from others: its user is not named",
            remedy="name its user with --uid, or give the tunnel a 'mark'",
        )
    return []


def user_ids(given: Sequence[str]) -> list[int]:
    """The ids of users that are given by name or number.

    Raises:
        ConfigError: a user does not exist.
    """
    return [_id(text) for text in given]


def shared_users(users: Iterable[int]) -> Iterator[str]:
    """A warning for each user that other programs are likely to share with the proxy."""
    for user in users:
        if user in _SHARED:
            yield (
                f"user {user} is {_SHARED[user]}: every program that runs as this user leaves unencrypted; "
                "give the proxy a user of its own, or name its control group with --cgroup"
            )


def caller_is_shared(tunnels: Iterable[TunnelPlan]) -> Iterator[str]:
    """A warning where rules recognise the proxy only by its user, and other programs share the caller's user.

    Args:
        tunnels: the tunnels of the plan. Root checks files for other users, and gets no warning.
    """
    by_user = any(tunnel.intercept is not None and tunnel.intercept.capture.mark is None for tunnel in tunnels)
    return shared_users([os.geteuid()]) if by_user and os.geteuid() != 0 else iter(())


def check_cgroup(path: str, capture: CapturePlan) -> None:
    """Raises ConfigError where rules cannot use this control group."""
    if not _CGROUP.fullmatch(path) or ".." in path.split("/"):
        remedy = "write it as below /sys/fs/cgroup, like system.slice/stcp-proxy.service"
        raise ConfigError(f"--cgroup: {shown(path)} is no path of a control group", remedy=remedy)
    if capture.forwarded:
        raise ConfigError("--cgroup cannot go with 'forwarded': a forwarded packet has no control group", remedy="leave out one")


def _id(text: str) -> int:
    if text.isascii() and text.isdigit() and len(text) <= 10 and int(text) <= _MAX_ID:
        return int(text)
    try:
        return pwd.getpwnam(text).pw_uid
    except (KeyError, ValueError):
        raise ConfigError(f"--uid: there is no user {shown(text)} here", remedy="give the number of the user") from None
