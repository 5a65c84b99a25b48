"""Section 7: wire legs that carry several connections."""

from __future__ import annotations

from typing import Any

from .contents import attribute, keep
from .frames import rekey, seal
from .primitives import REKEY_INTERVAL, TYPES, seeded, sha256


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
    shake = shakes[0]
    out.append(
        {
            "name": "a leg that is made ready, and its first connection",
            "to_responder": kept_frames(bytes.fromhex(shake["key_to_responder"]), 0, READY_REQUESTS),
            "to_initiator": kept_frames(bytes.fromhex(shake["key_to_initiator"]), 0, READY_ANSWERS),
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
READY_REQUESTS = [
    (0, "OPEN", attribute(1, b":ready") + keep(30)), (0, "FIN", b""),
    (1, "OPEN", keep(20)), (1, "DATA", b"one"),
]  # fmt: skip
READY_ANSWERS = [
    (0, "ACCEPT", keep(60)), (0, "FIN", b""),
    (1, "ACCEPT", keep(60)), (1, "DATA", b"first"),
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
