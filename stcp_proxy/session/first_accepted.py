"""Ask for a connection on two wire legs, and take the leg that is accepted first."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import trio

from stcp_proxy.errors import StcpError
from stcp_proxy.handshake import exchange
from stcp_proxy.session.peer_leg import PeerLeg


async def first_accepted(kept: PeerLeg, open_new: Callable[[], Awaitable[PeerLeg]]) -> PeerLeg:
    """Wait for ACCEPT on a kept leg, and meanwhile open the connection on a new leg.

    Args:
        kept: OPEN was sent on it. It stays open, whichever leg is accepted.
        open_new: opens the connection on a new leg, and returns the leg after ACCEPT.

    Returns:
        The leg that was accepted first. A new leg that was accepted second is given up.

    Raises:
        StcpError: the new leg failed before the kept leg was accepted.
    """
    found: list[PeerLeg] = []
    failures: list[StcpError] = []

    async def wait() -> None:
        try:
            if await exchange.read_answer(kept.stream, kept.channel) and not found:
                found.append(kept)
                nursery.cancel_scope.cancel()
        except StcpError:
            return  # the new leg decides

    async def open_beside() -> None:
        try:
            leg = await open_new()
        except StcpError as exc:
            failures.append(exc)
        else:
            if found:
                leg.give_up()
            else:
                found.append(leg)
        nursery.cancel_scope.cancel()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait)
        nursery.start_soon(open_beside)
    if not found:
        raise failures[0]
    return found[0]
