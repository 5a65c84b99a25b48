"""Writes stcp1.json: STCP/1 computed straight from docs/PROTOCOL.md, one line after the other, without the product's code.

    python tests/vectors/generate.py            rewrite the file from the inputs in it; the result is the same bytes
    python tests/vectors/generate.py --fresh    with a new ML-KEM encapsulation

ML-KEM encapsulation draws its own randomness, so a ciphertext and its shared secret are inputs: kept, and checked by
decapsulating.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from stcp1.contents import contents, refused_contents, sequences
from stcp1.credentials import credentials, refused_credentials
from stcp1.frames import all_frames, refused_frames
from stcp1.handshakes import handshake
from stcp1.kept_legs import kept_legs

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
