"""Section 2: frames of one direction, and bytes that are refused in place of a frame."""

from __future__ import annotations

from typing import Any

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from .contents import address, attribute, reason
from .primitives import REKEY_INTERVAL, TYPES, seeded, sha256


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
