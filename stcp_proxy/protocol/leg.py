"""The life of a wire leg that carries several connections, one after the other (PROTOCOL.md section 7).

`Leg` is one side's view of a leg: it says which frame may be sent or received, seals and opens the frames with the right key, and
numbers the connections. An engine may carry the DATA of a connection in between: `resume` takes the leg back from it.

Invariants:
- The tables are the rule, one for each role: {(state, sent or received, frame type): next state}. A missing key is the error.
- A side that has sent BYE acts on nothing that arrives.
- A received frame changes the leg only after it authenticated.
- The keys of a connection that is over cannot be computed from those of the next connection.
"""

from __future__ import annotations

import enum
import hashlib
from typing import Final, NamedTuple

from stcp_proxy.errors import FrameError
from stcp_proxy.protocol.established import Established
from stcp_proxy.protocol.frames import Opener, Sealer, key_at
from stcp_proxy.protocol.opening import Opening, check_empty, decode_reason, parse_attributes, read_accept, read_keep
from stcp_proxy.protocol.wire import CHANNEL_ID_LEN, HEADER_LEN, MAX_CONNECTIONS, FrameType, Role


class State(enum.Enum):
    """State of a leg, as one side sees it."""

    __hash__ = object.__hash__  # Enum's own is a Python function, and each frame looks a state up

    NEW = enum.auto()
    """After the handshake: the first OPEN is due."""
    FIRST_OPENED = enum.auto()
    """After the first OPEN: ACCEPT or REJECT is due."""
    FIRST_OPENED_ENDED = enum.auto()
    """The same, after the initiator's FIN."""
    OPENED = enum.auto()
    """After a later OPEN: ACCEPT or REJECT is due, and BYE may cross the OPEN."""
    OPENED_ENDED = enum.auto()
    """The same, after the initiator's FIN."""
    STREAM = enum.auto()
    """DATA flows in both directions."""
    INITIATOR_ENDED = enum.auto()
    """After the initiator's FIN."""
    RESPONDER_ENDED = enum.auto()
    """After the responder's FIN."""
    IDLE = enum.auto()
    """The connection is over in order, and the leg can carry the next one."""
    OVER = enum.auto()
    """The connection is over in order, and the leg is not kept."""
    ABORTED = enum.auto()
    """After REJECT or RESET."""
    LEFT = enum.auto()
    """This side sent BYE: it acts on nothing that arrives."""
    PEER_LEFT = enum.auto()
    """The peer sent BYE on an idle leg."""
    UNUSED = enum.auto()
    """This side's OPEN crossed the peer's BYE, or its RESET of the connection before. The peer acted on nothing of it: send the
    connection again on another leg."""


class Way(enum.Enum):
    """Whether this side sends or receives a frame."""

    __hash__ = object.__hash__  # see `State`

    SEND = enum.auto()
    RECEIVE = enum.auto()


class EndOfStream(enum.Enum):
    """Meaning of the end of the incoming stream."""

    IN_ORDER = enum.auto()
    """Nothing is lost."""
    AFTER_FIN = enum.auto()
    """The peer has nothing more to say. This side's direction goes on."""
    UNANSWERED = enum.auto()
    """The peer may have acted on OPEN: send it again only when no application byte went with it."""
    TRUNCATED = enum.auto()
    """The connection was cut."""


Table = dict[tuple[State, Way, FrameType], State]

_BOTH_ENDED: Final = State.IDLE
"""After both FINs. `Leg` turns it into OVER when the leg is not kept."""


def _connection(initiator: Way, responder: Way) -> Table:
    """The transitions of one connection. `initiator` and `responder` say who of the two is this side."""
    table: Table = {
        (State.NEW, initiator, FrameType.OPEN): State.FIRST_OPENED,
        (State.IDLE, initiator, FrameType.OPEN): State.OPENED,
        (State.STREAM, initiator, FrameType.DATA): State.STREAM,
        (State.STREAM, responder, FrameType.DATA): State.STREAM,
        (State.STREAM, initiator, FrameType.FIN): State.INITIATOR_ENDED,
        (State.STREAM, responder, FrameType.FIN): State.RESPONDER_ENDED,
        (State.INITIATOR_ENDED, responder, FrameType.DATA): State.INITIATOR_ENDED,
        (State.INITIATOR_ENDED, responder, FrameType.FIN): _BOTH_ENDED,
        (State.RESPONDER_ENDED, initiator, FrameType.DATA): State.RESPONDER_ENDED,
        (State.RESPONDER_ENDED, initiator, FrameType.FIN): _BOTH_ENDED,
    }
    for opened, ended in ((State.FIRST_OPENED, State.FIRST_OPENED_ENDED), (State.OPENED, State.OPENED_ENDED)):
        table |= {
            (opened, initiator, FrameType.DATA): opened,
            (opened, initiator, FrameType.FIN): ended,
            (opened, responder, FrameType.ACCEPT): State.STREAM,
            (ended, responder, FrameType.ACCEPT): State.INITIATOR_ENDED,
            (opened, responder, FrameType.REJECT): State.ABORTED,
            (ended, responder, FrameType.REJECT): State.ABORTED,
            (opened, initiator, FrameType.RESET): State.ABORTED,
            (ended, initiator, FrameType.RESET): State.ABORTED,
        }
    for state in (State.STREAM, State.INITIATOR_ENDED, State.RESPONDER_ENDED):
        table |= {(state, way, FrameType.RESET): State.ABORTED for way in (initiator, responder)}
    return table | {
        (State.IDLE, Way.SEND, FrameType.BYE): State.LEFT,
        (State.IDLE, Way.RECEIVE, FrameType.BYE): State.PEER_LEFT,
        (State.IDLE, Way.RECEIVE, FrameType.RESET): State.ABORTED,  # the peer sent it before this side's FIN had arrived
    }


TABLES: Final[dict[Role, Table]] = {
    Role.INITIATOR: _connection(Way.SEND, Way.RECEIVE)
    | {
        (state, Way.RECEIVE, kind): State.UNUSED
        for state in (State.OPENED, State.OPENED_ENDED)
        for kind in (FrameType.BYE, FrameType.RESET)  # of the connection before: this one has no RESET before ACCEPT
    },
    Role.RESPONDER: _connection(Way.RECEIVE, Way.SEND),
}

_ENDS: Final[dict[Role, dict[State, EndOfStream]]] = {
    role: {
        State.OPENED: EndOfStream.UNANSWERED if role is Role.INITIATOR else EndOfStream.TRUNCATED,
        State.OPENED_ENDED: EndOfStream.UNANSWERED if role is Role.INITIATOR else EndOfStream.AFTER_FIN,
        State.FIRST_OPENED_ENDED: EndOfStream.TRUNCATED if role is Role.INITIATOR else EndOfStream.AFTER_FIN,
        peer_ended: EndOfStream.AFTER_FIN,
        **dict.fromkeys((State.IDLE, State.OVER, State.ABORTED, State.LEFT, State.PEER_LEFT, State.UNUSED), EndOfStream.IN_ORDER),
    }
    for role, peer_ended in ((Role.INITIATOR, State.RESPONDER_ENDED), (Role.RESPONDER, State.INITIATOR_ENDED))
}
"""What the end of the incoming stream means in each state. In all other states it is a truncation."""

_OPENING: Final = frozenset({FrameType.OPEN, FrameType.ACCEPT, FrameType.REJECT})
"""First frames of a connection in a direction: the rekey of the boundary comes before them."""


class LegOpener(Opener):
    """Reads the frames of a leg: those of its connections, and BYE between them."""

    __slots__ = ()
    last_type = FrameType.BYE


class Received(NamedTuple):
    """A frame that authenticated and was in place.

    Attributes:
        used: bytes of the input that it takes.
        kind: its type; None when this side has sent BYE and ignores all input.
        plaintext: its content.
    """

    used: int
    kind: FrameType | None
    plaintext: bytes


class Leg:
    """One side's view of a wire leg.

    Args:
        role: this side's role in the handshake.
        established: the handshake's result.

    Attributes:
        state: the state of the leg.
        connection: number of the connection that is open or was open last, from 0.
        keep: seconds for which both sides keep the leg after this connection; None when one of them does not.
        sealer: writes this side's frames.
        opener: reads the peer's frames.
        opening: contents of the last OPEN that was received.
    """

    def __init__(self, role: Role, established: Established) -> None:
        self.state = State.NEW
        self.connection = 0
        self.keep: int | None = None
        self.sealer = Sealer(established.send_key)
        self.opener = LegOpener(established.receive_key)
        self._role = role
        self._hash = established.handshake_hash
        self._offered: int | None = None
        self._stream_ended = False
        self.opening = Opening()

    @property
    def channel_id(self) -> str:
        """The connection's name in the logs of both sides: 16 hex digits."""
        named = self._hash
        if self.connection:
            named = hashlib.sha256(self._hash + self.connection.to_bytes(8, "big")).digest()
        return named[:CHANNEL_ID_LEN].hex()

    @property
    def exhausted(self) -> bool:
        """Whether the leg has carried as many connections as the format allows. Then it gets BYE."""
        return self.connection == MAX_CONNECTIONS - 1

    def may_send(self, kind: FrameType) -> bool:
        """Whether a frame of this type is in its place now."""
        return (self.state, Way.SEND, kind) in TABLES[self._role]

    def seal(self, kind: FrameType, plaintext: bytes = b"") -> bytes:
        """Seal a frame that this side sends.

        Raises:
            ValueError: the frame is out of place, or its content does not fit: this side's own mistake.
            CounterExhausted: no number is left.
        """
        try:
            state = self._next(Way.SEND, kind)
            agreed = self._agree(Way.SEND, kind, plaintext)
        except FrameError as exc:
            raise ValueError(exc.what) from None
        if self._begins(kind):
            self.sealer.next_connection()
        frame = self.sealer.seal(kind, plaintext)
        self._commit(kind, state, agreed)
        return frame

    def open(self, data: bytes) -> Received | None:
        """Open the frame at the beginning of `data`.

        Returns:
            The frame, or None while it is incomplete. `state` is then the state after the frame.

        Raises:
            FrameError: the frame is malformed, out of place, or did not authenticate. Close the leg.
        """
        if self.state is State.LEFT:
            return Received(len(data), None, b"")
        if len(data) < HEADER_LEN:
            return None
        kind = _known(data[0])
        state = self._next(Way.RECEIVE, kind)
        opener = self.opener
        if self._begins(kind):
            opener = LegOpener(opener.key, opener.counter)
            opener.next_connection()
        opened = opener.open(data)
        if opened is None:
            return None
        used, _, plaintext = opened
        agreed = self._agree(Way.RECEIVE, kind, plaintext)
        self.opener = opener
        self._commit(kind, state, agreed)
        return Received(used, kind, plaintext)

    def resume(self, sent: int, received: int) -> None:
        """Take the leg back from an engine after both FINs.

        Args:
            sent: counter of this side's direction, as the engine reports it.
            received: counter of the peer's direction.
        """
        carried = (State.STREAM, State.INITIATOR_ENDED, State.RESPONDER_ENDED)
        if self.state not in carried:
            raise RuntimeError(f"an engine carries no connection in state {self.state.name}")
        self.sealer = Sealer(key_at(self.sealer.key, self.sealer.counter, sent), sent)
        self.opener = LegOpener(key_at(self.opener.key, self.opener.counter, received), received)
        self._commit(FrameType.FIN, _BOTH_ENDED, self.keep)

    def end_of_stream(self) -> EndOfStream:
        """Note the end of the incoming stream, after which the leg carries no further connection. Returns its meaning."""
        meaning = _ENDS[self._role].get(self.state, EndOfStream.TRUNCATED)
        self._stream_ended = True
        if self.state is State.IDLE:
            self.state = State.OVER
        return meaning

    def _next(self, way: Way, kind: FrameType) -> State:
        """The state after a frame. Raises FrameError when it is out of place."""
        state = TABLES[self._role].get((self.state, way, kind))
        if state is None or (state is State.OPENED and kind is FrameType.OPEN and self.exhausted):
            raise FrameError(f"a {kind.name} frame is out of place: the wire leg is in state {self.state.name}")
        return state

    def _begins(self, kind: FrameType) -> bool:
        """Whether this frame is the first of a connection after connection 0 in its direction."""
        return kind in _OPENING and self.state in (State.IDLE, State.OPENED, State.OPENED_ENDED)

    def _agree(self, way: Way, kind: FrameType, plaintext: bytes) -> int | None:
        """Check the content of a frame that is not DATA. Returns the seconds of `keep` after this frame.

        After OPEN the seconds are the initiator's offer; after ACCEPT they are the agreement.
        """
        if kind is FrameType.OPEN and way is Way.SEND:
            return read_keep(parse_attributes(plaintext))  # `Opening.encode` has made it
        if kind is FrameType.OPEN:
            opening = Opening.decode(plaintext)
            self.opening = opening
            return opening.keep
        if kind is FrameType.ACCEPT:
            return self._accepted(read_accept(plaintext))
        if kind in (FrameType.RESET, FrameType.REJECT):
            decode_reason(plaintext)
        elif kind is not FrameType.DATA:
            check_empty(kind, plaintext)
        return self.keep

    def _accepted(self, keep: int | None) -> int | None:
        if keep is None:
            return None
        if self._offered is None:
            raise FrameError("ACCEPT keeps a wire leg that OPEN did not offer to keep")
        return min(keep, self._offered)

    def _commit(self, kind: FrameType, state: State, agreed: int | None) -> None:
        if kind is FrameType.OPEN:
            self.connection += self.state is State.IDLE
            self._offered, self.keep = agreed, None
        else:
            self.keep = agreed
        closes = self.keep is None or self._stream_ended
        self.state = State.OVER if state is State.IDLE and closes else state


_KINDS: Final = {int(kind): kind for kind in FrameType}


def _known(number: int) -> FrameType:
    kind = _KINDS.get(number)
    if kind is None:
        raise FrameError(f"a frame of unknown type {number}")
    return kind
