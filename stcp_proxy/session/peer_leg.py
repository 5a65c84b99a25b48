"""Authenticated wire legs that carry several connections, one after the other (PROTOCOL.md section 7).

When both sides have agreed to keep a leg, the engine gives it back after both FINs. The `Keeper` of the tunnel holds it until the
next connection. It closes legs whose time is over, and legs that a changed file no longer allows.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Final, Protocol

import trio

from stcp_proxy.errors import Code, CounterExhausted, OverLimit
from stcp_proxy.handshake.exchange import Channel
from stcp_proxy.net.leg_stream import LegStream
from stcp_proxy.protocol.opening import encode_reason
from stcp_proxy.protocol.wire import FrameType
from stcp_proxy.relay.engine import WireLeg

YOUNG: Final = 1.0
"""Seconds at rest in which no NAT or firewall on the path forgets a leg. So the application's first bytes may go with OPEN."""
NEVER: Final = object()
"""The era of a leg that is not kept."""


def now() -> float:
    """Seconds of CLOCK_BOOTTIME, which also counts the time in which this machine was suspended: the peer's time went on."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


@dataclass(slots=True, eq=False)
class PeerLeg:
    """A wire leg whose peer has authenticated.

    Attributes:
        stream: the leg; owned by the holder of this object while no engine carries it.
        channel: its keys and counters, and the bytes that were read beyond.
        use: the connections that it can serve: on a connect tunnel those to the peer's address and identity, on a listen tunnel
            those of the peer.
        name: text of the peer's address.
        era: the keeper's era when it was made.
        made: when it was made, by `now`.
        at_rest: when its last connection ended, by `now`.
    """

    stream: LegStream
    channel: Channel
    use: object
    name: str
    era: object
    made: float
    at_rest: float = 0.0

    @property
    def kind(self) -> str:
        """`new` during the leg's first connection, else `kept`, as logs and counters have it."""
        return "kept" if self.channel.leg.connection else "new"

    @property
    def is_young(self) -> bool:
        """Whether it came to rest a moment ago."""
        return now() - self.at_rest < YOUNG

    def leave(self, kind: FrameType) -> None:
        """Send BYE to end a leg at rest, or RESET to end a connection that goes on over a different leg. The leg stays open.

        After a frame that was sent in part, nothing is sent: the peer would see a broken frame.

        Args:
            kind: BYE or RESET. It is sent only where the state of the leg allows it, and the socket takes it at once.
        """
        if self.stream.is_cut or not self.channel.leg.may_send(kind):
            return
        content = encode_reason(Code.PLAIN_RESET, "it goes on over another wire leg") if kind is FrameType.RESET else b""
        with contextlib.suppress(trio.BrokenResourceError, OverLimit, CounterExhausted):
            self.stream.send_nowait(self.channel.seal(kind, content))

    def give_up(self) -> None:
        """End a connection that goes on over a different leg, and close this leg."""
        self.leave(FrameType.RESET)
        self.stream.close()


class Keeper(Protocol):
    """Holds the wire legs of one tunnel between their connections."""

    @property
    def era(self) -> object:
        """The present era. A new era is a new object; legs of an earlier era are no longer kept."""

    def offer(self, made: float) -> int | None:
        """Seconds for which a leg can be kept after its next connection; None where it cannot.

        Args:
            made: when it was made, by `now`.
        """

    def take(self, use: object) -> PeerLeg | None:
        """Take the usable leg that came to rest last; None without one. The caller owns it."""

    def put(self, leg: PeerLeg) -> None:
        """Keep a leg at rest, or close it. From any thread."""

    def lost(self, leg: PeerLeg) -> None:
        """Close every leg for the same use that has been at rest for longer than `leg`, which no longer works."""


class NoKeeper:
    """Keeps no leg."""

    era: Final = None

    def offer(self, made: float) -> int | None:
        """No time."""
        return None

    def take(self, use: object) -> PeerLeg | None:
        """No leg."""
        return None

    def put(self, leg: PeerLeg) -> None:
        """Close it."""
        leg.stream.close()

    def lost(self, leg: PeerLeg) -> None:
        """There is none."""


def give_back(leg: PeerLeg, keeper: Keeper) -> Callable[[WireLeg], None] | None:
    """The function that takes a leg back from an engine; None where the leg is not kept after this connection."""
    return None if leg.channel.leg.keep is None else partial(_take_back, leg, keeper)


def _take_back(leg: PeerLeg, keeper: Keeper, given: WireLeg) -> None:
    leg.stream = LegStream(given.socket)
    leg.channel.resume(given)
    leg.at_rest = now()
    keeper.put(leg)
