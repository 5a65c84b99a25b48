"""docs/PROTOCOL.md says what the code and the vectors say: its worked example, its sizes, types and codes."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from stcp_proxy.protocol.wire import (
    MAX_ATTRIBUTES,
    MAX_CONNECTIONS,
    MAX_CREDENTIAL,
    MAX_KEEP,
    MESSAGE_1_LEN,
    MESSAGE_2_LEN,
    MESSAGE_3_LEN,
    Attribute,
    Code,
    FrameType,
    Suite,
)

PROJECT = Path(__file__).resolve().parents[2]
DOCUMENT = (PROJECT / "docs" / "PROTOCOL.md").read_text(encoding="utf-8")
VECTORS: dict[str, Any] = json.loads((PROJECT / "tests" / "vectors" / "stcp1.json").read_text(encoding="utf-8"))

SUITES = {vector["suite"]: vector for vector in VECTORS["handshakes"]}
WIDTH = 96
"""Hex digits in a line."""


def lines(label: str, value: str, indent: str = "") -> list[str]:
    """A label and a value in hex, wrapped."""
    parts = [value[at : at + WIDTH] for at in range(0, len(value), WIDTH)] or ["(empty)"]
    return [f"{indent}{label:<12}{parts[0]}", *(f"{indent}{'':<12}{part}" for part in parts[1:])]


def block(rows: list[str]) -> str:
    return "\n".join(["```", *rows, "```"])


def inputs(vector: dict[str, Any]) -> str:
    rows = []
    for who in ("initiator", "responder"):
        for kind in ("static", "ephemeral"):
            rows.append(f"{who}, {kind} key pair")
            for half in ("private", "public"):
                rows += lines(half, vector[f"{who}_{kind}_{half}"], "  ")
    return block(rows)


def trace(vector: dict[str, Any]) -> str:
    rows = []
    for step in vector["trace"]:
        rows.append(f"{step['op']}: {step['what']}")
        for key in ("input", "ciphertext", "ck", "h"):
            if key in step:
                rows += lines(key, step[key], "  ")
    return block(rows)


def short_trace(vector: dict[str, Any]) -> str:
    rows = []
    for step in vector["trace"]:
        rows.append(f"{step['op']}: {step['what']}, {len(step['input']) // 2} bytes")
        for key in ("ck", "h"):
            if key in step:
                rows += lines(key, step[key], "  ")
    rows.append("the two keys")
    rows += keys(vector)
    return block(rows)


def keys(vector: dict[str, Any]) -> list[str]:
    return [
        *lines("initiator's", vector["key_to_responder"], "  "),
        *lines("responder's", vector["key_to_initiator"], "  "),
        *lines("channel id", vector["channel_id"], "  "),
    ]


def wire(vector: dict[str, Any]) -> str:
    rows = ["initiator to responder", *lines("", vector["message_1"], "  ")]
    rows += ["responder to initiator", *lines("", vector["message_2"], "  ")]
    return block([*rows, "and, from Split() and the final h", *keys(vector)])


def frames(prefix: str, *, with_keys: bool = False) -> str:
    rows = []
    for vector in VECTORS["frames"]:
        if not vector["name"].startswith(prefix):
            continue
        kind = FrameType(vector["type"]).name
        rows.append(f"{vector['name'].split(',')[0]}, n = {vector['counter']}, {kind}")
        if with_keys:
            rows += lines("key", vector["key"], "  ")
        rows += lines("plaintext", vector["content"], "  ") + lines("frame", vector["frame"], "  ")
        if with_keys:
            rows += lines("key behind", vector["next_key"], "  ")
    return block(rows)


EXAMPLES = {
    "SUITE2_INPUTS": inputs(SUITES[2]),
    "SUITE2_TRACE": trace(SUITES[2]),
    "SUITE2_WIRE": wire(SUITES[2]),
    "SUITE2_FRAMES": frames("suite 2"),
    "REKEY": frames("across the first rekey", with_keys=True),
    "SUITE1_TRACE": short_trace(SUITES[1]),
}


@pytest.mark.parametrize("example", EXAMPLES.values(), ids=EXAMPLES)
def test_the_example_is_the_vector(example: str) -> None:
    assert example in DOCUMENT


def test_there_is_no_number_that_no_vector_has() -> None:
    known = "".join(EXAMPLES.values())
    assert [digits for digits in re.findall(r"\b[0-9a-f]{16,}\b", DOCUMENT) if digits not in known] == []


def rows(heading: str) -> list[list[str]]:
    """The rows of the table whose heading begins with these cells."""
    table = DOCUMENT.split(f"| {heading} |", 1)[1].split("\n\n", 1)[0]
    return [[cell.strip(" `") for cell in line.strip("|").split("|")] for line in table.splitlines()[2:]]


def test_suites_and_sizes() -> None:
    table = rows("suite | Noise protocol")
    assert [(int(row[0]), row[1]) for row in table] == [(suite, SUITES[suite]["noise_name"]) for suite in Suite]
    assert [(int(row[3]), int(row[4])) for row in table] == [(MESSAGE_1_LEN[suite], MESSAGE_2_LEN[suite]) for suite in Suite]


def test_credential_sizes() -> None:
    for words in (
        "A credential has at most 16384 bytes",
        "1216 bytes, empty payload",
        "1200 bytes and the responder's",
        "64 bytes and the",
    ):
        assert words in DOCUMENT
    assert (MAX_CREDENTIAL, MESSAGE_1_LEN[5], MESSAGE_2_LEN[5], MESSAGE_3_LEN) == (16384, 1216, 1200, 64)


def test_limits_of_kept_legs() -> None:
    assert f"A leg carries at most {MAX_CONNECTIONS} connections" in DOCUMENT
    assert f"seconds (u16), 1 to {MAX_KEEP}" in DOCUMENT


def test_limit_of_attributes() -> None:
    assert f"at most {MAX_ATTRIBUTES} attributes" in DOCUMENT


def test_types() -> None:
    assert [(int(row[0]), row[1]) for row in rows("type | name")] == [(kind.value, kind.name) for kind in FrameType]


def test_codes() -> None:
    assert [(int(row[0]), row[1].upper().replace(" ", "_")) for row in rows("code")] == [
        (code.value, "PLAIN_LEG_RESET" if code is Code.PLAIN_RESET else code.name) for code in Code
    ]


def test_attributes() -> None:
    assert [int(row[0]) for row in rows("attribute")] == [kind.value for kind in Attribute]
