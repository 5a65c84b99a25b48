"""One handshake for a kernel socket, from the TCP connection to the keys.

    connecting socket   handshake -> OPEN -> ACCEPT -> keys for the module
    listening socket    handshake -> OPEN authenticated -> rules -> ACCEPT -> keys for the module

The messages are those of the tunnels, made by the same code. No byte of the application is sent: the module sends it afterwards.
Wire legs of sockets carry one connection, so neither side offers to keep them.
"""

from __future__ import annotations

import ipaddress
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import trio

from stcp_proxy.agent.messages import Opened, Pending
from stcp_proxy.agent.netlink_abi import MAX_PEER, MAX_WIRE_BYTES
from stcp_proxy.agent.policy import Rule
from stcp_proxy.errors import Denied, FrameError, HandshakeClosed, KeyRevoked, StcpError, code_for
from stcp_proxy.handshake import exchange
from stcp_proxy.handshake.authenticate import authenticate, initiator
from stcp_proxy.handshake.trust import Peer
from stcp_proxy.net.leg_stream import LegStream
from stcp_proxy.protocol.opening import Endpoint, Opening

_NO_BYTES: Final = bytes


@dataclass(slots=True, eq=False)
class Record:
    """What is known about a handshake, for its log line.

    Attributes:
        pending: the handshake.
        remote: the other end of the TCP connection; None where it is gone.
        started: when it began, by `time.monotonic`.
        deadline: when it has to be done, by Trio's clock. A wait for a place is part of its time.
        identity: the identity that the socket uses.
        peer: the name of the authenticated peer.
        channel: the channel id.
        service: the service that is asked for.
        refusal: why an authenticated peer is refused, while the refusal is sent.
    """

    pending: Pending
    remote: Endpoint | None
    started: float
    deadline: float
    identity: str = ""
    peer: str = ""
    channel: str = ""
    service: str = ""
    refusal: StcpError | None = None

    @classmethod
    def of(cls, pending: Pending, sock: socket.socket) -> Record:
        """The record of a handshake that the kernel has just handed out."""
        return cls(pending, _remote(sock), time.monotonic(), trio.current_time() + pending.timeout)

    def note(self, channel: exchange.Channel, peer: Peer) -> None:
        """Note the authenticated peer."""
        self.channel, self.peer = channel.established.channel_id, peer.name


async def connect(stream: LegStream, rule: Rule, record: Record, still: Callable[[Rule, Peer], bool]) -> Opened:
    """Do the handshake of a connecting socket.

    Args:
        stream: its TCP connection.
        rule: what applies to it.
        record: takes what becomes known.
        still: tells whether the rules in force admit a peer; a reload may have replaced `rule`.

    Raises:
        StcpError: it failed.
    """
    trust, address = rule.trust, str(record.remote)
    record.service = rule.service or ""
    if not trust.choice.is_settled(address, trio.current_time()):
        await _find_keys(stream, rule, address, record)
    pairs = trust.choice.order(address, trio.current_time())
    if not pairs:
        raise KeyRevoked(
            "every key of the peer is revoked on this side", remedy="give the peer a new key, and name it in 'peers'"
        )
    channel = await exchange.initiate(stream, initiator(rule.suites[0], trust, pairs[0]), opens_at_once=True)
    peer = trust.peer(channel.established)
    record.note(channel, peer)
    if not still(rule, peer):
        raise KeyRevoked("a reload took a key of this connection away during its handshake")
    await exchange.open_channel(stream, channel, Opening(service=rule.service), _NO_BYTES)
    await exchange.read_answer(stream, channel)
    return _opened(channel, peer)


async def _find_keys(stream: LegStream, rule: Rule, address: str, record: Record) -> None:
    """Find out which of several keys the peer has, on connections of the agent's own.

    A peer closes the connection when it refuses a key, and the socket has only one connection. The search ends early where that
    connection has something to read. The peer has not been asked anything on it yet, so this is its end, as where the application
    has closed its socket, or it does not speak STCP: the handshake on it shows which. A user who closes sockets must not keep the
    places of their handshakes.
    """
    remote = record.remote
    if remote is None:
        raise HandshakeClosed("the connection ended before its handshake")
    family = socket.AF_INET if remote.ip.version == 4 else socket.AF_INET6

    async def dial() -> socket.socket:
        with trio.socket.socket(family, socket.SOCK_STREAM) as sock:
            try:
                await sock.connect((str(remote.ip), remote.port))
            except OSError as exc:
                raise HandshakeClosed(f"the peer cannot be reached again to find out its key: {exc.strerror}") from None
            plain = socket.socket(fileno=sock.detach())
        plain.setblocking(False)
        return plain

    failure: StcpError | None = None
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_cancel_when_readable, stream, nursery.cancel_scope)
        try:
            found = await authenticate(dial, rule, rule.trust, address=address)
        except StcpError as exc:
            failure = exc  # raised outside: a nursery would wrap it
        else:
            found.stream.close()
        nursery.cancel_scope.cancel()
    if failure is not None:
        try:
            raise failure
        finally:
            del failure  # it would be part of its own traceback


async def _cancel_when_readable(stream: LegStream, scope: trio.CancelScope) -> None:
    await trio.lowlevel.wait_readable(stream.socket)
    scope.cancel()


async def listen(stream: LegStream, rule: Rule, record: Record, still: Callable[[Rule, Peer], bool]) -> Opened:
    """Do the handshake of a connection to a listening socket. The arguments are those of `connect`.

    Raises:
        StcpError: it failed; a peer that had authenticated has been told the kind of the failure.
    """
    channel, _ = await exchange.respond(stream, rule.trust.responder(rule.suites))
    opening = await exchange.read_open(stream, channel)
    peer = rule.trust.peer(channel.established)  # not earlier: message 1 may be a replay
    record.note(channel, peer)
    record.service = opening.service or ""
    try:
        if not still(rule, peer):
            raise KeyRevoked("a reload took a key of this connection away during its handshake")
        rule.check_service(opening.service)
        _opened(channel, peer)  # raises while the peer can be told
    except StcpError as exc:
        record.refusal = exc
        await channel.reject(stream, code_for(exc))
        raise
    await channel.accept(stream)
    return _opened(channel, peer)


def _opened(channel: exchange.Channel, peer: Peer) -> Opened:
    """The keys and everything else that the module needs.

    Raises:
        Denied: the peer's name does not fit into STCP_PEER. A shortened name could be that of a different peer.
        FrameError: more was read beyond the opening than DONE can carry.
    """
    if len(peer.full_name.encode()) > MAX_PEER or "\0" in peer.full_name:
        raise Denied(f"the peer's name does not fit into {MAX_PEER} bytes", remedy="issue its certificate with a shorter name")
    if len(channel.rest) > MAX_WIRE_BYTES:
        raise FrameError("more bytes came with the opening than the kernel module takes")
    return Opened(channel.send, channel.receive, channel.rest, peer.full_name, channel.established.handshake_hash)


def _remote(sock: socket.socket) -> Endpoint | None:
    """The other end of a TCP connection; None where it is gone, or has no IP address."""
    try:
        match sock.getpeername():
            case (str() as host, int() as port, *_):
                return Endpoint(ipaddress.ip_address(host.partition("%")[0]), port)
    except (OSError, ValueError):
        pass
    return None
