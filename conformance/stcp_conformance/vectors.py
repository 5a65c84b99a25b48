"""Check a file of test vectors with the kit's own code, or write one with new keys.

    python -m stcp_conformance.vectors FILE
    python -m stcp_conformance.vectors --write FILE

The first entry of tests/vectors/stcp1.json describes the format. A file may have a part of the lists.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey

from stcp_conformance import credential
from stcp_conformance.frames import REKEY_EVERY, Direction, Type, address, attribute, channel_id, check_content, keep, reason
from stcp_conformance.greeting import framed
from stcp_conformance.noise import Handshake, KeyPair
from stcp_conformance.suites import SUITES
from stcp_conformance.wire import FIRST

Vector = dict[str, Any]
ROLES = ("initiator", "responder")


class Difference(Exception):
    """A vector says something else than the kit's code computes."""


def raw(vector: Vector, key: str) -> bytes:
    return bytes.fromhex(vector[key])


def compare(vector: Vector, found: Vector) -> None:
    for key, value in found.items():
        if vector[key] != value:
            raise Difference(f"{key}: {str(vector[key])[:80]} in the file, {str(value)[:80]} computed")


# -- handshakes


def side(vector: Vector, role: str, steps: list[Vector]) -> Handshake:
    suite = SUITES[vector["suite"]]

    def trace(operation: str, data: bytes, ck: bytes, h: bytes) -> None:
        steps.append({"op": operation, "input": data.hex(), "ck": ck.hex(), "h": h.hex()})

    return Handshake(
        suite,
        initiator=role == "initiator",
        static=KeyPair(raw(vector, f"{role}_static_private")) if suite.static else None,
        remote_static=KeyPair(raw(vector, "responder_static_private")).public if suite.knows_responder else None,
        psk=raw(vector, "psk") if suite.psk else None,
        ephemeral=KeyPair(raw(vector, f"{role}_ephemeral_private")),
        kem=MLKEM768PrivateKey.from_seed_bytes(raw(vector, "kem_seed")) if suite.kem else None,
        encapsulation=(raw(vector, "kem_shared"), raw(vector, "kem_ciphertext")) if suite.kem else None,
        trace=trace,
    )


def handshake(vector: Vector) -> Vector:
    """What follows from the inputs of a handshake, computed on both sides."""
    suite = SUITES[vector["suite"]]
    steps: dict[str, list[Vector]] = {role: [] for role in ROLES}
    initiator, responder = (side(vector, role, steps[role]) for role in ROLES)
    found: Vector = {"noise_name": suite.name}
    for number in range(1, len(suite.messages) + 1):
        writer, reader = (initiator, responder) if number % 2 else (responder, initiator)
        presents = suite.certificates and number > 1
        payload = raw(vector, "initiator_credential" if number % 2 else "responder_credential") if presents else b""
        message = writer.write(number, payload)
        if reader.read(number, message) != payload:
            raise Difference(f"payload of message {number}")
        found[f"message_{number}"] = ((suite.prologue if number == 1 else b"") + framed(message)).hex()
    if steps["initiator"] != steps["responder"] or initiator.h != responder.h:
        raise Difference("both sides computed different states")
    to_responder, to_initiator = initiator.split()
    found |= {"handshake_hash": initiator.h.hex(), "channel_id": channel_id(initiator.h)}
    found |= {"key_to_responder": to_responder.hex(), "key_to_initiator": to_initiator.hex()}
    return found | {"trace": steps["initiator"]}


def check_handshake(vector: Vector) -> None:
    found = handshake(vector)
    steps = found.pop("trace")
    compare(vector, found)
    if len(steps) != len(vector["trace"]):
        raise Difference(f"{len(vector['trace'])} steps in the file, {len(steps)} computed")
    for listed, step in zip(vector["trace"], steps, strict=True):
        compare(listed, {key: step[key] for key in ("op", "input", "h", "ck") if key in listed})


# -- frames


def content(vector: Vector) -> bytes:
    return raw(vector, "content") if "content" in vector else raw(vector, "content_byte") * vector["content_size"]


def frame(vector: Vector, *, boundary: bool = False) -> Vector:
    """What follows from key, counter, type and content. `boundary`: the frame is the first of a later connection."""
    sends, receives = (Direction(raw(vector, "key"), int(vector["counter"])) for _ in range(2))
    if boundary:
        sends.rekey()
        receives.rekey()
    sealed = sends.seal(vector["type"], content(vector))
    if receives.open(sealed) != content(vector):
        raise Difference("the plaintext")
    found: Vector = {"next_key": sends.key.hex()}
    found |= {"frame": sealed.hex()} if "frame_sha256" not in vector else {"frame_sha256": hashlib.sha256(sealed).hexdigest()}
    return found | ({"next_counter": str(sends.n)} if "connection" not in vector else {})


def check_refused_frame(vector: Vector) -> None:
    """The reason must be the one that the file gives."""
    data = raw(vector, "frame")
    length = int.from_bytes(data[2:4], "big")
    why = ""
    if data[0] > Type.REJECT or data[1] or not 16 <= length <= 65532:
        why = "header"
    else:
        try:
            Direction(raw(vector, "key"), int(vector["counter"])).open(data)
        except OverflowError:
            why = "exhausted"
        except InvalidTag:
            why = "tag"
    if why != vector["why"]:
        raise Difference(f"{vector['why']} in the file, {why or 'nothing'} found")


def check_refused_content(vector: Vector) -> None:
    try:
        check_content(vector["type"], raw(vector, "content"))
    except ValueError:
        return
    raise Difference("the content is valid")


def check_sequence(vector: Vector) -> None:
    first = {"initiator": ("OPEN",), "responder": ("ACCEPT", "REJECT")}[vector["side"]]
    allowed, refused_at = first, None
    for at, name in enumerate(vector["types"]):
        if name not in allowed:
            refused_at = at
            break
        stream = ("DATA", "FIN", "RESET")
        allowed = {"FIN": ("RESET",), "RESET": (), "REJECT": ()}.get(name, stream)
    compare(vector, {"refused_at": refused_at})


def check_leg(vector: Vector) -> None:
    if "handshake_hash" in vector:
        h = raw(vector, "handshake_hash")
        compare(vector["channel_ids"], {number: channel_id(h, int(number)) for number in vector["channel_ids"]})
    for way in ("to_responder", "to_initiator"):
        connection = 0
        for each in vector[way]:
            compare(each, frame(each, boundary=each["connection"] > connection and each["type"] in FIRST))
            connection = each["connection"]


# -- credentials


def check_credential(vector: Vector) -> None:
    certificates, not_after, signature = credential.decode(raw(vector, "credential"))
    signed = credential.binding(vector["role"], raw(vector, "static"), not_after)
    compare(vector, {"certificates": [each.hex() for each in certificates], "not_after": str(not_after)})
    compare(vector, {"signature": signature.hex(), "binding": signed.hex()})
    compare(vector, {"credential": credential.encode(certificates, not_after, signature).hex()})
    credential.verify(x509.load_der_x509_certificate(certificates[0]).public_key(), signed, signature)


def check_refused_credential(vector: Vector) -> None:
    try:
        credential.decode(raw(vector, "credential"))
    except ValueError:
        return
    raise Difference("the form of the credential is valid")


CHECKS: dict[str, Callable[[Vector], None]] = {
    "handshakes": check_handshake,
    "frames": lambda vector: compare(vector, frame(vector)),
    "refused_frames": check_refused_frame,
    "contents": lambda vector: check_content(vector["type"], raw(vector, "content")),
    "refused_contents": check_refused_content,
    "sequences": check_sequence,
    "credentials": check_credential,
    "refused_credentials": check_refused_credential,
    "kept_legs": check_leg,
}


def check(lists: dict[str, Any]) -> Iterator[tuple[str, int, str]]:
    """Check all lists. Yields list, number and difference (empty: none) of each entry."""
    for name, test in CHECKS.items():
        for number, vector in enumerate(lists.get(name, ())):
            try:
                test(vector)
            except (Difference, ValueError, InvalidTag) as exc:
                yield name, number, f"{type(exc).__name__}: {exc}"
            else:
                yield name, number, ""


# -- writing


def new_handshake(number: int) -> Vector:
    suite = SUITES[number]
    vector: Vector = {"suite": number}
    for role in ROLES:
        for kind in ("static", "ephemeral") if suite.static else ("ephemeral",):
            pair = KeyPair()
            vector |= {f"{role}_{kind}_private": pair.private.hex(), f"{role}_{kind}_public": pair.public.hex()}
    if suite.psk:
        vector["psk"] = os.urandom(32).hex()
    if suite.kem:
        seed = os.urandom(64)
        public = MLKEM768PrivateKey.from_seed_bytes(seed).public_key()
        shared, ciphertext = public.encapsulate()
        vector |= {"kem_seed": seed.hex(), "kem_public": public.public_bytes_raw().hex()}
        vector |= {"kem_ciphertext": ciphertext.hex(), "kem_shared": shared.hex()}
    if suite.certificates:
        authority = credential.Authority()
        for number, name in ((credential.INITIATOR, ROLES[0]), (credential.RESPONDER, ROLES[1])):
            made = authority.issue(f"{name}.example").credential(
                number, raw(vector, f"{name}_static_public"), not_after=2_000_000_000
            )
            vector[f"{name}_credential"] = made.hex()
    return vector | handshake(vector)


OPENING = attribute(1, b"db") + attribute(2, address("2001:db8::7", 40000)) + attribute(200, b"unknown") + keep(30)
FRAMES: list[tuple[int, bytes]] = [
    (Type.OPEN, OPENING),
    (Type.ACCEPT, keep(60)),
    (Type.REJECT, reason(3, b"refused")),
    (Type.DATA, b""),
    (Type.DATA, bytes(range(256))),
    (Type.RESET, reason(8, "größe".encode())),
    (Type.FIN, b""),
    (Type.BYE, b""),
]


def new_frames(handshakes: list[Vector]) -> list[Vector]:
    """Each type in both directions of each suite, and DATA across the first rekey."""
    found = []
    for each in handshakes:
        for way in ("to_responder", "to_initiator"):
            starts = [(n, kind, plaintext) for n, (kind, plaintext) in enumerate(FRAMES)]
            starts += [(REKEY_EVERY - 1, Type.DATA, b"before"), (REKEY_EVERY, Type.DATA, b"behind")]
            for n, kind, plaintext in starts:
                vector = {"name": f"suite {each['suite']} {way.replace('_', ' ')}, n = {n}", "key": each[f"key_{way}"]}
                vector |= {"counter": str(n), "type": int(kind), "content": plaintext.hex()}
                found.append(vector | frame(vector))
    return found


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m stcp_conformance.vectors", description="Check test vectors of STCP/1.")
    parser.add_argument("file", type=Path)
    parser.add_argument("--write", action="store_true", help="write a file with new keys, instead")
    options = parser.parse_args()
    if options.write:
        handshakes = [new_handshake(number) for number in SUITES]
        lists = {"handshakes": handshakes, "frames": new_frames(handshakes)}
        options.file.write_text(json.dumps(lists, indent=1) + "\n", encoding="utf-8")
    results = list(check(json.loads(options.file.read_text(encoding="utf-8"))))
    for name, number, difference in results:
        if difference:
            print(f"{name}[{number}]: {difference}")
    wrong = sum(bool(difference) for _, _, difference in results)
    print(f"{len(results) - wrong} passed, {wrong} failed")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
