"""The handshake patterns of STCP/1 as data: each message is a tuple of Noise tokens."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Pattern:
    """A handshake pattern.

    Attributes:
        name: the pattern's part of the protocol name, with modifiers.
        messages: the tokens of each message. The initiator sends the first one.
        knows_responder: whether the pattern has the pre-message ``<- s``.
    """

    name: str
    messages: tuple[tuple[str, ...], ...]
    knows_responder: bool = False

    @property
    def uses_psk(self) -> bool:
        """Whether a shared secret is mixed in. Then MixKey(e.public) follows every `e`."""
        return "psk" in self.name

    @property
    def uses_kem(self) -> bool:
        """Whether the pattern has the tokens `e1` and `ekem1`."""
        return "hfs" in self.name


IK: Final = Pattern("IK", (("e", "es", "s", "ss"), ("e", "ee", "se")), knows_responder=True)
IK_HFS: Final = Pattern("IKhfs", (("e", "es", "e1", "s", "ss"), ("e", "ee", "ekem1", "se")), knows_responder=True)
NN_PSK0: Final = Pattern("NNpsk0", (("psk", "e"), ("e", "ee")))
NN_HFS_PSK0: Final = Pattern("NNhfs+psk0", (("psk", "e", "e1"), ("e", "ee", "ekem1")))
XX_HFS: Final = Pattern("XXhfs", (("e", "e1"), ("e", "ee", "ekem1", "s", "es"), ("s", "se")))
IK_HFS_PSK2: Final = Pattern(
    "IKhfs+psk2", (("e", "es", "e1", "s", "ss"), ("e", "ee", "ekem1", "se", "psk")), knows_responder=True
)
