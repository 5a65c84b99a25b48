"""The token of the admin address: its only protection when it can be reached from the network."""

from __future__ import annotations

import hmac
import re
from pathlib import Path
from typing import Final, NoReturn

from stcp_proxy.errors import KeyFileError
from stcp_proxy.keys import only_line, read_secret_file

MIN_TOKEN: Final = 16
MAX_TOKEN: Final = 512
_TOKEN: Final = re.compile(r"[A-Za-z0-9._~+/-]+=*")
"""Characters allowed after `Bearer` (RFC 6750). Key texts contain a colon, so a key never matches."""


class Token:
    """A bearer token: redacted repr, constant-time comparison, no pickling.

    Args:
        text: the token.
    """

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text: Final = text

    def matches(self, other: str) -> bool:
        """Whether `other` is this token."""
        return hmac.compare_digest(self._text.encode(), other.encode("utf-8", "replace"))

    def reveal(self) -> str:
        """The text: for the header of a request, never for a message."""
        return self._text

    def __repr__(self) -> str:
        return "Token(…)"

    __str__ = __repr__

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Token) and self.matches(other._text)

    def __hash__(self) -> int:
        raise TypeError("a token is not a dictionary key")

    def __reduce__(self) -> NoReturn:
        raise TypeError("a token is not pickled")


def load_token(path: str | Path) -> Token:
    """Read the token from a file: one line, in a file that only its owner can read.

    Raises:
        KeyFileError: the file is missing, malformed, open to other users, or owned by another user.
    """
    text = only_line(path, read_secret_file(path, kind="token"), kind="token")
    if not MIN_TOKEN <= len(text) <= MAX_TOKEN or not _TOKEN.fullmatch(text):
        raise KeyFileError(
            f"{path} does not hold a token, which has {MIN_TOKEN} to {MAX_TOKEN} letters, digits and - . _ ~ + / =",
            remedy=f"make one with '(umask 077; openssl rand -hex 32 >{path})'",
        )
    return Token(text)
