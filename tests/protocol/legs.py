"""Both ends of a wire leg for tests, and the content of each frame."""

from __future__ import annotations

from stcp_proxy.protocol.certified_handshake import CertifiedInitiator, CertifiedResponder, Identity, Reply
from stcp_proxy.protocol.credential import Credential
from stcp_proxy.protocol.established import Established
from stcp_proxy.protocol.leg import Leg, Received, State
from stcp_proxy.protocol.opening import Opening, encode_keep, encode_reason
from stcp_proxy.protocol.wire import FrameType, Role, Suite

from .fixed import INITIATOR, ONE_ROUND_TRIP, RESPONDER, complete

OPEN, ACCEPT, REJECT, DATA = FrameType.OPEN, FrameType.ACCEPT, FrameType.REJECT, FrameType.DATA
FIN, RESET, BYE = FrameType.FIN, FrameType.RESET, FrameType.BYE
KEEP = {OPEN: Opening(keep=30).encode(), ACCEPT: encode_keep(20)}
CONTENT = {**KEEP, DATA: b"data", FIN: b"", RESET: encode_reason(8, "gone"), REJECT: encode_reason(3, ""), BYE: b""}


def established(suite: Suite = Suite.CLASSIC_KEYS) -> tuple[Established, Established]:
    """Results of one handshake: the initiator's and the responder's."""
    if suite in ONE_ROUND_TRIP:
        return complete(suite)
    credential = Credential((b"x",), 0, b"").encode()
    ours = CertifiedInitiator(Identity(INITIATOR, credential), verify=lambda *_: None)
    theirs = CertifiedResponder(Identity(RESPONDER, credential), verify=lambda *_: None)
    reply = theirs.receive(ours.message_1())
    assert isinstance(reply, Reply)
    answer = ours.receive(reply.reply)
    assert answer is not None
    other = theirs.receive(answer.reply)
    assert isinstance(other, Established)
    return answer.established, other


def legs(suite: Suite = Suite.CLASSIC_KEYS) -> tuple[Leg, Leg]:
    ours, theirs = established(suite)
    return Leg(Role.INITIATOR, ours), Leg(Role.RESPONDER, theirs)


def deliver(sender: Leg, receiver: Leg, kind: FrameType, content: bytes | None = None) -> None:
    """Pass one frame from `sender` to `receiver`."""
    content = CONTENT[kind] if content is None else content
    frame = sender.seal(kind, content)
    assert receiver.open(frame[:-1]) is None
    assert receiver.open(frame + b"behind") == Received(len(frame), kind, content)


def carry(initiator: Leg, responder: Leg, *, last: str = "responder") -> None:
    """One whole connection over an unused or idle leg."""
    deliver(initiator, responder, OPEN)
    deliver(initiator, responder, DATA)
    deliver(responder, initiator, ACCEPT)
    deliver(responder, initiator, DATA)
    first, second = (initiator, responder) if last == "responder" else (responder, initiator)
    deliver(first, second, FIN)
    deliver(second, first, FIN)
    assert (initiator.state, responder.state) == (State.IDLE, State.IDLE)
