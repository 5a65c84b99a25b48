"""Suite 5: vectors, every way to feed it, every state with every input, and every changed byte."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey
from noise.connection import Keypair, NoiseConnection

from stcp_proxy.errors import HandshakeError, HandshakeNotAuthentic, MalformedHandshake, SuiteRefused
from stcp_proxy.protocol.certified_handshake import CertifiedInitiator, CertifiedResponder, Identity, Reply, Step
from stcp_proxy.protocol.credential import Credential
from stcp_proxy.protocol.established import Answer, Established
from stcp_proxy.protocol.noise import HandshakeState, KeyPair
from stcp_proxy.protocol.patterns import Pattern
from stcp_proxy.protocol.secret import Secret
from stcp_proxy.protocol.wire import MAX_CREDENTIAL, Suite

from .fixed import INITIATOR, RESPONDER, VECTORS, Fixed, flip, pair

(VECTOR,) = (vector for vector in VECTORS["handshakes"] if vector["suite"] == 5)
LARGEST = Credential((b"x" * (MAX_CREDENTIAL - 14),), 0, b"").encode()
SMALLEST = Credential((b"x",), 0, b"").encode()


def h(key: str) -> bytes:
    return bytes.fromhex(VECTOR[key])


def accept(credential: Credential, static: bytes) -> object:
    """Accept any credential, and return what was asked."""
    return credential, static


def refuse(credential: Credential, static: bytes) -> object:
    raise HandshakeError("refused by the test")


def initiator(credential: bytes = SMALLEST, mine: KeyPair = INITIATOR, **kwargs: Any) -> CertifiedInitiator:
    return CertifiedInitiator(Identity(mine, credential), verify=kwargs.pop("verify", accept), **kwargs)


def responder(credential: bytes = SMALLEST, mine: KeyPair = RESPONDER, **kwargs: Any) -> CertifiedResponder:
    return CertifiedResponder(Identity(mine, credential), verify=kwargs.pop("verify", accept), **kwargs)


def reply(of: CertifiedResponder, message_1: bytes) -> bytes:
    answered = of.receive(message_1)
    assert isinstance(answered, Reply)
    return answered.reply


def shake(
    ours: CertifiedInitiator | None = None, theirs: CertifiedResponder | None = None
) -> tuple[bytes, bytes, Answer, Established]:
    """A whole handshake: (message 1, message 2, the initiator's answer, the responder's result)."""
    ours, theirs = ours or initiator(), theirs or responder()
    message_1 = ours.message_1()
    message_2 = reply(theirs, message_1)
    answer = ours.receive(message_2)
    assert answer is not None
    established = theirs.receive(answer.reply)
    assert isinstance(established, Established)
    return message_1, message_2, answer, established


# -- vectors and agreement --------------------------------------------------------------------------------------------------


def test_vector() -> None:
    kem = MLKEM768PrivateKey.from_seed_bytes(h("kem_seed"))
    ours = initiator(
        h("initiator_credential"),
        pair(VECTOR["initiator_static_private"]),
        entropy=Fixed(ephemeral=pair(VECTOR["initiator_ephemeral_private"]), kem=kem),
    )
    theirs = responder(
        h("responder_credential"),
        pair(VECTOR["responder_static_private"]),
        entropy=Fixed(
            ephemeral=pair(VECTOR["responder_ephemeral_private"]), encapsulation=(h("kem_shared"), h("kem_ciphertext"))
        ),
    )
    message_1, message_2, answer, established = shake(ours, theirs)
    assert (message_1, message_2, answer.reply) == (h("message_1"), h("message_2"), h("message_3"))
    for end, mine, other in (
        (answer.established, "key_to_responder", "key_to_initiator"),
        (established, "key_to_initiator", "key_to_responder"),
    ):
        assert end.handshake_hash == h("handshake_hash")
        assert end.channel_id == VECTOR["channel_id"]
        assert (end.send_key, end.receive_key) == (Secret(h(mine)), Secret(h(other)))


@pytest.mark.parametrize("mine", [SMALLEST, LARGEST], ids=["smallest", "largest"])
@pytest.mark.parametrize("theirs", [SMALLEST, LARGEST], ids=["smallest", "largest"])
def test_both_sides_agree(mine: bytes, theirs: bytes) -> None:
    message_1, message_2, answer, other = shake(initiator(mine), responder(theirs))
    ours = answer.established
    assert (len(message_1), len(message_2)) == (8 + 1216, 2 + 1200 + len(theirs))
    assert len(answer.reply) == 2 + 64 + len(mine)
    assert (ours.send_key, ours.receive_key) == (other.receive_key, other.send_key)
    assert ours.send_key != ours.receive_key
    assert ours.channel_id == other.channel_id
    assert (ours.suite, other.suite) == (Suite.HYBRID_CERTIFICATES, Suite.HYBRID_CERTIFICATES)
    assert (ours.own, ours.peer, ours.credential) == (INITIATOR.public, RESPONDER.public, theirs)
    assert (other.own, other.peer, other.credential) == (RESPONDER.public, INITIATOR.public, mine)
    assert isinstance(ours.verified, tuple)
    assert isinstance(other.verified, tuple)
    assert (ours.verified[1], other.verified[1]) == (RESPONDER.public, INITIATOR.public)


@pytest.mark.filterwarnings("ignore:One of ephemeral keypairs is already set:UserWarning:noise")
@pytest.mark.parametrize("payloads", [(b"", b"", b""), (b"", b"two", b"three" * 1000)])
def test_xx_without_the_kem_is_that_of_noiseprotocol(payloads: tuple[bytes, bytes, bytes]) -> None:
    xx = Pattern("XX", (("e",), ("e", "ee", "s", "es"), ("s", "se")))
    ours = [
        HandshakeState(xx, initiator=first, prologue=b"STCP", static=static, entropy=Fixed(ephemeral=pair(ephemeral)))
        for first, static, ephemeral in ((True, INITIATOR, b"\x05" * 32), (False, RESPONDER, b"\x06" * 32))
    ]
    theirs = [NoiseConnection.from_name(b"Noise_XX_25519_AESGCM_SHA256") for _ in range(2)]
    for i, (static, ephemeral) in enumerate(((b"\x01" * 32, b"\x05" * 32), (b"\x02" * 32, b"\x06" * 32))):
        theirs[i].set_prologue(b"STCP")
        theirs[i].set_as_responder() if i else theirs[i].set_as_initiator()
        theirs[i].set_keypair_from_private_bytes(Keypair.STATIC, static)
        theirs[i].set_keypair_from_private_bytes(Keypair.EPHEMERAL, ephemeral)
        theirs[i].start_handshake()
    for i, payload in enumerate(payloads):
        message = ours[i % 2].write_message(payload)
        assert message == bytes(theirs[i % 2].write_message(payload))
        assert ours[1 - i % 2].read_message(message) == payload
        assert theirs[1 - i % 2].read_message(message) == payload
    assert ours[0].handshake_hash == ours[1].handshake_hash == theirs[0].get_handshake_hash()
    keys = [key.reveal() for key in ours[0].split()]
    states = (theirs[0].noise_protocol.cipher_state_encrypt, theirs[0].noise_protocol.cipher_state_decrypt)
    assert keys == [bytes(state.k) for state in states]


# -- feeding ------------------------------------------------------------------------------------------------------------------


def test_byte_by_byte() -> None:
    ours, theirs = initiator(), responder()
    message_1 = ours.message_1()
    assert [theirs.receive(message_1[i : i + 1]) for i in range(len(message_1) - 1)] == [None] * (len(message_1) - 1)
    message_2 = reply(theirs, message_1[-1:])
    assert [ours.receive(message_2[i : i + 1]) for i in range(len(message_2) - 1)] == [None] * (len(message_2) - 1)
    answer = ours.receive(message_2[-1:])
    assert answer is not None
    message_3 = answer.reply
    assert [theirs.receive(message_3[i : i + 1]) for i in range(len(message_3) - 1)] == [None] * (len(message_3) - 1)
    established = theirs.receive(message_3[-1:])
    assert isinstance(established, Established)
    assert established.send_key == answer.established.receive_key


def test_bytes_after_the_last_message_are_handed_on() -> None:
    ours, theirs = initiator(), responder()
    answer = ours.receive(reply(theirs, ours.message_1()) + b"frames")
    assert answer is not None
    assert answer.established.rest == b"frames"
    established = theirs.receive(answer.reply + b"OPEN and DATA")
    assert isinstance(established, Established)
    assert established.rest == b"OPEN and DATA"


def test_bytes_before_message_2_are_refused() -> None:
    theirs = responder()
    with pytest.raises(MalformedHandshake, match="before message 2"):
        theirs.receive(initiator().message_1() + b"\0")
    assert theirs.step is Step.ERROR


# -- every step with every input ------------------------------------------------------------------------------------------------


def initiator_at(step: Step) -> tuple[CertifiedInitiator, bytes]:
    """An initiator at `step`, and a message 2 that it accepts in RECEIVE_2."""
    ours, theirs = initiator(), responder()
    if step is Step.SEND_1:
        return ours, shake()[1]
    message_2 = reply(theirs, ours.message_1())
    if step is Step.DONE:
        ours.receive(message_2)
    elif step is Step.ERROR:
        with pytest.raises(HandshakeError):
            ours.receive(flip(message_2, len(message_2) - 1))
    assert ours.step is step
    return ours, message_2


def responder_at(step: Step) -> tuple[CertifiedResponder, bytes]:
    """A responder at `step`, and the message that it accepts next."""
    ours, theirs = initiator(), responder()
    message_1 = ours.message_1()
    if step is Step.RECEIVE_1:
        return theirs, message_1
    answer = ours.receive(reply(theirs, message_1))
    assert answer is not None
    if step is Step.DONE:
        theirs.receive(answer.reply)
    elif step is Step.ERROR:
        with pytest.raises(HandshakeError):
            theirs.receive(flip(answer.reply, len(answer.reply) - 1))
    assert theirs.step is step
    return theirs, answer.reply


INPUTS: dict[str, Callable[[bytes], bytes]] = {
    "good": lambda message: message,
    "part": lambda message: message[:-1],
    "empty": lambda message: b"",
    "bad": lambda message: b"\xff\xff" + message,
}


@pytest.mark.parametrize("what", INPUTS)
@pytest.mark.parametrize("step", [Step.SEND_1, Step.RECEIVE_2, Step.DONE, Step.ERROR], ids=lambda step: step.name)
def test_initiator_at_every_step_with_every_input(step: Step, what: str) -> None:
    ours, message = initiator_at(step)
    data = INPUTS[what](message)
    if step is not Step.RECEIVE_2:
        with pytest.raises(RuntimeError):
            ours.receive(data)
        assert ours.step is step
    elif what == "bad":
        with pytest.raises(HandshakeError):
            ours.receive(data)
        assert ours.step is Step.ERROR
    else:
        assert (ours.receive(data) is not None) == (what == "good")
        assert ours.step is (Step.DONE if what == "good" else Step.RECEIVE_2)
    if step is not Step.SEND_1:
        with pytest.raises(RuntimeError, match="once"):
            ours.message_1()


@pytest.mark.parametrize("what", INPUTS)
@pytest.mark.parametrize("step", [Step.RECEIVE_1, Step.RECEIVE_3, Step.DONE, Step.ERROR], ids=lambda step: step.name)
def test_responder_at_every_step_with_every_input(step: Step, what: str) -> None:
    theirs, message = responder_at(step)
    data = INPUTS[what](message)
    if step in (Step.DONE, Step.ERROR):
        with pytest.raises(RuntimeError):
            theirs.receive(data)
        assert theirs.step is step
    elif what == "bad":
        with pytest.raises(HandshakeError):
            theirs.receive(data)
        assert theirs.step is Step.ERROR
    else:
        assert (theirs.receive(data) is not None) == (what == "good")
        following = {Step.RECEIVE_1: Step.RECEIVE_3, Step.RECEIVE_3: Step.DONE}[step]
        assert theirs.step is (following if what == "good" else step)


# -- verification, changed bytes, bad keys ---------------------------------------------------------------------------------


def test_no_message_3_without_verification() -> None:
    ours = initiator(verify=refuse)
    message_2 = reply(responder(), ours.message_1())
    with pytest.raises(HandshakeError, match="by the test"):
        ours.receive(message_2)
    assert ours.step is Step.ERROR


def test_no_keys_without_verification() -> None:
    ours, theirs = initiator(), responder(verify=refuse)
    answer = ours.receive(reply(theirs, ours.message_1()))
    assert answer is not None
    with pytest.raises(HandshakeError, match="by the test"):
        theirs.receive(answer.reply)
    assert theirs.step is Step.ERROR


def test_nothing_unauthenticated_is_verified() -> None:
    asked: list[Credential] = []
    ours = initiator(verify=lambda credential, _: asked.append(credential))
    message_2 = reply(responder(), ours.message_1())
    with pytest.raises(HandshakeNotAuthentic):
        ours.receive(flip(message_2, len(message_2) - 1))
    assert asked == []


@pytest.mark.parametrize("at", [*range(8), *range(8, 1224, 61)])
def test_every_changed_byte_of_message_1_ends_the_handshake(at: int) -> None:
    """The key material of message 1 is in the clear: the initiator finds the change in message 2."""
    ours, theirs = initiator(), responder()
    try:
        message_2 = reply(theirs, flip(ours.message_1(), at))
    except HandshakeError:
        return
    with pytest.raises(HandshakeError):
        ours.receive(message_2)


def test_every_changed_byte_of_message_2_is_refused() -> None:
    length = len(shake()[1])
    for at in [0, 1, *range(2, 34, 5), *range(34, length - 90, 97), *range(length - 90, length, 3)]:
        ours = initiator()
        with pytest.raises(HandshakeError):
            ours.receive(flip(reply(responder(), ours.message_1()), at).ljust(20000, b"\0"))
        assert ours.step is Step.ERROR


def test_every_changed_byte_of_message_3_is_refused() -> None:
    for at in range(len(shake()[2].reply)):
        ours, theirs = initiator(), responder()
        answer = ours.receive(reply(theirs, ours.message_1()))
        assert answer is not None
        with pytest.raises(HandshakeError):
            theirs.receive(flip(answer.reply, at).ljust(20000, b"\0"))
        assert theirs.step is Step.ERROR


@pytest.mark.parametrize("length", [0, 1215, 1217, 65535])
def test_message_1_has_one_length(length: int) -> None:
    with pytest.raises(MalformedHandshake, match="allows 1216"):
        responder().receive(b"STCP\x01\x05" + length.to_bytes(2, "big"))


@pytest.mark.parametrize(("step", "least"), [(Step.RECEIVE_2, 1200), (Step.RECEIVE_3, 64)])
@pytest.mark.parametrize("off", ["below", "above", "largest"])
def test_lengths_out_of_bounds_are_refused_before_the_message(step: Step, least: int, off: str) -> None:
    length = {"below": least + 14, "above": least + MAX_CREDENTIAL + 1, "largest": 65535}[off]
    side = initiator_at(step)[0] if step is Step.RECEIVE_2 else responder_at(step)[0]
    with pytest.raises(MalformedHandshake, match="allows"):
        side.receive(length.to_bytes(2, "big"))


class BadCredential(CertifiedInitiator):
    """Sends a credential that the format does not allow."""

    def __init__(self, credential: bytes) -> None:
        super().__init__(Identity(INITIATOR, SMALLEST), verify=accept)
        object.__setattr__(self._identity, "credential", credential)


@pytest.mark.parametrize("credential", [b"\x02" + SMALLEST[1:], SMALLEST + b"\0", b"\x01\x00" + bytes(20)])
def test_malformed_credential_is_refused(credential: bytes) -> None:
    asked: list[Credential] = []
    ours, theirs = BadCredential(credential), responder(verify=lambda credential, _: asked.append(credential))
    answer = ours.receive(reply(theirs, ours.message_1()))
    assert answer is not None
    with pytest.raises(MalformedHandshake, match="credential"):
        theirs.receive(answer.reply)
    assert asked == []


def test_identity_has_a_credential_of_the_format() -> None:
    with pytest.raises(MalformedHandshake, match="credential"):
        Identity(INITIATOR, b"")


@pytest.mark.parametrize("suite", [1, 2, 3, 4, 6])
def test_other_suites_are_refused(suite: int) -> None:
    with pytest.raises(SuiteRefused, match=f"suite {suite} .* allows 5"):
        responder().receive(b"STCP\x01" + bytes([suite]))
