"""Writes stcp1.json: STCP/1 computed straight from docs/PROTOCOL.md, one line after the other, without the product's code.

    python tests/vectors/generate.py            rewrite the file from the inputs in it; the result is the same bytes
    python tests/vectors/generate.py --fresh    with a new ML-KEM encapsulation

ML-KEM encapsulation draws its own randomness, so a ciphertext and its shared secret are inputs: kept, and checked by
decapsulating.
"""

from __future__ import annotations

import datetime
import hashlib
import hmac
import ipaddress
import json
import sys
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.serialization import Encoding

FILE = Path(__file__).with_name("stcp1.json")

FORMAT = [
    "STCP/1 test vectors. Every value that is bytes is lower-case hex; counters are decimal strings, for they have 64 bits.",
    "handshakes: one for each suite. *_private and psk are inputs, and so are kem_seed (64 bytes, d and z of FIPS 203),",
    "  kem_ciphertext and kem_shared. message_1 and message_2 are everything that stands on the wire. trace lists each operation",
    "  on the symmetric state with its input and what it leaves: h after mix_hash and mix_key_and_hash, ck after mix_key and",
    "  mix_key_and_hash, and h and the ciphertext after encrypt_and_hash. key_to_responder and key_to_initiator are the first",
    "  keys of the two directions.",
    "frames: key and counter are a direction's state before a frame, key being the one in force for the frame before it: where",
    "  counter is a positive multiple of 2^20, the rekey is still to be made. next_key and next_counter are the state behind it.",
    "  A large frame has content_byte and content_size in place of content, and frame_sha256 in place of frame.",
    "refused_frames: an engine in this state must refuse these bytes; why says for what reason: header (before the frame is",
    "  complete), tag, or exhausted (no number is left).",
    "contents: plaintexts of OPEN, ACCEPT, REJECT and RESET with what they mean; refused_contents: plaintexts of a frame type",
    "  that are malformed.",
    "sequences: frame types (names) of one direction in order, sent by side; refused_at is the index of the first that is out of",
    "  place, or null.",
    "handshakes, suite 5: three messages; *_credential are the payloads of messages 2 and 3.",
    "credentials: of each side in suite 5, with the bytes that their Ed25519 signature covers (binding), from the leaf's key.",
    "refused_credentials: payloads that are not exactly one credential.",
    "kept_legs: frames of both directions of a wire leg that carries several connections, and the channel ids by connection.",
    "  key is the one in force before the frame, connection the number of the connection that the frame belongs to: where it is",
    "  larger than in the frame before, the rekey of the boundary is still to be made, and then one that is due by the counter.",
]

PATTERNS = {1: "IKhfs", 2: "IK", 3: "NNhfs+psk0", 4: "NNpsk0", 5: "XXhfs", 6: "IKhfs+psk2"}
TYPES = {"DATA": 0, "FIN": 1, "RESET": 2, "OPEN": 3, "ACCEPT": 4, "REJECT": 5, "BYE": 6}
REKEY_INTERVAL = 1 << 20


def seeded(label: str, size: int = 32) -> bytes:
    """An input that anybody can recompute."""
    return hashlib.shake_256(f"stcp1 test vector: {label}".encode()).digest(size)


def sha256(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


def hmac256(key: bytes, data: bytes) -> bytes:
    return hmac.new(key, data, hashlib.sha256).digest()


def public(private: bytes) -> bytes:
    return X25519PrivateKey.from_private_bytes(private).public_key().public_bytes_raw()


def dh(private: bytes, other: bytes) -> bytes:
    return X25519PrivateKey.from_private_bytes(private).exchange(X25519PublicKey.from_public_bytes(other))


# -- section 1: handshake --------------------------------------------------------------------------------------------------


class Symmetric:
    """Noise's symmetric state, noting everything that happens to it."""

    def __init__(self, name: str) -> None:
        raw = name.encode()
        self.h = raw.ljust(32, b"\0") if len(raw) <= 32 else sha256(raw)
        self.ck = self.h
        self.k: bytes | None = None
        self.n = 0
        self.trace: list[dict[str, str]] = []

    def note(self, op: str, what: str, data: bytes, **results: bytes) -> None:
        self.trace.append({"op": op, "what": what, "input": data.hex(), **{key: value.hex() for key, value in results.items()}})

    def mix_hash(self, what: str, data: bytes) -> None:
        self.h = sha256(self.h + data)
        self.note("mix_hash", what, data, h=self.h)

    def mix_key(self, what: str, material: bytes) -> None:
        temp = hmac256(self.ck, material)
        self.ck = hmac256(temp, b"\x01")
        self.k, self.n = hmac256(temp, self.ck + b"\x02"), 0
        self.note("mix_key", what, material, ck=self.ck)

    def mix_key_and_hash(self, what: str, material: bytes) -> None:
        temp = hmac256(self.ck, material)
        self.ck = hmac256(temp, b"\x01")
        second = hmac256(temp, self.ck + b"\x02")
        self.k, self.n = hmac256(temp, second + b"\x03"), 0
        self.h = sha256(self.h + second)
        self.note("mix_key_and_hash", what, material, ck=self.ck, h=self.h)

    def encrypt_and_hash(self, what: str, plaintext: bytes) -> bytes:
        ciphertext = plaintext  # without a key, as in message 1 of suite 5
        if self.k is not None:
            ciphertext = AESGCM(self.k).encrypt(bytes(4) + self.n.to_bytes(8, "big"), plaintext, self.h)
            self.n += 1
        self.h = sha256(self.h + ciphertext)
        self.note("encrypt_and_hash", what, plaintext, ciphertext=ciphertext, h=self.h)
        return ciphertext

    def split(self) -> tuple[bytes, bytes]:
        temp = hmac256(self.ck, b"")
        first = hmac256(temp, b"\x01")
        return first, hmac256(temp, first + b"\x02")


def handshake(suite: int, kem: tuple[bytes, bytes] | None) -> dict[str, Any]:
    """One handshake, both sides at once.

    Args:
        suite: 1 to 6.
        kem: the encapsulation (ciphertext, shared secret) to reuse; None for a new one.
    """
    keys, hybrid, secret, certified = suite in (1, 2, 6), suite in (1, 3, 5, 6), suite in (3, 4, 6), suite == 5
    inputs: dict[str, bytes] = {}
    name = f"Noise_{PATTERNS[suite]}_25519{'+MLKEM768' if hybrid else ''}_AESGCM_SHA256"
    prologue = b"STCP" + bytes([1, suite])
    e_i, e_r = seeded(f"suite {suite} initiator ephemeral"), seeded(f"suite {suite} responder ephemeral")
    inputs |= {"initiator_ephemeral_private": e_i, "initiator_ephemeral_public": public(e_i)}
    inputs |= {"responder_ephemeral_private": e_r, "responder_ephemeral_public": public(e_r)}
    s_i, s_r, psk = seeded("initiator static"), seeded("responder static"), seeded("shared secret")
    if keys or certified:
        inputs |= {"initiator_static_private": s_i, "initiator_static_public": public(s_i)}
        inputs |= {"responder_static_private": s_r, "responder_static_public": public(s_r)}
    if secret:
        inputs |= {"psk": psk}
    credential_i = credential_r = b""
    if certified:
        credential_i, credential_r = credential("initiator", 1, public(s_i)), credential("responder", 2, public(s_r))
        inputs |= {"initiator_credential": credential_i, "responder_credential": credential_r}
    seed = seeded(f"suite {suite} kem", 64)
    kem_key = MLKEM768PrivateKey.from_seed_bytes(seed)
    kem_public = kem_key.public_key().public_bytes_raw()
    if hybrid:
        if kem is None:
            kem_shared, kem_ciphertext = kem_key.public_key().encapsulate()
        else:
            kem_ciphertext, kem_shared = kem
        assert kem_key.decapsulate(kem_ciphertext) == kem_shared
        inputs |= {"kem_seed": seed, "kem_public": kem_public, "kem_ciphertext": kem_ciphertext, "kem_shared": kem_shared}

    state = Symmetric(name)
    state.mix_hash("prologue", prologue)
    if keys:
        state.mix_hash("responder's static key", public(s_r))

    # message 1:  e, es, e1, s, ss   or   psk, e, e1   or   e, e1
    if secret and not keys:
        state.mix_key_and_hash("psk", psk)
    one = public(e_i)
    state.mix_hash("e", public(e_i))
    if secret:
        state.mix_key("e, again for psk", public(e_i))
    if keys:
        state.mix_key("es", dh(e_i, public(s_r)))
    if hybrid:
        one += state.encrypt_and_hash("e1", kem_public)
    if keys:
        one += state.encrypt_and_hash("s", public(s_i))
        state.mix_key("ss", dh(s_i, public(s_r)))
    one += state.encrypt_and_hash("payload of message 1", b"")

    # message 2:  e, ee, ekem1, se (, psk)   or   e, ee, ekem1   or   e, ee, ekem1, s, es
    two = public(e_r)
    state.mix_hash("e", public(e_r))
    if secret:
        state.mix_key("e, again for psk", public(e_r))
    state.mix_key("ee", dh(e_r, public(e_i)))
    if hybrid:
        two += state.encrypt_and_hash("ekem1", kem_ciphertext)
        state.mix_key("ekem1, the shared secret", kem_shared)
    if keys:
        state.mix_key("se", dh(e_r, public(s_i)))
    if secret and keys:
        state.mix_key_and_hash("psk", psk)
    if certified:
        two += state.encrypt_and_hash("s", public(s_r))
        state.mix_key("es", dh(s_r, public(e_i)))
    two += state.encrypt_and_hash("payload of message 2", credential_r)

    # message 3, with certificates alone:  s, se
    three = b""
    if certified:
        three += state.encrypt_and_hash("s", public(s_i))
        state.mix_key("se", dh(s_i, public(e_r)))
        three += state.encrypt_and_hash("payload of message 3", credential_i)

    forth, back = state.split()
    return {
        "suite": suite,
        "noise_name": name,
        **{key: value.hex() for key, value in inputs.items()},
        "message_1": (prologue + len(one).to_bytes(2, "big") + one).hex(),
        "message_2": (len(two).to_bytes(2, "big") + two).hex(),
        **({"message_3": (len(three).to_bytes(2, "big") + three).hex()} if certified else {}),
        "handshake_hash": state.h.hex(),
        "channel_id": state.h[:8].hex(),
        "key_to_responder": forth.hex(),
        "key_to_initiator": back.hex(),
        "trace": state.trace,
    }


# -- section 2: frames -----------------------------------------------------------------------------------------------------


def rekey(key: bytes) -> bytes:
    return AESGCM(key).encrypt(bytes(4) + b"\xff" * 8, bytes(32), b"")[:32]


def seal(key: bytes, counter: int, kind: int, content: bytes) -> tuple[bytes, bytes]:
    """The frame, and the key behind it."""
    if counter > 0 and counter % REKEY_INTERVAL == 0:
        key = rekey(key)
    header = bytes([kind, 0]) + (len(content) + 16).to_bytes(2, "big")
    return header + AESGCM(key).encrypt(bytes(4) + counter.to_bytes(8, "big"), content, header), key


def frames(name: str, key: bytes, counter: int, contents: list[tuple[str, bytes]]) -> list[dict[str, Any]]:
    """Consecutive frames of one direction."""
    out = []
    for i, (kind, content) in enumerate(contents):
        frame, after = seal(key, counter, TYPES[kind], content)
        large = len(content) > 1000
        out.append(
            {
                "name": f"{name}, frame {i}",
                "key": key.hex(),
                "counter": str(counter),
                "type": TYPES[kind],
                **({"content_byte": content[:1].hex(), "content_size": len(content)} if large else {"content": content.hex()}),
                **({"frame_sha256": sha256(frame).hex()} if large else {"frame": frame.hex()}),
                "next_key": after.hex(),
                "next_counter": str(counter + 1),
            }
        )
        key, counter = after, counter + 1
    return out


def all_frames(shakes: list[dict[str, Any]]) -> list[dict[str, Any]]:
    out = []
    for shake in shakes:
        suite = shake["suite"]
        forth, back = bytes.fromhex(shake["key_to_responder"]), bytes.fromhex(shake["key_to_initiator"])
        opened = attribute(1, b"db") + attribute(2, address("192.0.2.7", 40_000))
        out += frames(
            f"suite {suite} to responder", forth, 0, [("OPEN", opened), ("DATA", b"ping"), ("DATA", b"\0" * 17), ("FIN", b"")]
        )
        out += frames(
            f"suite {suite} to initiator",
            back,
            0,
            [("ACCEPT", b""), ("DATA", b"pong"), ("DATA", b""), ("RESET", reason(8, "gone"))],
        )
    key = seeded("frame key")
    some = [("DATA", b"one"), ("DATA", b"two"), ("DATA", b"three"), ("FIN", b"")]
    out += frames("across the first rekey", key, REKEY_INTERVAL - 2, some)
    out += frames("handed over at the first rekey", key, REKEY_INTERVAL, some)
    out += frames("behind the first rekey", key, REKEY_INTERVAL + 1, some)
    out += frames("across a late rekey", key, 4095 * REKEY_INTERVAL - 1, some)
    out += frames("a counter of more than 32 bits", key, (1 << 32) - 1, some)
    out += frames("the last rekey", key, (1 << 64) - REKEY_INTERVAL, some)
    out += frames("the last two numbers", key, (1 << 64) - 3, some[:2])
    out += frames("sizes", key, 5, [("DATA", bytes([size & 255]) * size) for size in (0, 1, 15, 16, 17, 255, 65515, 65516)])
    out += frames("reject", key, 0, [("REJECT", reason(3, "connection refused"))])
    return out


def refused_frames() -> list[dict[str, Any]]:
    key = seeded("frame key")
    good, _ = seal(key, 7, 0, b"good")

    def case(name: str, why: str, frame: bytes, counter: int = 7) -> dict[str, Any]:
        return {"name": name, "why": why, "key": key.hex(), "counter": str(counter), "frame": frame.hex()}

    out = [case(f"byte {at} flipped", "tag", flip(good, at)) for at in (0, *range(4, len(good)))]
    out += [case(f"unknown type {kind}", "header", bytes([kind]) + good[1:]) for kind in (6, 7, 128, 255)]
    out += [case(f"reserved byte {value}", "header", good[:1] + bytes([value]) + good[2:]) for value in (1, 128, 255)]
    out += [
        case(f"length {length}", "header", good[:2] + length.to_bytes(2, "big") + bytes(32))
        for length in (0, 1, 15, 65533, 65535)
    ]
    out.append(case("one byte shorter than sealed", "tag", good[:3] + bytes([good[3] - 1]) + good[4:]))
    out.append(case("sent again", "tag", good, counter=8))
    out.append(case("one too early", "tag", good, counter=6))
    header = bytes([0, 0, 0, 20])
    stale = header + AESGCM(key).encrypt(bytes(4) + REKEY_INTERVAL.to_bytes(8, "big"), b"good", header)
    out.append(case("without the rekey", "tag", stale, counter=REKEY_INTERVAL))
    last = header + AESGCM(key).encrypt(bytes(4) + b"\xff" * 8, b"good", header)
    out.append(case("the number that belongs to REKEY", "exhausted", last, counter=(1 << 64) - 1))
    return out


def flip(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


def attribute(kind: int, value: bytes) -> bytes:
    return bytes([kind]) + len(value).to_bytes(2, "big") + value


def address(ip: str, port: int) -> bytes:
    parsed = ipaddress.ip_address(ip)
    return bytes([parsed.version]) + parsed.packed + port.to_bytes(2, "big")


def reason(code: int, text: str) -> bytes:
    return code.to_bytes(2, "big") + text.encode()


def contents() -> list[dict[str, Any]]:
    v4, v6 = address("192.0.2.7", 40_000), address("2001:db8::1", 443)
    return [
        {"type": TYPES["OPEN"], "content": "", "attributes": {}},
        {"type": TYPES["OPEN"], "content": attribute(1, b"db").hex(), "attributes": {"service": "db"}},
        {
            "type": TYPES["OPEN"],
            "content": (attribute(1, "größe".encode()) + attribute(2, v4) + attribute(3, v6)).hex(),
            "attributes": {"service": "größe", "client": "192.0.2.7:40000", "original": "[2001:db8::1]:443"},
        },
        {
            "type": TYPES["OPEN"],
            "content": (attribute(3, v4) + attribute(200, b"of a later version") + attribute(200, b"") + attribute(2, v6)).hex(),
            "attributes": {"client": "[2001:db8::1]:443", "original": "192.0.2.7:40000"},
        },
        {"type": TYPES["OPEN"], "content": attribute(1, b"x" * 255).hex(), "attributes": {"service": "x" * 255}},
        {"type": TYPES["ACCEPT"], "content": "", "attributes": {}},
        {"type": TYPES["ACCEPT"], "content": attribute(77, b"?").hex(), "attributes": {}},
        {"type": TYPES["REJECT"], "content": reason(3, "connection refused").hex(), "code": 3, "text": "connection refused"},
        {"type": TYPES["RESET"], "content": reason(8, "").hex(), "code": 8, "text": ""},
        {"type": TYPES["RESET"], "content": reason(7, "größer").hex(), "code": 7, "text": "größer"},
        {"type": TYPES["RESET"], "content": reason(65535, "x" * 256).hex(), "code": 65535, "text": "x" * 256},
        {"type": TYPES["FIN"], "content": ""},
        {"type": TYPES["BYE"], "content": ""},
        {"type": TYPES["OPEN"], "content": keep(1).hex(), "attributes": {"keep": "1"}},
        {
            "type": TYPES["OPEN"],
            "content": (attribute(1, b"db") + keep(65535)).hex(),
            "attributes": {"service": "db", "keep": "65535"},
        },
        {"type": TYPES["ACCEPT"], "content": keep(30).hex(), "attributes": {"keep": "30"}},
    ]


def refused_contents() -> list[dict[str, Any]]:
    v4 = address("192.0.2.7", 40_000)
    cases = [
        ("OPEN", "half an attribute header", b"\x01\x00"),
        ("OPEN", "an attribute longer than the frame", b"\x01\x00\x05abcd"),
        ("OPEN", "a service name of 256 bytes", attribute(1, b"x" * 256)),
        ("OPEN", "a service name that is not UTF-8", attribute(1, b"\xff\xfe")),
        ("OPEN", "an empty address", attribute(2, b"")),
        ("OPEN", "an address of family 5", attribute(2, b"\x05" + v4[1:])),
        ("OPEN", "an address of family 6 and 4 bytes", attribute(2, b"\x06" + v4[1:])),
        ("OPEN", "an address one byte too long", attribute(3, v4 + b"\0")),
        ("OPEN", "the same attribute twice", attribute(2, v4) * 2),
        ("REJECT", "no code", b""),
        ("REJECT", "half a code", b"\x00"),
        ("RESET", "no code", b""),
        ("RESET", "half a code", b"\x00"),
        ("RESET", "257 bytes of text", reason(8, "x" * 257)),
        ("FIN", "one byte", b"\x00"),
        ("BYE", "one byte", b"\x00"),
        ("OPEN", "keep of one byte", attribute(4, b"\x01")),
        ("OPEN", "keep of three bytes", attribute(4, b"\x00\x00\x01")),
        ("OPEN", "keep of no seconds", attribute(4, b"\x00\x00")),
        ("OPEN", "keep twice", keep(1) * 2),
        ("ACCEPT", "keep of no seconds", attribute(4, b"\x00\x00")),
    ]
    return [{"type": TYPES[kind], "why": why, "content": content.hex()} for kind, why, content in cases]


def sequences() -> list[dict[str, Any]]:
    cases: list[tuple[str, str, int | None]] = [
        ("initiator", "OPEN", None),
        ("initiator", "OPEN DATA DATA FIN", None),
        ("initiator", "OPEN RESET", None),
        ("initiator", "OPEN FIN RESET", None),
        ("responder", "ACCEPT DATA FIN RESET", None),
        ("responder", "REJECT", None),
        ("initiator", "DATA", 0),
        ("initiator", "FIN", 0),
        ("initiator", "RESET", 0),
        ("initiator", "ACCEPT", 0),
        ("initiator", "REJECT", 0),
        ("initiator", "OPEN OPEN", 1),
        ("initiator", "OPEN ACCEPT", 1),
        ("initiator", "OPEN REJECT", 1),
        ("initiator", "OPEN FIN FIN", 2),
        ("initiator", "OPEN FIN DATA", 2),
        ("initiator", "OPEN RESET RESET", 2),
        ("initiator", "OPEN RESET DATA", 2),
        ("responder", "OPEN", 0),
        ("responder", "DATA", 0),
        ("responder", "FIN", 0),
        ("responder", "RESET", 0),
        ("responder", "ACCEPT ACCEPT", 1),
        ("responder", "ACCEPT REJECT", 1),
        ("responder", "ACCEPT OPEN", 1),
        ("responder", "REJECT ACCEPT", 1),
        ("responder", "REJECT RESET", 1),
        ("responder", "REJECT DATA", 1),
        ("responder", "ACCEPT DATA FIN DATA", 3),
    ]
    return [{"side": side, "types": kinds.split(), "refused_at": at} for side, kinds, at in cases]


# -- section 7: kept wire legs ----------------------------------------------------------------------------------------------


def keep(seconds: int) -> bytes:
    return attribute(4, seconds.to_bytes(2, "big"))


def kept_legs(shakes: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Both directions of legs that carry three connections, the last of which is refused, or that end with BYE."""
    out = []
    for shake in shakes:
        suite = shake["suite"]
        final = bytes.fromhex(shake["handshake_hash"])
        ids = [shake["channel_id"]] + [sha256(final + i.to_bytes(8, "big"))[:8].hex() for i in (1, 2, 65535)]
        out.append(
            {
                "name": f"suite {suite}",
                "suite": suite,
                "handshake_hash": final.hex(),
                "channel_ids": dict(zip(("0", "1", "2", "65535"), ids, strict=True)),
                "to_responder": kept_frames(bytes.fromhex(shake["key_to_responder"]), 0, REQUESTS),
                "to_initiator": kept_frames(bytes.fromhex(shake["key_to_initiator"]), 0, ANSWERS),
            }
        )
    out.append(
        {
            "name": "a boundary where the rekey by count is due as well",
            "to_responder": kept_frames(seeded("frame key"), REKEY_INTERVAL - 3, REQUESTS),
            "to_initiator": kept_frames(seeded("frame key"), REKEY_INTERVAL - 4, ANSWERS),
        }
    )
    return out


REQUESTS = [
    (0, "OPEN", keep(30)), (0, "DATA", b"one"), (0, "FIN", b""),
    (1, "OPEN", keep(20)), (1, "DATA", b"two"), (1, "FIN", b""),
    (1, "BYE", b""),
]  # fmt: skip
ANSWERS = [
    (0, "ACCEPT", keep(60)), (0, "DATA", b"first"), (0, "DATA", b"one"), (0, "FIN", b""),
    (1, "ACCEPT", keep(60)), (1, "DATA", b"second"), (1, "FIN", b""),
    (2, "REJECT", b"\x00\x07"),
]  # fmt: skip


def kept_frames(key: bytes, counter: int, contents: list[tuple[int, str, bytes]]) -> list[dict[str, Any]]:
    """Consecutive frames of one direction of a leg: (connection, type, plaintext)."""
    out = []
    current = 0
    for connection, kind, content in contents:
        before = key
        if connection > current:
            key, current = rekey(key), connection
        frame, after = seal(key, counter, TYPES[kind], content)
        out.append(
            {
                "connection": connection,
                "type": TYPES[kind],
                "key": before.hex(),
                "counter": str(counter),
                "content": content.hex(),
                "frame": frame.hex(),
                "next_key": after.hex(),
            }
        )
        key, counter = after, counter + 1
    return out


# -- section 8: credentials -------------------------------------------------------------------------------------------------

NOT_AFTER = 2_000_000_000


def certificate(name: str, issuer: str, *, authority: bool) -> bytes:
    """A certificate whose bytes anybody can recompute: Ed25519 signatures are deterministic."""
    start = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)
    key = Ed25519PrivateKey.from_private_bytes(seeded(f"{name} certificate key"))
    issuer_key = Ed25519PrivateKey.from_private_bytes(seeded(f"{issuer} certificate key"))
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)]))
        .issuer_name(x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, issuer)]))
        .public_key(key.public_key())
        .serial_number(int.from_bytes(seeded(f"{name} serial", 8), "big") | 1)
        .not_valid_before(start)
        .not_valid_after(start + datetime.timedelta(days=3650))
        .add_extension(x509.BasicConstraints(authority, None), critical=True)
    )
    if not authority:
        names = x509.SubjectAlternativeName([x509.DNSName(f"{name}.example.net")])
        builder = builder.add_extension(names, critical=False)
    return builder.sign(issuer_key, None).public_bytes(Encoding.DER)


def credential(who: str, role: int, static: bytes) -> bytes:
    """The credential of one side: leaf and authority, bound to `static`."""
    chain = [certificate(who, "authority", authority=False), certificate("authority", "authority", authority=True)]
    key = Ed25519PrivateKey.from_private_bytes(seeded(f"{who} certificate key"))
    signature = key.sign(binding(role, static))
    return packed(chain, signature)


def binding(role: int, static: bytes) -> bytes:
    return b"STCP/1 static key binding\0" + bytes([role]) + static + NOT_AFTER.to_bytes(8, "big")


def packed(chain: list[bytes], signature: bytes, *, version: int = 1, count: int | None = None) -> bytes:
    out = bytes([version, len(chain) if count is None else count])
    for der in chain:
        out += len(der).to_bytes(2, "big") + der
    return out + NOT_AFTER.to_bytes(8, "big") + len(signature).to_bytes(2, "big") + signature


def credentials() -> list[dict[str, Any]]:
    out = []
    for who, role in (("initiator", 1), ("responder", 2)):
        static = public(seeded(f"{who} static"))
        out.append(
            {
                "name": who,
                "role": role,
                "static": static.hex(),
                "not_after": str(NOT_AFTER),
                "certificates": [
                    certificate(who, "authority", authority=False).hex(),
                    certificate("authority", "authority", authority=True).hex(),
                ],
                "binding": binding(role, static).hex(),
                "signature": Ed25519PrivateKey.from_private_bytes(seeded(f"{who} certificate key"))
                .sign(binding(role, static))
                .hex(),
                "credential": credential(who, role, static).hex(),
            }
        )
    return out


def refused_credentials() -> list[dict[str, Any]]:
    good = packed([b"leaf", b"authority"], b"signature")
    cases = [(f"cut at byte {at}", good[:at]) for at in range(len(good))]
    cases += [
        ("one byte after it", good + b"\0"),
        ("version 0", packed([b"leaf"], b"", version=0)),
        ("version 2", packed([b"leaf"], b"", version=2)),
        ("no certificate", packed([], b"signature")),
        ("an empty certificate", packed([b"leaf", b""], b"signature")),
        ("one certificate fewer than counted", packed([b"leaf"], b"signature", count=2)),
        ("one certificate more than counted", packed([b"leaf", b"authority"], b"signature", count=1)),
        ("a certificate length beyond the limit", b"\x01\x01\x40\x00"),
        ("a signature length beyond the limit", packed([b"leaf"], b"")[:-2] + b"\xff\xff"),
        ("certificates that add up beyond the limit", b"\x01\x02\x30\x00" + bytes([7]) * 0x3000 + b"\x0f\xff"),
        ("one byte above the limit", packed([b"x" * (16384 - 14 + 1)], b"")),
    ]
    return [{"why": why, "credential": data.hex()} for why, data in cases]


def build(known: dict[int, tuple[bytes, bytes]]) -> str:
    """The whole file. `known` has an encapsulation for each hybrid suite that is to be reused."""
    shakes = [handshake(suite, known.get(suite)) for suite in (1, 2, 3, 4, 5, 6)]
    vectors = {
        "format": FORMAT,
        "handshakes": shakes,
        "frames": all_frames(shakes),
        "refused_frames": refused_frames(),
        "contents": contents(),
        "refused_contents": refused_contents(),
        "sequences": sequences(),
        "credentials": credentials(),
        "refused_credentials": refused_credentials(),
        "kept_legs": kept_legs(shakes),
    }
    return json.dumps(vectors, indent=1, ensure_ascii=False) + "\n"


def encapsulations(text: str) -> dict[int, tuple[bytes, bytes]]:
    """The encapsulations that a written file was made with."""
    return {
        shake["suite"]: (bytes.fromhex(shake["kem_ciphertext"]), bytes.fromhex(shake["kem_shared"]))
        for shake in json.loads(text)["handshakes"]
        if "kem_ciphertext" in shake
    }


if __name__ == "__main__":
    fresh = "--fresh" in sys.argv[1:] or not FILE.exists()
    FILE.write_text(build({} if fresh else encapsulations(FILE.read_text())))
