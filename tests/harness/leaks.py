"""Search the logs of all processes of the tests for secrets. A fixture does it at the end of the session.

A secret is searched raw, in Python's repr of bytes, in hexadecimal, and in both alphabets of base64, at every alignment. A piece
of `PIECE` consecutive bytes is a finding.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.process import OUTPUTS
from stcp_proxy.protocol.secret import Secret

PIECE = 9
_KEY_FILE = 65_536
"""The largest size of a file with keys."""
_KEY_LINE = re.compile(rb"stcp-(?:key|psk):([A-Za-z0-9+/]{43}=)")
_HEX = re.compile(rb"[0-9a-fA-F]{%d,}" % (2 * PIECE))
_BASE64 = re.compile(rb"[A-Za-z0-9+/_-]{12,}")
_NOT_TEXT = re.compile(rb"[^\n\t\x1b\x20-\x7e]")
_ESCAPES = re.compile(rb"\\(?:x([0-9a-fA-F]{2})|([tnr\\'\"]))")
_PLAIN_ESCAPES = {b"t": b"\t", b"n": b"\n", b"r": b"\r"}


class Net:
    """Finds pieces of the secrets that it knows.

    Every piece of a secret has an entry in a table. Every part of a text that could be an encoding is cut into pieces of the same
    length. So the cost of a search does not depend on the number of secrets.
    """

    def __init__(self) -> None:
        self._pieces: set[bytes] = set()

    def add(self, raw: bytes) -> None:
        self._pieces.update(_windows(raw))

    def find(self, text: bytes) -> str | None:
        """The encoding in which `text` contains a piece of a secret, or None."""
        unescaped = _ESCAPES.sub(_unescape, text)  # twice, because JSON may have escaped the escapes of repr
        for name, candidates in (
            ("raw", [text] if _NOT_TEXT.search(text) else []),
            ("repr", [unescaped, _ESCAPES.sub(_unescape, unescaped)] if b"\\" in text else []),
            ("hex", (part for found in _HEX.findall(text) for part in _from_hex(found))),
            ("base64", (part for found in _BASE64.findall(text) for part in _from_base64(found))),
        ):
            if any(not self._pieces.isdisjoint(_windows(candidate)) for candidate in candidates):
                return name
        return None


def _windows(raw: bytes) -> Iterator[bytes]:
    return (raw[at : at + PIECE] for at in range(len(raw) - PIECE + 1))


def _from_hex(found: bytes) -> Iterator[bytes]:
    for at in range(2):
        part = found[at:].decode()
        yield bytes.fromhex(part[: len(part) // 2 * 2])


def _from_base64(found: bytes) -> Iterator[bytes]:
    """The possible decodings of a base64 text. It may begin at any of four positions, and use either alphabet."""
    text = found.replace(b"-", b"+").replace(b"_", b"/")
    for at in range(4):
        part = text[at:]
        yield base64.b64decode(part[: len(part) // 4 * 4])


def _unescape(match: re.Match[bytes]) -> bytes:
    if match[1]:
        return bytes.fromhex(match[1].decode())
    return _PLAIN_ESCAPES.get(match[2], match[2])


NET = Net()
"""All secrets of this session."""


def forbid(secret: Secret) -> None:
    """Forbid `secret` in all logs from now on."""
    NET.add(secret.reveal())


def find_secret(text: bytes) -> str | None:
    """The encoding in which `text` contains a known secret, or None."""
    return NET.find(text)


def leaks(folder: Path) -> list[str]:
    """Search the output of all processes so far, and every `.log` below `folder`. The secrets are those of the harness, and those
    in files below `folder`.

    Returns:
        The findings, one sentence each.
    """
    files = {path for path in folder.rglob("*") if path.is_file() and not path.is_symlink()}
    logs = {path for path in files if path.suffix == ".log"} | {path for path in OUTPUTS if path.is_file()}
    for path in files - logs:
        if path.stat().st_size < _KEY_FILE:
            for body in _KEY_LINE.findall(path.read_bytes()):
                NET.add(base64.b64decode(body))
    found = ((path, NET.find(path.read_bytes())) for path in sorted(logs))
    return [f"{path} holds a secret in {spelling}" for path, spelling in found if spelling is not None]


@pytest.fixture(scope="session", autouse=True)
def no_secret_in_any_log(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """At the end of the session, check the logs of all processes, also of tests in other folders."""
    yield
    found = leaks(tmp_path_factory.getbasetemp())
    assert not found, "\n".join(found)
