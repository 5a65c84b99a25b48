"""The destination that a peer's client dialled before it was intercepted: dialled here if the file allows it.

A peer can put any destination into OPEN, and this host may reach addresses that the peer cannot. So a rule of `allow_targets`
has to cover the destination. Special addresses (loopback, link-local, this host's own) need a rule that covers nothing else:
127.0.0.1:6379 allows that address, 0.0.0.0/0 does not. The tunnel itself is never dialled. An IPv4-mapped address is treated as
its IPv4 address.
"""

from __future__ import annotations

import socket
from collections.abc import Sequence

import trio

from stcp_proxy.errors import Denied
from stcp_proxy.net.dial import Dialled, Failure, connect, socket_address, summary
from stcp_proxy.net.pattern import Pattern
from stcp_proxy.net.special_addresses import required_network
from stcp_proxy.protocol.opening import Endpoint
from stcp_proxy.session.client_address import plain_endpoint


def port_of(sock: socket.socket) -> int | None:
    """The local TCP port of a socket; None for a unix socket."""
    return sock.getsockname()[1] if sock.family in (socket.AF_INET, socket.AF_INET6) else None


def allowed_destination(original: Endpoint | None, rules: Sequence[Pattern], *, listening: int | None) -> Endpoint:
    """The destination to dial.

    Args:
        original: the destination in OPEN; None where OPEN has none.
        rules: the destinations that may be dialled.
        listening: the tunnel's own port; None where it has none.

    Raises:
        Denied: it may not be dialled. The text, which is for the log, has the destination and the reason.
    """
    if original is None:
        raise Denied(
            "the peer does not name its client's destination",
            remedy="intercept on the peer's host, or add an address to 'to'",
        )
    target = plain_endpoint(original)
    covering = [rule for rule in rules if rule.match(target.ip, target.port)]
    guard = required_network(target.ip)
    if guard is not None and target.port == listening:
        raise Denied(f"the peer's client was going to {target}, which is this tunnel's own port", remedy="exclude it there")
    if not covering or (guard is not None and not any(rule.within(guard[0]) for rule in covering)):
        why = "" if guard is None else f": it is {guard[1]}, and no rule covers only such addresses"
        raise Denied(
            f"the peer's client was going to {target}, which 'allow_targets' does not allow{why}",
            remedy="if it may, add it to 'allow_targets'",
        )
    return target


async def dial_destination(target: Endpoint, timeout: float, *, source: Endpoint | None = None) -> Dialled:
    """Connect to an allowed destination. No other address is tried.

    Args:
        target: from `allowed_destination`.
        timeout: seconds.
        source: the address to dial from: the client's own. None for this host's.

    Raises:
        TargetRefused, TargetTimedOut, TargetUnreachable: it does not answer.
        OverLimit: this process has no descriptor left.

    Cancellation closes the socket under way.
    """
    place = socket_address(target)
    made = await connect(place, trio.current_time() + timeout, source=source)
    if isinstance(made, Failure):
        raise summary([place], [made])
    return Dialled(made, str(place))
