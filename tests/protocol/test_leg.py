"""A wire leg that carries several connections: every state with every frame, crossing frames, the end of the stream."""

from __future__ import annotations

import pytest

from stcp_proxy.errors import FrameError, FrameNotAuthentic
from stcp_proxy.protocol.leg import TABLES, EndOfStream, Leg, Received, State, Way
from stcp_proxy.protocol.opening import Opening, encode_keep
from stcp_proxy.protocol.wire import FrameType, Role, Suite

from .legs import ACCEPT, BYE, CONTENT, DATA, FIN, KEEP, OPEN, REJECT, RESET, carry, deliver, legs

# -- every state with every frame ---------------------------------------------------------------------------------------------

# From the specification, as (initiator's view, responder's view): i and r say whose frame it is.
ONE_CONNECTION = {
    "NEW": {"i OPEN": "FIRST_OPENED"},
    "FIRST_OPENED": {
        "i DATA": "FIRST_OPENED", "i FIN": "FIRST_OPENED_ENDED", "i RESET": "ABORTED",
        "r ACCEPT": "STREAM", "r REJECT": "ABORTED",
    },
    "FIRST_OPENED_ENDED": {"i RESET": "ABORTED", "r ACCEPT": "INITIATOR_ENDED", "r REJECT": "ABORTED"},
    "OPENED": {
        "i DATA": "OPENED", "i FIN": "OPENED_ENDED", "i RESET": "ABORTED", "r ACCEPT": "STREAM", "r REJECT": "ABORTED",
    },
    "OPENED_ENDED": {"i RESET": "ABORTED", "r ACCEPT": "INITIATOR_ENDED", "r REJECT": "ABORTED"},
    "STREAM": {
        "i DATA": "STREAM", "r DATA": "STREAM", "i FIN": "INITIATOR_ENDED", "r FIN": "RESPONDER_ENDED",
        "i RESET": "ABORTED", "r RESET": "ABORTED",
    },
    "INITIATOR_ENDED": {"r DATA": "INITIATOR_ENDED", "r FIN": "IDLE", "i RESET": "ABORTED", "r RESET": "ABORTED"},
    "RESPONDER_ENDED": {"i DATA": "RESPONDER_ENDED", "i FIN": "IDLE", "i RESET": "ABORTED", "r RESET": "ABORTED"},
    "IDLE": {"i OPEN": "OPENED"},
}  # fmt: skip


def expected(role: Role, state: State, way: Way, kind: FrameType) -> State | None:
    """The state after a frame, from the table above and the rules for BYE."""
    if kind is BYE:
        if state is State.IDLE:
            return State.LEFT if way is Way.SEND else State.PEER_LEFT
        crossed = role is Role.INITIATOR and way is Way.RECEIVE and state in (State.OPENED, State.OPENED_ENDED)
        return State.UNUSED if crossed else None
    if kind is RESET and way is Way.RECEIVE:
        if state is State.IDLE:
            return State.ABORTED
        if role is Role.INITIATOR and state in (State.OPENED, State.OPENED_ENDED):
            return State.UNUSED
    sender = "i" if (role is Role.INITIATOR) == (way is Way.SEND) else "r"
    name = ONE_CONNECTION.get(state.name, {}).get(f"{sender} {kind.name}")
    return None if name is None else State[name]


def leg_in(role: Role, state: State) -> tuple[Leg, Leg]:
    """A leg of `role` whose state is `state`, with its peer."""
    pair = legs()
    if state not in (State.NEW, State.FIRST_OPENED, State.FIRST_OPENED_ENDED):
        carry(*pair)
    mine, peer = pair if role is Role.INITIATOR else pair[::-1]
    mine.state = state
    mine._offered = 30
    if state not in (State.NEW, State.IDLE):
        mine.keep = 20
    return mine, peer


@pytest.mark.parametrize("kind", list(FrameType), ids=lambda kind: kind.name)
@pytest.mark.parametrize("way", list(Way), ids=lambda way: way.name)
@pytest.mark.parametrize("state", list(State), ids=lambda state: state.name)
@pytest.mark.parametrize("role", list(Role), ids=lambda role: role.name)
def test_every_state_with_every_frame(role: Role, state: State, way: Way, kind: FrameType) -> None:
    after = expected(role, state, way, kind)
    assert TABLES[role].get((state, way, kind)) is after
    mine, peer = leg_in(role, state)
    counters = mine.sealer.counter, mine.opener.counter
    if way is Way.SEND:
        if after is None:
            with pytest.raises(ValueError, match=f"{kind.name} .*{state.name}"):
                mine.seal(kind, CONTENT[kind])
        else:
            mine.seal(kind, CONTENT[kind])
    else:
        begins = kind in (OPEN, ACCEPT, REJECT) and state in (State.IDLE, State.OPENED, State.OPENED_ENDED)
        if begins:
            peer.sealer.next_connection()
        frame = peer.sealer.seal(kind, CONTENT[kind])
        if state is State.LEFT:
            assert mine.open(frame) == Received(len(frame), None, b"")
        elif after is None:
            with pytest.raises(FrameError, match=f"{kind.name} .*{state.name}"):
                mine.open(frame)
        else:
            assert mine.open(frame) == Received(len(frame), kind, CONTENT[kind])
    assert mine.state is (state if after is None else after)
    if after is None:
        assert (mine.sealer.counter, mine.opener.counter) == counters


@pytest.mark.parametrize("number", [7, 8, 255])
@pytest.mark.parametrize("state", [state for state in State if state is not State.LEFT], ids=lambda state: state.name)
def test_unknown_types_are_refused(state: State, number: int) -> None:
    mine, _ = leg_in(Role.RESPONDER, state)
    with pytest.raises(FrameError, match=f"unknown type {number}"):
        mine.open(bytes([number, 0, 0, 16]))


@pytest.mark.parametrize(
    ("kind", "content"), [(FIN, b"x"), (RESET, b"x"), (DATA, None)], ids=["FIN with bytes", "RESET without code", "junk"]
)
def test_content_that_does_not_fit(kind: FrameType, content: bytes | None) -> None:
    initiator, responder = legs()
    deliver(initiator, responder, OPEN)
    if content is None:
        with pytest.raises(FrameNotAuthentic):
            responder.open(bytes([kind, 0, 0, 16]) + bytes(16))
        return
    with pytest.raises(ValueError, match=kind.name):
        initiator.seal(kind, content)
    with pytest.raises(FrameError, match=kind.name):
        responder.open(initiator.sealer.seal(kind, content))


# -- several connections --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("last", ["initiator", "responder"])
@pytest.mark.parametrize("suite", list(Suite), ids=lambda suite: suite.name.lower())
def test_several_connections(suite: Suite, last: str) -> None:
    initiator, responder = legs(suite)
    first = initiator.channel_id
    names, keys = set(), set()
    for number in range(4):
        carry(initiator, responder, last=last)
        assert (initiator.connection, responder.connection) == (number, number)
        assert (initiator.keep, responder.keep) == (20, 20)
        assert initiator.channel_id == responder.channel_id
        names.add(initiator.channel_id)
        keys |= {initiator.sealer.key.reveal(), responder.sealer.key.reveal()}
    assert first in names
    assert (len(names), len(keys)) == (4, 8)
    deliver(*((initiator, responder) if last == "initiator" else (responder, initiator)), BYE)
    assert {initiator.state, responder.state} == {State.LEFT, State.PEER_LEFT}


@pytest.mark.parametrize(
    ("offer", "answer", "keep"), [(None, None, None), (30, None, None), (30, 20, 20), (20, 30, 20), (65535, 1, 1)]
)
def test_leg_is_kept_for_the_smaller_time_where_both_agree(offer: int | None, answer: int | None, keep: int | None) -> None:
    initiator, responder = legs()
    deliver(initiator, responder, OPEN, Opening(keep=offer).encode())
    assert (initiator.keep, responder.keep) == (None, None)
    deliver(responder, initiator, ACCEPT, encode_keep(answer))
    assert (initiator.keep, responder.keep) == (keep, keep)
    deliver(initiator, responder, FIN)
    deliver(responder, initiator, FIN)
    after = State.OVER if keep is None else State.IDLE
    assert (initiator.state, responder.state) == (after, after)


def test_accept_may_not_keep_what_open_did_not_offer() -> None:
    initiator, responder = legs()
    deliver(initiator, responder, OPEN, b"")
    with pytest.raises(ValueError, match="did not offer"):
        responder.seal(ACCEPT, KEEP[ACCEPT])
    with pytest.raises(FrameError, match="did not offer"):
        initiator.open(responder.sealer.seal(ACCEPT, KEEP[ACCEPT]))
    assert initiator.state is State.FIRST_OPENED


def test_agreement_is_made_anew_for_each_connection() -> None:
    initiator, responder = legs()
    carry(initiator, responder)
    deliver(initiator, responder, OPEN, b"")
    deliver(responder, initiator, ACCEPT, b"")
    deliver(initiator, responder, FIN)
    deliver(responder, initiator, FIN)
    assert (initiator.state, responder.state) == (State.OVER, State.OVER)


# -- crossing frames -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("behind", [(), (DATA,), (DATA, FIN), (FIN,)], ids=str)
def test_open_and_bye_cross(behind: tuple[FrameType, ...]) -> None:
    initiator, responder = legs()
    carry(initiator, responder)
    bye = responder.seal(BYE)
    frames = b"".join(initiator.seal(kind, CONTENT[kind]) for kind in (OPEN, *behind))
    assert responder.open(frames) == Received(len(frames), None, b"")
    assert (responder.state, responder.connection) == (State.LEFT, 0)
    assert initiator.open(bye) == Received(len(bye), BYE, b"")
    assert initiator.state is State.UNUSED
    assert initiator.end_of_stream() is EndOfStream.IN_ORDER
    assert responder.end_of_stream() is EndOfStream.IN_ORDER


def test_open_and_the_reset_of_the_connection_before_cross() -> None:
    """The responder has sent FIN, and resets the connection before the initiator's FIN arrives: it ignores the OPEN behind it."""
    initiator, responder = legs()
    deliver(initiator, responder, OPEN)
    deliver(responder, initiator, ACCEPT)
    deliver(responder, initiator, FIN)
    fin = initiator.seal(FIN)
    frames = initiator.seal(OPEN, KEEP[OPEN]) + initiator.seal(DATA, CONTENT[DATA])
    gone = responder.seal(RESET, CONTENT[RESET])
    assert initiator.open(gone) == Received(len(gone), RESET, CONTENT[RESET])
    assert (initiator.state, responder.state) == (State.UNUSED, State.ABORTED)
    for frame in (fin, frames):
        with pytest.raises(FrameError, match="ABORTED"):
            responder.open(frame)


def test_reset_that_crosses_the_last_fin_ends_an_idle_leg() -> None:
    initiator, responder = legs()
    deliver(initiator, responder, OPEN)
    deliver(responder, initiator, ACCEPT)
    deliver(initiator, responder, FIN)
    gone = initiator.seal(RESET, CONTENT[RESET])
    responder.seal(FIN)
    assert responder.state is State.IDLE
    assert responder.open(gone) == Received(len(gone), RESET, CONTENT[RESET])
    assert responder.state is State.ABORTED


def test_bye_and_bye_cross() -> None:
    initiator, responder = legs()
    carry(initiator, responder)
    ours, theirs = initiator.seal(BYE), responder.seal(BYE)
    assert initiator.open(theirs) == Received(len(theirs), None, b"")
    assert responder.open(ours) == Received(len(ours), None, b"")


def test_no_bye_before_the_first_connection() -> None:
    """The first OPEN cannot cross a BYE: a leg without a connection is not idle."""
    initiator, responder = legs()
    initiator.seal(OPEN, KEEP[OPEN])
    with pytest.raises(FrameError, match=r"BYE .*FIRST_OPENED"):
        initiator.open(responder.sealer.seal(BYE))


TRUNCATED = EndOfStream.TRUNCATED
ENDS = {
    State.NEW: (TRUNCATED, TRUNCATED),
    State.FIRST_OPENED: (TRUNCATED, TRUNCATED),
    State.FIRST_OPENED_ENDED: (TRUNCATED, EndOfStream.AFTER_FIN),
    State.OPENED: (EndOfStream.UNANSWERED, TRUNCATED),
    State.OPENED_ENDED: (EndOfStream.UNANSWERED, EndOfStream.AFTER_FIN),
    State.STREAM: (TRUNCATED, TRUNCATED),
    State.INITIATOR_ENDED: (TRUNCATED, EndOfStream.AFTER_FIN),
    State.RESPONDER_ENDED: (EndOfStream.AFTER_FIN, TRUNCATED),
}


@pytest.mark.parametrize("state", list(State), ids=lambda state: state.name)
def test_end_of_the_stream_in_every_state(state: State) -> None:
    for role, meaning in zip(Role, ENDS.get(state, (EndOfStream.IN_ORDER,) * 2), strict=True):
        assert leg_in(role, state)[0].end_of_stream() is meaning


def test_leg_whose_stream_has_ended_carries_no_further_connection() -> None:
    """The responder's stream ends right after its FIN, while the initiator still has something to say."""
    initiator, responder = legs()
    deliver(initiator, responder, OPEN)
    deliver(responder, initiator, ACCEPT)
    deliver(responder, initiator, FIN)
    assert initiator.end_of_stream() is EndOfStream.AFTER_FIN
    deliver(initiator, responder, FIN)
    assert (initiator.state, responder.state) == (State.OVER, State.IDLE)
    assert responder.end_of_stream() is EndOfStream.IN_ORDER
    assert responder.state is State.OVER
