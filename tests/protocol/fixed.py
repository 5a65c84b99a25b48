"""Fixed keys in place of fresh ones, the vectors, and small helpers."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey

from stcp_proxy.protocol.established import Answer, Established
from stcp_proxy.protocol.handshake import Credentials, Initiator, Responder
from stcp_proxy.protocol.noise import SYSTEM_ENTROPY, Entropy, HandshakeState, KeyPair
from stcp_proxy.protocol.prologue import prologue
from stcp_proxy.protocol.secret import Secret
from stcp_proxy.protocol.suites import KEY_SUITES, PATTERNS, PSK_SUITES
from stcp_proxy.protocol.wire import Suite

PROJECT = Path(__file__).resolve().parents[2]
VECTORS: dict[str, Any] = json.loads((PROJECT / "tests" / "vectors" / "stcp1.json").read_text(encoding="utf-8"))
KIT: dict[str, Any] = json.loads((PROJECT / "conformance" / "vectors.json").read_text(encoding="utf-8"))
"""Vectors that the conformance kit has written with its own code."""

INITIATOR = KeyPair(Secret(b"\x01" * 32))
RESPONDER = KeyPair(Secret(b"\x02" * 32))
STRANGER = KeyPair(Secret(b"\x03" * 32))
PSK = Secret(b"\x04" * 32)

ONE_ROUND_TRIP = sorted(KEY_SUITES | PSK_SUITES)
"""All suites but the one with certificates, whose handshake has a third message."""


def each_suite(suites: Iterable[Suite]) -> pytest.MarkDecorator:
    """Run a test with each of `suites`."""
    return pytest.mark.parametrize("suite", sorted(suites), ids=lambda suite: suite.name.lower())


ALL_SUITES = each_suite(ONE_ROUND_TRIP)
WITH_KEYS = each_suite(KEY_SUITES)


def outside_vectors(name: str) -> list[dict[str, Any]]:
    """Vectors that others published, from the folder beside the project or from STCP_VECTORS; without a file, an empty list."""
    folder = Path(os.environ.get("STCP_VECTORS", PROJECT.parent / "shared" / "vectors"))
    file = folder / name
    return list(json.loads(file.read_text(encoding="utf-8"))["vectors"]) if file.is_file() else []


class Fixed(Entropy):
    """Gives each fixed value once. A second request for a value is an error."""

    def __init__(
        self,
        *,
        ephemeral: KeyPair | None = None,
        kem: MLKEM768PrivateKey | None = None,
        encapsulation: tuple[bytes, bytes] | None = None,
    ) -> None:
        self._ephemeral, self._kem, self._encapsulation = ephemeral, kem, encapsulation

    def key_pair(self) -> KeyPair:
        value, self._ephemeral = self._ephemeral, None
        assert value is not None, "an ephemeral key is used once"
        return value

    def kem_key(self) -> MLKEM768PrivateKey:
        value, self._kem = self._kem, None
        assert value is not None, "a KEM key is used once"
        return value

    def encapsulate(self, public: bytes) -> tuple[bytes, bytes]:
        value, self._encapsulation = self._encapsulation, None
        assert value is not None, "an encapsulation is used once"
        return value


def pair(private: str | bytes) -> KeyPair:
    return KeyPair(Secret(bytes.fromhex(private) if isinstance(private, str) else private))


def credentials(suite: Suite, mine: KeyPair) -> Credentials:
    """The keys of one side that `suite` needs."""
    return Credentials(static=mine if suite in KEY_SUITES else None, psk=PSK if suite in PSK_SUITES else None)


def make_initiator(suite: Suite, *, mine: KeyPair = INITIATOR, entropy: Entropy = SYSTEM_ENTROPY) -> Initiator:
    return Initiator(
        suite, credentials(suite, mine), remote_static=RESPONDER.public if suite in KEY_SUITES else None, entropy=entropy
    )


def make_responder(suite: Suite, *, mine: KeyPair = RESPONDER, entropy: Entropy = SYSTEM_ENTROPY) -> Responder:
    return Responder({suite}, credentials(suite, mine), allowed={INITIATOR.public}, entropy=entropy)


def shake(suite: Suite) -> tuple[Initiator, bytes, Answer]:
    """A handshake up to the responder's answer: (initiator in WAIT, message 1, answer)."""
    initiator = make_initiator(suite)
    message = initiator.message_1()
    answer = make_responder(suite).receive(message)
    assert answer is not None
    return initiator, message, answer


def complete(suite: Suite) -> tuple[Established, Established]:
    """A whole handshake: what the initiator has, and what the responder has."""
    initiator, _, answer = shake(suite)
    established = initiator.receive(answer.reply)
    assert established is not None
    return established, answer.established


def flip(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


def states(
    suite: Suite, *, responder_prologue: bytes | None = None, initiator_prologue: bytes | None = None
) -> tuple[HandshakeState, HandshakeState]:
    """The Noise states of both sides, without STCP's framing."""
    initiator = HandshakeState(
        PATTERNS[suite],
        initiator=True,
        prologue=prologue(suite) if initiator_prologue is None else initiator_prologue,
        static=INITIATOR if suite in KEY_SUITES else None,
        remote_static=RESPONDER.public if suite in KEY_SUITES else None,
        psk=PSK if suite in PSK_SUITES else None,
    )
    responder = HandshakeState(
        PATTERNS[suite],
        initiator=False,
        prologue=prologue(suite) if responder_prologue is None else responder_prologue,
        static=RESPONDER if suite in KEY_SUITES else None,
        psk=PSK if suite in PSK_SUITES else None,
    )
    return initiator, responder
