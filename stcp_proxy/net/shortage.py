"""What this machine lacks when a system call fails: descriptors, memory or local ports.

Such an errno says nothing about the other end. So no endpoint is blamed for it, and no other endpoint is tried in its place.
"""

from __future__ import annotations

import errno
import os
import socket
from typing import Any, Final

from stcp_proxy.errors import OverLimit

NO_DESCRIPTORS: Final = frozenset({errno.EMFILE, errno.ENFILE})
NO_MEMORY: Final = frozenset({errno.ENOBUFS, errno.ENOMEM})
NO_PORTS: Final = frozenset({errno.EADDRNOTAVAIL, errno.EADDRINUSE, errno.EAGAIN})
"""What connect() of a TCP socket says when no local port is free towards the destination."""
EXHAUSTED: Final = NO_DESCRIPTORS | NO_MEMORY
"""What accept() says when it is this machine that cannot take a connection."""


def shortage(status: int | None) -> OverLimit | None:
    """The error for an errno of any system call, if the errno means that this machine lacks descriptors or memory.

    Args:
        status: the errno; None where there is none.
    """
    if status == errno.EMFILE:
        return OverLimit(
            "this process has no file descriptor left", remedy="raise its limit of open files (LimitNOFILE=, 'ulimit -n')"
        )
    if status == errno.ENFILE:
        return OverLimit("this machine has no file descriptor left", remedy="raise sysctl fs.file-max, or end what holds many")
    if status in NO_MEMORY:
        return OverLimit(
            f"this machine has no memory for another socket ({os.strerror(status or 0).lower()})",
            remedy="free memory, or raise the limit of this service's group",
        )
    return None


def no_port(destination: object, source: object = None) -> OverLimit:
    """The error for a connection that finds no local port.

    Args:
        destination: where it was going.
        source: the local address that has no port left; None for this machine's own.
    """
    by = "" if source is None else f" of {source}"
    return OverLimit(
        f"no local port{by} is left for a connection to {destination}",
        remedy="widen sysctl net.ipv4.ip_local_port_range, set net.ipv4.tcp_tw_reuse=1, or close connections that are not needed",
    )


def has_source_address(family: int, sockaddr: Any) -> bool:
    """Whether this machine has an address that could be the source of packets to `sockaddr`.

    EADDRNOTAVAIL of connect() means that no port is left, or no address, as where IPv6 is switched off. Connecting a datagram
    socket tells: it needs the same address, a port of another kind, and sends nothing.
    """
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            return probe.connect_ex(sockaddr) not in (errno.EADDRNOTAVAIL, errno.ENETUNREACH, errno.EHOSTUNREACH)
    except OSError:
        return True


def lacks_descriptors() -> OverLimit | None:
    """The shortage, if no descriptor can be opened at this moment.

    For calls that do not tell, as getaddrinfo, which finds "no such name" where it cannot open a file or a socket.
    """
    try:
        os.close(os.open("/", os.O_PATH | os.O_CLOEXEC))
    except OSError as exc:
        return shortage(exc.errno)
    return None
