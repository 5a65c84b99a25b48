"""Fixed keys where the product draws fresh ones, the vectors, and small helpers."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey

from stcp_proxy.protocol.handshake import PSK_SUITES, Answer, Credentials, Established, Initiator, Responder
from stcp_proxy.protocol.noise import SYSTEM_ENTROPY, Entropy, KeyPair
from stcp_proxy.protocol.secret import Secret
from stcp_proxy.protocol.wire import Suite

PROJECT = Path(__file__).resolve().parents[2]
VECTORS: dict[str, Any] = json.loads((PROJECT / "tests" / "vectors" / "stcp1.json").read_text(encoding="utf-8"))

INITIATOR = KeyPair(Secret(b"\x01" * 32))
RESPONDER = KeyPair(Secret(b"\x02" * 32))
STRANGER = KeyPair(Secret(b"\x03" * 32))
PSK = Secret(b"\x04" * 32)

ALL_SUITES = pytest.mark.parametrize("suite", list(Suite), ids=lambda suite: suite.name.lower())


def outside_vectors(name: str) -> list[dict[str, Any]]:
    """Vectors of others, from the folder beside the project or where STCP_VECTORS says; an empty list where there is none."""
    folder = Path(os.environ.get("STCP_VECTORS", PROJECT.parent / "shared" / "vectors"))
    file = folder / name
    return list(json.loads(file.read_text(encoding="utf-8"))["vectors"]) if file.is_file() else []


class Fixed(Entropy):
    """Gives each fixed value once; what is asked for and not there is an error."""

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
    return Credentials(psk=PSK) if suite in PSK_SUITES else Credentials(static=mine)


def make_initiator(suite: Suite, *, mine: KeyPair = INITIATOR, entropy: Entropy = SYSTEM_ENTROPY) -> Initiator:
    return Initiator(
        suite, credentials(suite, mine), remote_static=None if suite in PSK_SUITES else RESPONDER.public, entropy=entropy
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
