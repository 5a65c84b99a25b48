"""Checks of the addresses at which the tunnels of a plan listen: free, or in use.

A socket is bound and closed again, and never listens. A running proxy is recognised by its admin address.
"""

from __future__ import annotations

import errno
import os
import re
import socket
from typing import Final

from stcp_proxy.config import AdminPlan, Plan, TunnelPlan
from stcp_proxy.doctor.finding import Finding, Level
from stcp_proxy.errors import ConfigError
from stcp_proxy.net.address import Address, TcpAddress, UnixAddress
from stcp_proxy.net.listen import sockaddrs
from stcp_proxy.net.listen_error import explain
from stcp_proxy.net.unix_socket import is_bound

_PATIENCE: Final = 3.0
"""Seconds for each step at the admin address."""


def look(plan: Plan) -> list[Finding]:
    """Check the address of each tunnel, and the admin address."""
    if plan.admin is None:
        return [_tunnel(tunnel, None) for tunnel in plan.tunnels]
    runs, admin = _admin(plan.admin)
    lost = _lost(plan.admin) if runs else set()
    return [*(_tunnel(tunnel, runs, lost=tunnel.name in lost) for tunnel in plan.tunnels), admin]


def _lost(plan: AdminPlan) -> set[str]:
    """The tunnels of the running proxy whose socket file was removed or replaced, as its `/readyz` says."""
    from stcp_proxy.admin.client import AdminError, ask

    try:
        _, body = ask(plan, "/readyz", timeout=_PATIENCE)
    except AdminError:
        return set()
    return set(re.findall(r"^not ready: tunnel (.+?): socket_lost", body.decode(errors="replace"), re.MULTILINE))


def _tunnel(tunnel: TunnelPlan, runs: bool | None, *, lost: bool = False) -> Finding:
    """Check the address of a tunnel.

    Args:
        tunnel: the tunnel.
        runs: whether this proxy runs; None where that is unknown.
        lost: whether it says that its socket file is lost.
    """
    subject = f"{tunnel.name}: bind {tunnel.bind}"
    try:
        status = _try(tunnel.bind)
    except ConfigError as exc:
        return Finding(Level.FAIL, subject, exc.what, exc.remedy or "correct it")
    if lost:
        what = "the proxy runs, and no client can connect: its socket file was removed or replaced"
        return Finding(Level.FAIL, subject, what, "reload the proxy: it binds the path anew")
    if status != errno.EADDRINUSE:
        return _free(subject, tunnel.bind, status, "free")
    if runs:
        return Finding(Level.OK, subject, "in use, as expected while this proxy is running: its admin address answers")
    remedy = "stop what listens there ('ss -ltnp' as root shows it), or bind another address"
    if runs is False:
        return Finding(Level.FAIL, subject, "in use by another program: the admin address of this proxy does not answer", remedy)
    return Finding(Level.WARN, subject, "in use", f"if it is not this proxy, {remedy}")


def _admin(plan: AdminPlan) -> tuple[bool, Finding]:
    """Whether this proxy runs, and the finding for its admin address."""
    from stcp_proxy.admin.client import AdminError, Unreachable, ask

    subject = f"admin {plan.address}"
    try:
        status, body = ask(plan, "/healthz", timeout=_PATIENCE)
    except Unreachable as exc:
        try:
            bindable = _try(plan.address)
        except ConfigError as wrong:
            return False, Finding(Level.FAIL, subject, wrong.what, wrong.remedy or "correct it")
        if bindable == errno.EADDRINUSE:
            return False, Finding(Level.FAIL, subject, exc.what, "look for what has the address ('ss -ltnp' as root shows it)")
        free = "free: this proxy does not run now"
        if isinstance(plan.address, UnixAddress):
            free += ", or its socket file was removed (a reload binds it anew)"
        return False, _free(subject, plan.address, bindable, free)
    except AdminError as exc:
        return False, Finding(Level.FAIL, subject, exc.what, exc.remedy or "choose another address")
    if (status, body) != (200, b"ok\n"):
        what = f"what answers there is not a healthy proxy (HTTP status {status})"
        return False, Finding(Level.FAIL, subject, what, "look in the proxy's log, or choose another address")
    return True, Finding(Level.OK, subject, "a proxy runs and answers")


def _free(subject: str, address: Address, status: int, words: str) -> Finding:
    """The finding for an address that could be bound, or for the errno."""
    if status == 0:
        return Finding(Level.OK, subject, words)
    error = explain(address, OSError(status, os.strerror(status)))
    return Finding(Level.FAIL, subject, error.what, error.remedy or "correct the address")


def _try(address: Address) -> int:
    """0 where it can be bound, or the errno.

    Raises:
        ConfigError: its name cannot be resolved.
    """
    return _unix(address) if isinstance(address, UnixAddress) else _tcp(address)


def _tcp(address: TcpAddress) -> int:
    """0, or the errno of the first address that cannot be bound."""
    for family, sockaddr in sockaddrs(address):
        try:
            with socket.socket(family, socket.SOCK_STREAM) as sock:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                if family == socket.AF_INET6:
                    sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                sock.bind(sockaddr)
        except OSError as exc:
            if not address.host and family == socket.AF_INET6 and exc.errno in (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL):
                continue
            return exc.errno or errno.EIO
    return 0


def _unix(address: UnixAddress) -> int:
    folder = os.path.dirname(address.path)
    if os.path.lexists(address.path):
        bound = is_bound(address.path)
        if bound is None:
            return errno.EACCES
        return errno.EADDRINUSE if bound else 0  # a stale file is replaced by the proxy
    return 0 if os.access(folder, os.W_OK | os.X_OK) else errno.EACCES
