"""Byte for byte with the independent package `noiseprotocol`, in both roles: suites 2 and 4, transport and REKEY included."""

from __future__ import annotations

import pytest
from noise.connection import Keypair, NoiseConnection

from stcp_proxy.protocol.established import Established
from stcp_proxy.protocol.frames import Opener, Sealer
from stcp_proxy.protocol.prologue import prologue
from stcp_proxy.protocol.wire import HEADER_LEN, REKEY_INTERVAL, FrameType, Suite

from .fixed import INITIATOR, PSK, RESPONDER, Fixed, make_initiator, make_responder, pair

# The package warns about the fixed ephemeral keys that make its bytes comparable.
pytestmark = pytest.mark.filterwarnings("ignore:One of ephemeral keypairs is already set:UserWarning:noise")

SUITES = pytest.mark.parametrize("suite", [Suite.CLASSIC_KEYS, Suite.CLASSIC_PSK], ids=lambda suite: suite.name.lower())
NAMES = {Suite.CLASSIC_KEYS: b"Noise_IK_25519_AESGCM_SHA256", Suite.CLASSIC_PSK: b"Noise_NNpsk0_25519_AESGCM_SHA256"}

E_INITIATOR, E_RESPONDER = b"\x05" * 32, b"\x06" * 32
STATIC_INITIATOR, STATIC_RESPONDER = b"\x01" * 32, b"\x02" * 32


def theirs(suite: Suite, *, initiator: bool) -> NoiseConnection:
    """The package's side of the handshake."""
    other = NoiseConnection.from_name(NAMES[suite])
    other.set_prologue(prologue(suite))
    if initiator:
        other.set_as_initiator()
    else:
        other.set_as_responder()
    if suite is Suite.CLASSIC_PSK:
        other.set_psks(psk=PSK.reveal())
    else:
        static = STATIC_INITIATOR if initiator else STATIC_RESPONDER
        other.set_keypair_from_private_bytes(Keypair.STATIC, static)
        if initiator:
            other.set_keypair_from_public_bytes(Keypair.REMOTE_STATIC, RESPONDER.public)
    other.set_keypair_from_private_bytes(Keypair.EPHEMERAL, E_INITIATOR if initiator else E_RESPONDER)
    other.start_handshake()
    return other


def framed(message: bytes) -> bytes:
    return len(message).to_bytes(2, "big") + message


@SUITES
def test_our_initiator_and_their_responder(suite: Suite) -> None:
    ours = make_initiator(suite, entropy=Fixed(ephemeral=pair(E_INITIATOR)))
    message_1 = ours.message_1()
    assert message_1 == prologue(suite) + framed(bytes(theirs(suite, initiator=True).write_message()))
    responder = theirs(suite, initiator=False)
    assert responder.read_message(message_1[8:]) == b""
    established = ours.receive(framed(bytes(responder.write_message())))
    assert established is not None
    assert established.handshake_hash == responder.get_handshake_hash()
    assert established.peer == (None if suite is Suite.CLASSIC_PSK else RESPONDER.public)
    exchange_frames(established, responder)


@SUITES
def test_their_initiator_and_our_responder(suite: Suite) -> None:
    initiator = theirs(suite, initiator=True)
    ours = make_responder(suite, entropy=Fixed(ephemeral=pair(E_RESPONDER)))
    message_1 = bytes(initiator.write_message())
    answer = ours.receive(prologue(suite) + framed(message_1))
    assert answer is not None
    responder = theirs(suite, initiator=False)
    responder.read_message(message_1)
    assert answer.reply == framed(bytes(responder.write_message()))
    assert initiator.read_message(answer.reply[2:]) == b""
    established = answer.established
    assert established.handshake_hash == initiator.get_handshake_hash()
    assert established.peer == (None if suite is Suite.CLASSIC_PSK else INITIATOR.public)
    exchange_frames(established, initiator)


def exchange_frames(ours: Established, other: NoiseConnection) -> None:
    """Frames both ways, at the beginning and across a rekey, with the package's cipher states."""
    send, receive = other.noise_protocol.cipher_state_encrypt, other.noise_protocol.cipher_state_decrypt
    sealer, opener = Sealer(ours.send_key), Opener(ours.receive_key)
    for content in (b"", b"one", bytes(65516)):
        pass_both_ways(sealer, opener, send, receive, content)
    # The same keys, set forward to the last frames before the rekey.
    sealer, opener = Sealer(ours.send_key, REKEY_INTERVAL - 2), Opener(ours.receive_key, REKEY_INTERVAL - 2)
    send.set_nonce(REKEY_INTERVAL - 2)
    receive.set_nonce(REKEY_INTERVAL - 2)
    for i in range(5):
        if i == 2:
            other.rekey_outbound_cipher()
            other.rekey_inbound_cipher()
        pass_both_ways(sealer, opener, send, receive, b"across %d" % i)


def pass_both_ways(sealer: Sealer, opener: Opener, send: object, receive: object, content: bytes) -> None:
    frame = sealer.seal(FrameType.DATA, content)
    assert receive.decrypt_with_ad(frame[:HEADER_LEN], frame[HEADER_LEN:]) == content  # type: ignore[attr-defined]
    header = bytes([FrameType.DATA, 0]) + (len(content) + 16).to_bytes(2, "big")
    frame = header + send.encrypt_with_ad(header, content)  # type: ignore[attr-defined]
    assert opener.open(frame) == (len(frame), FrameType.DATA, content)
