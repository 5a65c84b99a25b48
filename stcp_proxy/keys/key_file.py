"""Key files: one line of key text. Blank lines and lines that start with `#` are ignored."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Final, TypeVar

from stcp_proxy.errors import KeyFileError
from stcp_proxy.keys.secret_file import MAKE_REMEDY, read_secret_file
from stcp_proxy.keys.text import PUBLIC_PREFIX, PrivateKey, parse_psk
from stcp_proxy.protocol.secret import Secret

_T = TypeVar("_T")
_SHORT: Final = 200
"""Bytes: a public key has 53."""


def load_private_key(path: str | Path) -> PrivateKey:
    """Read a private key from a file.

    Raises:
        KeyFileError: the file is missing, malformed, open to other users, or owned by another user.
    """
    return _load(path, PrivateKey.parse)


def load_psk(path: str | Path) -> Secret:
    """Read a shared secret from a file.

    Raises:
        KeyFileError: the file is missing, malformed, open to other users, or owned by another user.
    """
    return _load(path, parse_psk)


def _load(path: str | Path, parse: Callable[[str], _T]) -> _T:
    """Parse the one line of a secret file, and put the file's name before the message of a refusal."""
    try:
        text = only_line(path, read_secret_file(path))
    except KeyFileError:
        text = _public_line(path)
        if not text:
            raise
    try:
        return parse(text)
    except KeyFileError as exc:
        raise KeyFileError(f"{path}: {exc.what}", remedy=exc.remedy) from None


def _public_line(path: str | Path) -> str:
    """The public key in a file that is no secret file; empty where there is none. Its mode is not what is wrong with it."""
    try:
        with open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK)) as file:
            text = file.read(_SHORT).decode("utf-8-sig", "replace").strip()
    except (OSError, ValueError):
        return ""
    return text if text.startswith(PUBLIC_PREFIX) and "\n" not in text else ""


def only_line(path: str | Path, content: bytes, *, kind: str = "key") -> str:
    """The only line of a small file, blank lines and comments left out.

    Args:
        path: name of the file, for messages.
        content: content of the file.
        kind: "key" or "token", for messages.

    Raises:
        KeyFileError: the file has no such line, or several.
    """
    lines = [line.strip() for line in content.decode("utf-8-sig", "replace").splitlines()]
    lines = [line for line in lines if line and not line.startswith("#")]
    if len(lines) != 1:
        found = f"no {kind}" if not lines else f"{len(lines)} lines"
        raise KeyFileError(f"{path} holds {found} where one {kind} belongs", remedy=MAKE_REMEDY[kind].format(path="FILE"))
    return lines[0]
