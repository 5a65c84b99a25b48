"""The TCP sockets of this host, from the kernel's sock_diag interface."""

from __future__ import annotations

import ipaddress
import socket
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from stcp_proxy.net.pattern import IPAddress, plain_ip
from stcp_proxy.net.special_addresses import is_own_address

_NETLINK_SOCK_DIAG: Final = 4
_SOCK_DIAG_BY_FAMILY: Final = 20
_REQUEST_DUMP: Final = 0x301
_ERROR, _DONE, _MARK = 2, 3, 15
"""NLMSG_ERROR, NLMSG_DONE, INET_DIAG_MARK."""
_HEADER: Final = struct.Struct("=IHHII")
_REQUEST: Final = struct.Struct("=BBBxI48x")
_SOCKET: Final = struct.Struct("=BBBx2s2s16s16s12xIIIII")
_ATTRIBUTE: Final = struct.Struct("=HH")
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
    body = _REQUEST.pack(family, socket.IPPROTO_TCP, 0, 0xFFFFFFFF)
    request = _HEADER.pack(_HEADER.size + len(body), _SOCK_DIAG_BY_FAMILY, _REQUEST_DUMP, 1, 0) + body
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_SOCK_DIAG) as sock:
        sock.settimeout(5)
        sock.sendto(request, (0, 0))
        while True:
            for kind, message in _messages(sock.recv(1 << 18)):
                if kind == _DONE:
                    return
                if kind == _ERROR:
                    raise OSError(-struct.unpack_from("=i", message)[0], "sock_diag")
                yield _parse(message)


def _messages(data: bytes) -> Iterator[tuple[int, bytes]]:
    """The netlink messages in a datagram: type and body."""
    at = 0
    while at + _HEADER.size <= len(data):
        length, kind, *_ = _HEADER.unpack_from(data, at)
        yield kind, data[at + _HEADER.size : at + length]
        at += max(length + 3 & ~3, _HEADER.size)


def _parse(message: bytes) -> TcpSocket:
    family, state, _, port, peer_port, ip, peer_ip, _, _, _, uid, _ = _SOCKET.unpack_from(message)
    size = 4 if family == socket.AF_INET else 16
    mine, peer = (plain_ip(ipaddress.ip_address(raw[:size])) for raw in (ip, peer_ip))
    ports = (int.from_bytes(each, "big") for each in (port, peer_port))
    return TcpSocket(mine, next(ports), peer, next(ports), state, uid, _mark(message))


def _mark(message: bytes) -> int:
    at = _SOCKET.size
    while at + _ATTRIBUTE.size <= len(message):
        length, kind = _ATTRIBUTE.unpack_from(message, at)
        if kind == _MARK:
            return int(struct.unpack_from("=I", message, at + _ATTRIBUTE.size)[0])
        at += max(length + 3 & ~3, _ATTRIBUTE.size)
    return 0
