"""No log of any process that a test starts may hold a secret: the search, and the fixture that does it at the session's end.

A secret is looked for raw, in Python's repr of bytes, in hexadecimal and in both alphabets of base64, at every alignment, and a
piece of it is enough: `PIECE` bytes in a row.
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
"""No file that holds keys is larger."""
_KEY_LINE = re.compile(rb"stcp-(?:key|psk):([A-Za-z0-9+/]{43}=)")
_HEX = re.compile(rb"[0-9a-fA-F]{%d,}" % (2 * PIECE))
_BASE64 = re.compile(rb"[A-Za-z0-9+/_-]{12,}")
_NOT_TEXT = re.compile(rb"[^\n\t\x1b\x20-\x7e]")
_ESCAPES = re.compile(rb"\\(?:x([0-9a-fA-F]{2})|([tnr\\'\"]))")
_PLAIN_ESCAPES = {b"t": b"\t", b"n": b"\n", b"r": b"\r"}


class Net:
    """Finds any piece of the secrets that it knows.

    Every piece of a secret has an entry in a table, and every run of a text that could be a spelling is cut into pieces of the
    same length: so its size does not depend on how many secrets there are.
    """

    def __init__(self) -> None:
        self._pieces: set[bytes] = set()

    def add(self, raw: bytes) -> None:
        self._pieces.update(_windows(raw))

    def find(self, text: bytes) -> str | None:
        """The spelling in which `text` holds a piece of a secret, or None."""
        unescaped = _ESCAPES.sub(_unescape, text)  # twice, where JSON has escaped what repr had
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
    """What a run of base64 may stand for: it may begin anywhere within four characters, and be of either alphabet."""
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
    """From now on, no log may hold `secret`."""
    NET.add(secret.reveal())


def find_secret(text: bytes) -> str | None:
    """The spelling in which `text` holds a known secret, or None."""
    return NET.find(text)


def leaks(folder: Path) -> list[str]:
    """Search the output of every process so far, and every `.log` below `folder`, for all secrets: those that the harness made,
    and those in files below `folder`.

    Returns:
        What was found, a sentence each.
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
    """At the end of the session: the logs of all processes, those of other folders' tests included."""
    yield
    found = leaks(tmp_path_factory.getbasetemp())
    assert not found, "\n".join(found)
