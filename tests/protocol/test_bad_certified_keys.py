"""Suite 5 with public keys that are invalid: of low order, in a second form, and of ML-KEM."""

from __future__ import annotations

import pytest

from stcp_proxy.errors import HandshakeNotAuthentic, MalformedHandshake
from stcp_proxy.protocol.certified_handshake import Step
from stcp_proxy.protocol.credential import Credential
from stcp_proxy.protocol.noise import SYSTEM_ENTROPY, Entropy, KeyPair
from stcp_proxy.protocol.secret import Secret

from .fixed import INITIATOR, RESPONDER
from .test_bad_public_keys import LOW_POINTS, SECOND_FORMS, BadKem, LowEntropy, LowOrder, SecondForm, WrongKem, said_of_static
from .test_certified_handshake import initiator, reply, responder, shake


@LOW_POINTS
@pytest.mark.parametrize("static", [False, True], ids=["ephemeral", "static"])
def test_points_of_low_order_are_refused(point: bytes, static: bool) -> None:
    """The keys of the initiator, then those of the responder."""
    mine = LowOrder(point) if static else INITIATOR
    entropy: Entropy = SYSTEM_ENTROPY if static else LowEntropy(point)
    ours, theirs = initiator(mine=mine, entropy=entropy), responder()
    says = said_of_static(point) if static else "low order"
    with pytest.raises(MalformedHandshake, match=says):
        shake(ours, theirs)
    assert theirs.step is Step.ERROR
    mine = LowOrder(point) if static else RESPONDER
    ours = initiator()
    with pytest.raises(MalformedHandshake, match=says):
        shake(ours, responder(mine=mine, entropy=entropy))
    assert ours.step is Step.ERROR


@SECOND_FORMS
def test_second_forms_of_static_keys_are_refused(twin: SecondForm) -> None:
    """That of the initiator, then that of the responder. No credential is looked at."""
    asked: list[bytes] = []

    def verify(credential: Credential, static: bytes) -> object:
        asked.append(static)
        return static

    theirs = responder(verify=verify)
    with pytest.raises(MalformedHandshake, match="second form of its public key"):
        shake(initiator(mine=twin), theirs)
    assert (theirs.step, asked) == (Step.ERROR, [])
    ours = initiator(verify=verify)
    with pytest.raises(MalformedHandshake, match="second form of its public key"):
        shake(ours, responder(mine=twin))
    assert (ours.step, asked) == (Step.ERROR, [])
    first = KeyPair(Secret(twin.private))
    shake(initiator(mine=first), responder(verify=verify))
    shake(initiator(verify=verify), responder(mine=first))
    assert asked == [twin.first, twin.first]


def test_invalid_kem_keys_are_refused() -> None:
    with pytest.raises(MalformedHandshake, match="ML-KEM"):
        responder().receive(initiator(entropy=BadKem()).message_1())
    ours = initiator()
    with pytest.raises(HandshakeNotAuthentic):
        ours.receive(reply(responder(entropy=WrongKem()), ours.message_1()))
