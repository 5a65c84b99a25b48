"""The PROXY header that somebody sends ahead of a connection, on the connect side.

Who may send one is asked before a byte is read: everybody else could claim to be anybody. There is no connection without a header
here, whether it would have been allowed to come or not.
"""

from __future__ import annotations

import trio

from stcp_proxy.config import AcceptProxy
from stcp_proxy.errors import ClientGone, ProxyHeaderRefused
from stcp_proxy.net.leg_stream import LegStream
from stcp_proxy.net.proxy_header import MAX_HEADER, ProxyHeader, parse_header
from stcp_proxy.session.client_address import endpoint_of


async def read_announcement(stream: LegStream, rule: AcceptProxy, *, timeout: float) -> tuple[ProxyHeader, bytes]:
    """The header, and the application's first bytes where some came with it.

    Args:
        stream: the plain leg.
        rule: who may send one.
        timeout: seconds for the whole header.

    Raises:
        ProxyHeaderRefused: there is none, it is malformed, too late, or not from a proxy that may send one.
        ClientGone: the connection ended before its first byte, as those of a health check do.
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
            "whoever connected may not send a PROXY header, and without one nobody may connect",
            remedy="if it is a proxy of yours, add its address to 'from' under 'accept_proxy_protocol'",
        )


async def _more(stream: LegStream, data: bytes) -> bytes:
    try:
        more = await stream.receive_some(MAX_HEADER)
    except trio.BrokenResourceError:
        raise ClientGone("the connection was reset before its PROXY header was complete") from None
    if not more and not data:
        raise ClientGone("the connection was closed before its PROXY header")
    if not more:
        raise ProxyHeaderRefused("the connection was closed inside its PROXY header")
    return more
