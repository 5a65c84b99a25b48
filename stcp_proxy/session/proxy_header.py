"""The PROXY header that a load balancer sends ahead of a connection, on the connect side.

The sender's address is checked before a byte is read, because a sender can claim any client address. A connection without a valid
header is refused.
"""

from __future__ import annotations

import trio

from stcp_proxy.config import AcceptProxy
from stcp_proxy.errors import ClientGone, ConnectCheck, ProxyHeaderRefused
from stcp_proxy.net.leg_stream import LegStream
from stcp_proxy.net.proxy_header import MAX_HEADER, ProxyHeader, parse_header
from stcp_proxy.session.client_address import endpoint_of


async def read_announcement(stream: LegStream, rule: AcceptProxy, *, timeout: float) -> tuple[ProxyHeader, bytes]:
    """Read the header, and the bytes of the application that came with it.

    Args:
        stream: the plain leg.
        rule: the addresses that may send a header.
        timeout: seconds for the whole header.

    Raises:
        ProxyHeaderRefused: the header is missing, malformed, late, or from an address that may not send one.
        ConnectCheck: the connection ended before its first byte, as a health check does.
        ClientGone: the connection was reset inside its header.
    """
    _check_sender(stream, rule)
    data = b""
    with trio.move_on_after(timeout):
        while (found := parse_header(data)) is None:
            more = await _more(stream, data)
            data += more
        size, header = found
        return header, data[size:]
    raise ProxyHeaderRefused(f"no complete PROXY header came within {timeout:g} s")


def _check_sender(stream: LegStream, rule: AcceptProxy) -> None:
    if rule.senders is None:
        return
    sender = endpoint_of(stream.socket)
    if sender is None or not any(each.covers(sender.ip) for each in rule.senders):
        raise ProxyHeaderRefused(
            "the client's address may not send a PROXY header, and a connection without one is refused",
            remedy="if it is your load balancer, add its address to 'from' under 'accept_proxy_protocol'",
        )


async def _more(stream: LegStream, data: bytes) -> bytes:
    try:
        more = await stream.receive_some(MAX_HEADER)
    except trio.BrokenResourceError:
        if not data:
            raise ConnectCheck("the connection was reset before its first byte") from None
        raise ClientGone("the connection was reset before its PROXY header was complete") from None
    if not more and not data:
        raise ConnectCheck("the connection was closed before its first byte")
    if not more:
        raise ProxyHeaderRefused("the connection was closed inside its PROXY header")
    return more
