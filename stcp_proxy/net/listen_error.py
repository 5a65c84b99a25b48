"""The sentence for an operator whose address cannot be listened on: what the system refused, why, and what to do."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Final

from stcp_proxy.errors import ConfigError
from stcp_proxy.net.address import Address, TcpAddress, UnixAddress

_LISTEN: Final = "0A"
"""TCP_LISTEN, as the tables under /proc/net write it."""
_TABLES: Final = ("/proc/net/tcp", "/proc/net/tcp6")


def explain(address: Address, exc: OSError) -> ConfigError:
    """The error for an address that cannot be listened on.

    Args:
        address: as configured.
        exc: from socket(), bind() or listen().
    """
    what, remedy = f"cannot listen on {address}: {exc.strerror or exc}", None
    if exc.errno in (errno.EMFILE, errno.ENFILE):
        remedy = "raise the limit of open files ('ulimit -n')"
    elif exc.errno in (errno.ENOBUFS, errno.ENOMEM):
        remedy = "free memory on this machine, or raise its limit for this service"
    elif isinstance(address, UnixAddress):
        what, remedy = _explain_unix(address, exc, what)
    elif exc.errno == errno.EADDRINUSE:
        what, remedy = _explain_in_use(address)
    elif exc.errno == errno.EADDRNOTAVAIL:
        what = f"cannot listen on {address}: no interface of this machine has this address, or not yet"
        remedy = "bind an address that 'ip address' shows, or :port for all; 'freebind: true' binds one that comes later"
    elif exc.errno in (errno.EACCES, errno.EPERM):
        what = f"cannot listen on {address}: user {os.geteuid()} may not bind a privileged port"
        remedy = "bind a port from 1024 up, or grant CAP_NET_BIND_SERVICE"
    return ConfigError(what, remedy=remedy)


def _explain_unix(address: UnixAddress, exc: OSError, what: str) -> tuple[str, str | None]:
    if exc.errno == errno.ENOENT:
        return f"cannot listen on {address}: its folder does not exist", "create the folder"
    if exc.errno in (errno.EACCES, errno.EPERM):
        return (
            f"cannot listen on {address}: user {os.geteuid()} may not write to its folder",
            "choose a folder that this user owns; a running proxy whose sandbox does not know the folder takes a restart",
        )
    if exc.errno == errno.EADDRINUSE:
        return f"cannot listen on {address}: another program has bound it at this moment", "choose another path"
    return what, None


def _explain_in_use(address: TcpAddress) -> tuple[str, str]:
    """Words and remedy for EADDRINUSE: a listener, an outgoing connection, or a socket that does not listen."""
    states, see = _states(address.port), f"'ss -tanp sport = {address.port}' shows it"
    if states and _LISTEN not in states:
        what = f"cannot listen on {address}: an outgoing connection of this machine uses port {address.port}"
        remedy = (
            f"end that connection ({see}), and reserve the port: sysctl net.ipv4.ip_local_reserved_ports={address.port}; "
            "or bind a port outside of net.ipv4.ip_local_port_range"
        )
        return what, remedy
    if states:
        return f"cannot listen on {address}: another program is listening there", f"stop it ({see}), or bind another port"
    return (
        f"cannot listen on {address}: another program has bound that port",
        "stop it ('ss -lntap' as root shows it), or bind another port",
    )


def _states(port: int) -> set[str]:
    """States of the TCP sockets that have a local port here; empty where they cannot be read."""
    found: set[str] = set()
    for table in _TABLES:
        try:
            lines = Path(table).read_text(encoding="ascii", errors="replace").splitlines()[1:]
        except OSError:
            continue
        for line in lines:
            words = line.split(maxsplit=4)
            if len(words) > 3 and words[1].endswith(f":{port:04X}"):
                found.add(words[3])
    return found
