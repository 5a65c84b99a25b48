"""How a piece of somebody's input appears in a message: quoted, escaped, and never when it may be a key.

A secret pasted into the wrong place must not be carried on into a log by the very message that refuses it.
"""

from __future__ import annotations

import re

_MAX_SHOWN = 120
_KEY_LIKE = re.compile(r"stcp-?(key|psk)|[A-Za-z0-9+/]{40,}", re.IGNORECASE)
_KEY_LIKE_WORD = re.compile(rf"[^\s'\"]*(?:{_KEY_LIKE.pattern})[^\s'\"]*", re.IGNORECASE)


def shown(value: object) -> str:
    """`value` in quotes for a message, or a stand-in when it resembles key material.

    Args:
        value: what the user wrote; anything but text is shown by its repr.
    """
    text = value if isinstance(value, str) else repr(value)
    if _KEY_LIKE.search(text):
        return "(not shown, it may be a key)"
    if len(text) > _MAX_SHOWN:
        text = text[:_MAX_SHOWN] + "…"
    return f"'{printable(text)}'" if isinstance(value, str) else printable(text)


def without_keys(text: str) -> str:
    """Another program's words about somebody's input, printable and with an ellipsis for all that may be a key."""
    return printable(_KEY_LIKE_WORD.sub("…", text))


def printable(text: str) -> str:
    """`text` with its control characters escaped, so that it cannot forge a line."""
    return "".join(ch if ch.isprintable() else repr(ch)[1:-1] for ch in text)
