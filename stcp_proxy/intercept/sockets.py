"""The TCP sockets of this host, from the kernel's sock_diag interface."""

from __future__ import annotations

import errno
import ipaddress
import socket
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from stcp_proxy.net.netlink_messages import NETLINK_SOCK_DIAG, MalformedMessage, attributes, dump, number
from stcp_proxy.net.pattern import IPAddress, plain_ip
from stcp_proxy.net.special_addresses import is_own_address

_SOCK_DIAG_BY_FAMILY: Final = 20
_MARK: Final = 15
"""INET_DIAG_MARK."""
_REQUEST: Final = struct.Struct("=BBBxI48x")
_SOCKET: Final = struct.Struct("=BBBx2s2s16s16s12xIIIII")
_LISTENING: Final = 10
_WITHOUT_DATA: Final = {2, 6, 7}
"""SYN_SENT, TIME_WAIT, CLOSE: sockets in these states send no data."""


@dataclass(frozen=True, slots=True)
class TcpSocket:
    """One TCP socket.

    Attributes:
        ip, port: the local address.
        peer_ip, peer_port: the remote address.
        state: the kernel's number of the TCP state; 10 is listening.
        uid: the id of its user; 0 when no program has it open.
        mark: its SO_MARK.
    """

    ip: IPAddress
    port: int
    peer_ip: IPAddress
    peer_port: int
    state: int
    uid: int
    mark: int


def tcp_sockets() -> list[TcpSocket]:
    """All TCP sockets of this network namespace.

    Raises:
        OSError: the kernel does not support the request, or this process has no permission.
    """
    return [each for family in (socket.AF_INET, socket.AF_INET6) for each in _dump(family)]


def served(sockets: Iterable[TcpSocket]) -> list[TcpSocket]:
    """The connections that a server of this host has accepted. A socket on the same port still listens."""
    sockets = list(sockets)
    listening = {each.port for each in sockets if each.state == _LISTENING}
    return [each for each in sockets if _has_data(each) and each.port in listening and not each.peer_ip.is_loopback]


def server_ports(sockets: Iterable[TcpSocket]) -> list[int]:
    """The ports on which a server of this host listens for other hosts, in ascending order."""
    return sorted({each.port for each in sockets if each.state == _LISTENING and not each.ip.is_loopback})


def perhaps_intercepted(sockets: Iterable[TcpSocket], users: set[int], marks: set[int]) -> list[TcpSocket]:
    """Connections of applications to other hosts, without the connections of the proxy.

    Args:
        sockets: all sockets of the host.
        users, marks: the users and the marks of the proxy.
    """
    sockets = list(sockets)
    listening = {each.port for each in sockets if each.state == _LISTENING}
    found = [
        each
        for each in sockets
        if _has_data(each) and each.port not in listening and each.uid not in users and each.mark not in marks
    ]
    elsewhere = {ip for ip in {each.peer_ip for each in found} if not is_own_address(ip)}
    return [each for each in found if each.peer_ip in elsewhere]


def _has_data(sock: TcpSocket) -> bool:
    return sock.state != _LISTENING and sock.state not in _WITHOUT_DATA


def _dump(family: int) -> Iterator[TcpSocket]:
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_SOCK_DIAG) as sock:
        sock.settimeout(5)
        for message in dump(sock, _SOCK_DIAG_BY_FAMILY, _REQUEST.pack(family, socket.IPPROTO_TCP, 0, 0xFFFFFFFF)):
            try:
                yield _parse(message)
            except (MalformedMessage, struct.error) as exc:
                raise OSError(errno.EPROTO, f"sock_diag: {exc}") from None


def _parse(message: bytes) -> TcpSocket:
    family, state, _, port, peer_port, ip, peer_ip, _, _, _, uid, _ = _SOCKET.unpack_from(message)
    size = 4 if family == socket.AF_INET else 16
    mine, peer = (plain_ip(ipaddress.ip_address(raw[:size])) for raw in (ip, peer_ip))
    ports = (int.from_bytes(each, "big") for each in (port, peer_port))
    found = dict(attributes(message[_SOCKET.size :]))
    mark = number(found, _MARK, 4) if _MARK in found else 0
    return TcpSocket(mine, next(ports), peer, next(ports), state, uid, mark)
