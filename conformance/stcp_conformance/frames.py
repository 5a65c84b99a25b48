"""Frames and their contents (docs/PROTOCOL.md, sections 2, 4 and 7)."""

from __future__ import annotations

import enum
import hashlib
import ipaddress

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from stcp_conformance.noise import TAG, nonce

HEADER = 4
MAX_PLAINTEXT = 65516
REKEY_EVERY = 1 << 20
REKEY_NUMBER = (1 << 64) - 1


class Type(enum.IntEnum):
    DATA = 0
    FIN = 1
    RESET = 2
    OPEN = 3
    ACCEPT = 4
    REJECT = 5
    BYE = 6


class Code(enum.IntEnum):
    DENIED = 1
    UNKNOWN_SERVICE = 2
    TARGET_REFUSED = 3
    PLAIN_RESET = 8
    PROTOCOL_ERROR = 10
    KEY_REVOKED = 11


SERVICE, CLIENT, ORIGINAL, KEEP = 1, 2, 3, 4


class Direction:
    """Key and counter of one direction. It seals whatever it is told to seal."""

    def __init__(self, key: bytes, n: int = 0) -> None:
        self.key, self.n = key, n

    def rekey(self) -> None:
        """REKEY: replace the key."""
        self.key = AESGCM(self.key).encrypt(nonce(REKEY_NUMBER), bytes(32), None)[:32]

    def _next(self) -> int:
        if self.n == REKEY_NUMBER:
            raise OverflowError("the direction has used its last number")
        if self.n and self.n % REKEY_EVERY == 0:
            self.rekey()
        self.n += 1
        return self.n - 1

    def seal(self, kind: int, plaintext: bytes = b"", *, reserved: int = 0) -> bytes:
        n = self._next()
        header = bytes([kind, reserved]) + (len(plaintext) + TAG).to_bytes(2, "big")
        return header + AESGCM(self.key).encrypt(nonce(n), plaintext, header)

    def open(self, frame: bytes) -> bytes:
        """The plaintext of a whole frame. Raises InvalidTag."""
        n = self._next()
        return AESGCM(self.key).decrypt(nonce(n), frame[HEADER:], frame[:HEADER])


def channel_id(h: bytes, connection: int = 0) -> str:
    """The channel id of connection i of a wire leg."""
    return (hashlib.sha256(h + connection.to_bytes(8, "big")).digest() if connection else h)[:8].hex()


def attribute(kind: int, value: bytes, *, length: int | None = None) -> bytes:
    """One attribute; `length` is what it says of itself. [default: the truth]"""
    return bytes([kind]) + (len(value) if length is None else length).to_bytes(2, "big") + value


def keep(seconds: int) -> bytes:
    return attribute(KEEP, seconds.to_bytes(2, "big"))


def address(host: str, port: int) -> bytes:
    ip = ipaddress.ip_address(host)
    return bytes([ip.version]) + ip.packed + port.to_bytes(2, "big")


def reason(code: int, text: bytes = b"") -> bytes:
    return code.to_bytes(2, "big") + text


def read_attributes(plaintext: bytes) -> list[tuple[int, bytes]]:
    """The attributes of OPEN or ACCEPT. Raises ValueError."""
    found, at = [], 0
    while at < len(plaintext):
        size = int.from_bytes(plaintext[at + 1 : at + 3], "big")
        if at + 3 + size > len(plaintext):
            raise ValueError("an attribute is cut short")
        found.append((plaintext[at], plaintext[at + 3 : at + 3 + size]))
        at += 3 + size
    return found


def check_content(kind: int, plaintext: bytes) -> None:
    """Raise ValueError unless a frame of this type may have this plaintext."""
    if kind in (Type.FIN, Type.BYE) and plaintext:
        raise ValueError(f"{Type(kind).name} with a plaintext")
    if kind in (Type.RESET, Type.REJECT) and not 2 <= len(plaintext) <= 258:
        raise ValueError(f"a reason of {len(plaintext)} bytes")
    if kind not in (Type.OPEN, Type.ACCEPT):
        return
    known = [(number, value) for number, value in read_attributes(plaintext) if SERVICE <= number <= KEEP]
    if len({number for number, _ in known}) < len(known):
        raise ValueError("a known attribute comes twice")
    for number, value in known:
        if number == KEEP:
            valid = len(value) == 2 and value != bytes(2)
        elif kind == Type.ACCEPT:
            continue
        elif number == SERVICE:
            valid = 1 <= len(value) <= 255 and value.decode() is not None
        else:
            valid = {4: 7, 6: 19}.get(value[0] if value else 0) == len(value)
        if not valid:
            raise ValueError(f"attribute {number} has a value that is not valid")
