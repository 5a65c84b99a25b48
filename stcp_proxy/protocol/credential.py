"""A credential: certificates and the signature that binds them to a Noise static key (PROTOCOL.md section 8).

    1 (u8) ‖ count (u8) ‖ count × (length (u16) ‖ DER certificate, leaf first)
      ‖ not_after (u64, unix seconds) ‖ length (u16) ‖ signature

Invariants:
- This module reads the format alone: it trusts no certificate and checks no signature.
- A length is checked against the whole credential's limit before its bytes are waited for.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NoReturn

from stcp_proxy.errors import MalformedHandshake
from stcp_proxy.protocol.wire import BINDING_LABEL, CREDENTIAL_VERSION, KEY_LEN, LENGTH_LEN, MAX_CREDENTIAL, TIME_LEN, Role

_MAX_COUNT = 255
_MAX_TIME = (1 << 8 * TIME_LEN) - 1


@dataclass(frozen=True, slots=True)
class Credential:
    """A credential as the wire carries it.

    Attributes:
        certificates: DER encodings, the leaf first, then intermediates.
        not_after: end of the binding, in unix seconds.
        signature: made by the leaf's private key over `binding_message`; empty when the leaf's key is the static key.
    """

    certificates: tuple[bytes, ...]
    not_after: int
    signature: bytes
    _encoded: bytes = field(default=b"", init=False, repr=False, compare=False)
    """The bytes that it was read from. The format has one encoding for each credential."""

    def encode(self) -> bytes:
        """The credential's bytes.

        Raises:
            ValueError: the credential does not fit the format.
        """
        if self._encoded:
            return self._encoded
        if not 0 < len(self.certificates) <= _MAX_COUNT or not all(self.certificates):
            raise ValueError(f"a credential has 1 to {_MAX_COUNT} certificates, none of them empty")
        if not 0 <= self.not_after <= _MAX_TIME:
            raise ValueError("a time has 64 bits")
        chain = _joined(self.certificates)
        # A length that is too large for its field makes the credential too large as well.
        size = 2 + len(chain) + TIME_LEN + LENGTH_LEN + len(self.signature)
        if size > MAX_CREDENTIAL:
            raise ValueError(f"a credential has at most {MAX_CREDENTIAL} bytes, not {size}")
        head = bytes([CREDENTIAL_VERSION, len(self.certificates)])
        return head + chain + self.not_after.to_bytes(TIME_LEN, "big") + _joined([self.signature])


def parse_credential(data: bytes) -> tuple[Credential, int] | None:
    """Read the credential at the beginning of `data`.

    Args:
        data: bytes of any length.

    Returns:
        (the credential, bytes of `data` that it takes), or None while bytes are missing.

    Raises:
        MalformedHandshake: the bytes are no credential. Checked as early as the bytes allow.
    """
    reader = _Reader(data)
    if data[:1] not in (b"", bytes([CREDENTIAL_VERSION])):
        _refuse(f"is of version {data[0]}, this side knows version {CREDENTIAL_VERSION}")
    if data[1:2] == b"\0":
        _refuse("has no certificate")
    head = reader.take(2)
    if head is None:
        return None
    certificates = []
    for _ in range(head[1]):
        certificate = reader.take_sized()
        if certificate is None:
            return None
        if not certificate:
            _refuse("has an empty certificate")
        certificates.append(certificate)
    time = reader.take(TIME_LEN)
    signature = None if time is None else reader.take_sized()
    if time is None or signature is None:
        return None
    return Credential(tuple(certificates), int.from_bytes(time, "big"), signature), reader.at


def decode_credential(payload: bytes) -> Credential:
    """Read the payload of a handshake message: exactly one credential.

    Raises:
        MalformedHandshake: the payload is no credential, is cut short, or continues after it.
    """
    if len(payload) > MAX_CREDENTIAL:
        _refuse(f"has {len(payload)} bytes, the format allows {MAX_CREDENTIAL}")
    parsed = parse_credential(payload)
    if parsed is None:
        _refuse("is cut short")
    credential, used = parsed
    if used != len(payload):
        _refuse(f"is followed by {len(payload) - used} bytes")
    object.__setattr__(credential, "_encoded", bytes(payload))
    return credential


def binding_message(role: Role, static: bytes, not_after: int) -> bytes:
    """The bytes that a credential's signature covers.

    Args:
        role: side of the handshake that presents the credential.
        static: its Noise static public key, 32 bytes.
        not_after: end of the binding, in unix seconds.
    """
    if len(static) != KEY_LEN:
        raise ValueError(f"a static key has {KEY_LEN} bytes, not {len(static)}")
    return BINDING_LABEL + bytes([role]) + static + not_after.to_bytes(TIME_LEN, "big")


class _Reader:
    """Takes fields from the beginning of a buffer. A field that is incomplete is None."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self.at = 0

    def take(self, size: int) -> bytes | None:
        end = self.at + size
        if end > MAX_CREDENTIAL:
            _refuse(f"has more than {MAX_CREDENTIAL} bytes")
        if end > len(self._data):
            return None
        start, self.at = self.at, end
        return self._data[start:end]

    def take_sized(self) -> bytes | None:
        """A field behind its length (u16)."""
        length = self.take(LENGTH_LEN)
        return None if length is None else self.take(int.from_bytes(length, "big"))


def _joined(fields: Sequence[bytes]) -> bytes:
    """Each field behind its length. The caller refuses fields that are longer than a length can say, by their sum."""
    most = (1 << 8 * LENGTH_LEN) - 1
    return b"".join(min(len(field), most).to_bytes(LENGTH_LEN, "big") + field for field in fields)


def _refuse(why: str) -> NoReturn:
    raise MalformedHandshake(f"the peer's credential {why}")
