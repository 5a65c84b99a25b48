"""Authenticated wire legs that carry several connections in turn (PROTOCOL.md section 7), and what sessions need of their keeper.

When both sides have agreed to keep a leg, the engine gives it back after both FINs. The `Keeper` of the tunnel holds it until the
next connection, and closes the legs that nobody may use any more.
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
"""Seconds at rest for which nothing between the two sides forgets a leg. Then the application's first bytes go with OPEN."""


NEVER: Final = object()
"""The era of a leg that is not kept."""


def now() -> float:
    """Seconds of a clock that also counts the time in which this process or this machine stood still: the peer's clock did."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


@dataclass(slots=True, eq=False)
class PeerLeg:
    """A wire leg whose peer has authenticated.

    Attributes:
        stream: the leg; owned by the holder of this object while no engine carries it.
        channel: its keys and counters, and the bytes that were read beyond.
        use: what it serves: on a connect tunnel the peer's address and identity, on a listen tunnel the peer alone.
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
        """Whether the connection under way is the leg's first: `new` or `kept`, as logs and counters say it."""
        return "kept" if self.channel.leg.connection else "new"

    @property
    def is_young(self) -> bool:
        """Whether it came to rest a moment ago."""
        return now() - self.at_rest < YOUNG

    def leave(self, kind: FrameType) -> None:
        """Say BYE, or RESET where a connection is under way that goes on elsewhere, if the leg takes it. The leg stays open.

        Nothing is said behind a frame that was sent in part: the peer could not tell it from an attack.
        """
        if self.stream.is_cut or not self.channel.leg.may_send(kind):
            return
        content = encode_reason(Code.PLAIN_RESET, "it goes on over another wire leg") if kind is FrameType.RESET else b""
        with contextlib.suppress(trio.BrokenResourceError, OverLimit, CounterExhausted):
            self.stream.send_nowait(self.channel.seal(kind, content))

    def give_up(self) -> None:
        """End a connection that goes on over another leg, and close the leg."""
        self.leave(FrameType.RESET)
        self.stream.close()


class Keeper(Protocol):
    """Holds the wire legs of one tunnel between their connections."""

    @property
    def era(self) -> object:
        """Another object when no leg that was made before may be kept any more."""

    def offer(self, made: float) -> int | None:
        """Seconds for which a leg can be kept after its next connection; None where it cannot.

        Args:
            made: when it was made, by `now`.
        """

    def take(self, use: object) -> PeerLeg | None:
        """Take the leg that came to rest last and still lives. The caller owns it."""

    def put(self, leg: PeerLeg) -> None:
        """Keep a leg at rest, or close it. From any thread."""

    def lost(self, leg: PeerLeg) -> None:
        """Close every leg for the same use that has been at rest for longer than `leg`, which its path has forgotten."""


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
    """What takes a leg back from an engine; None where the leg is not kept after this connection."""
    return None if leg.channel.leg.keep is None else partial(_take_back, leg, keeper)


def _take_back(leg: PeerLeg, keeper: Keeper, given: WireLeg) -> None:
    leg.stream = LegStream(given.socket)
    leg.channel.resume(given)
    leg.at_rest = now()
    keeper.put(leg)
