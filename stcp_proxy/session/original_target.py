"""Where a peer's client was going before it was intercepted: dialled when the file allows it.

The destination in OPEN is the peer's word, and to dial it is to lend the peer this host's place in its network. So nothing is
dialled that no rule of `allow_targets` covers, and what is dangerous for being near (loopback, link-local, this host's own
addresses and their like) only where a rule is about that alone: 127.0.0.1:6379 allows it, 0.0.0.0/0 does not. The tunnel itself
is never dialled. The address is looked at as it is dialled: an IPv4 address dressed as IPv6 has been undressed before both.
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
        original: what the peer says; None where it says nothing.
        rules: what may be dialled.
        listening: the tunnel's own port; None where it has none.

    Raises:
        Denied: it may not be dialled; the text, which is for the log, says what and why.
    """
    if original is None:
        raise Denied(
            "the peer does not say where its client was going", remedy="intercept there, or name an address under 'to', too"
        )
    target = plain_endpoint(original)
    covering = [rule for rule in rules if rule.match(target.ip, target.port)]
    guard = required_network(target.ip)
    if guard is not None and target.port == listening:
        raise Denied(f"the peer's client was going to {target}, which is this tunnel's own port", remedy="exclude it there")
    if not covering or (guard is not None and not any(rule.within(guard[0]) for rule in covering)):
        why = "" if guard is None else f": it is {guard[1]}, and no rule is about that alone"
        raise Denied(
            f"the peer's client was going to {target}, which 'allow_targets' does not allow{why}",
            remedy="if it may, add it to 'allow_targets'",
        )
    return target


async def dial_destination(target: Endpoint, timeout: float, *, source: Endpoint | None = None) -> Dialled:
    """Connect to an allowed destination, and to nothing else if it does not answer.

    Args:
        target: from `allowed_destination`.
        timeout: seconds.
        source: a client whose own address is dialled from.

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
