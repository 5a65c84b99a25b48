"""The table of suites (docs/PROTOCOL.md, sections 1 and 8)."""

from __future__ import annotations

from dataclasses import dataclass

MAGIC = b"STCP"
VERSION = 1


@dataclass(frozen=True)
class Suite:
    """One Noise protocol.

    Attributes:
        number: its number on the wire.
        name: its Noise name.
        messages: the tokens of each message, from the first.
        lengths: the length of each message without a credential.
        static: whether each side has an X25519 key pair.
        knows_responder: whether the initiator has the responder's public key beforehand.
        psk: whether both sides have the same 32 bytes.
        certificates: whether credentials travel with messages 2 and 3.
    """

    number: int
    name: str
    messages: tuple[tuple[str, ...], ...]
    lengths: tuple[int, ...]
    static: bool = False
    knows_responder: bool = False
    psk: bool = False
    certificates: bool = False

    @property
    def prologue(self) -> bytes:
        return MAGIC + bytes([VERSION, self.number])

    @property
    def kem(self) -> bool:
        return "e1" in self.messages[0]


_IK = {"static": True, "knows_responder": True}
SUITES = {
    suite.number: suite
    for suite in (
        Suite(
            1,
            "Noise_IKhfs_25519+MLKEM768_AESGCM_SHA256",
            (("e", "es", "e1", "s", "ss"), ("e", "ee", "ekem1", "se")),
            (1296, 1152),
            **_IK,
        ),
        Suite(2, "Noise_IK_25519_AESGCM_SHA256", (("e", "es", "s", "ss"), ("e", "ee", "se")), (96, 48), **_IK),
        Suite(
            3,
            "Noise_NNhfs+psk0_25519+MLKEM768_AESGCM_SHA256",
            (("psk", "e", "e1"), ("e", "ee", "ekem1")),
            (1248, 1152),
            psk=True,
        ),
        Suite(4, "Noise_NNpsk0_25519_AESGCM_SHA256", (("psk", "e"), ("e", "ee")), (48, 48), psk=True),
        Suite(
            5,
            "Noise_XXhfs_25519+MLKEM768_AESGCM_SHA256",
            (("e", "e1"), ("e", "ee", "ekem1", "s", "es"), ("s", "se")),
            (1216, 1200, 64),
            static=True,
            certificates=True,
        ),
        Suite(
            6,
            "Noise_IKhfs+psk2_25519+MLKEM768_AESGCM_SHA256",
            (("e", "es", "e1", "s", "ss"), ("e", "ee", "ekem1", "se", "psk")),
            (1296, 1152),
            psk=True,
            **_IK,
        ),
    )
}
