"""What a shell is told to complete with: `stcp-proxy --install-completion` for bash, zsh and fish.

Values that are offered are those that the help names; whether one is right is the configuration's models' to say. Files are the
shell's own to complete: it is given nothing, and falls back to them.
"""

from __future__ import annotations

from collections.abc import Callable, MutableMapping
from typing import Final

_HOW: Final = "_STCP_PROXY_COMPLETE"
Completion = Callable[[str], list[str]]


def files(incomplete: str) -> list[str]:
    """For a parameter that takes a file: nothing, so that the shell completes files."""
    return []


def words(*values: str) -> Completion:
    """For a parameter that takes one of these; without any, nothing is offered."""

    def complete(incomplete: str) -> list[str]:
        return [value for value in values if value.startswith(incomplete)]

    return complete


def of(metavar: str) -> Completion | None:
    """For a parameter by what the help calls its value: FILE and CONFIG, or the values themselves as `this|that`."""
    if metavar in ("FILE", "CONFIG"):
        return files
    return words(*metavar.split("|")) if "|" in metavar else None


def mend(environ: MutableMapping[str, str]) -> None:
    """Undo what bash does to `--name=value`: it hands over three words, and the value belongs to the option before it.

    Args:
        environ: of this process; changed where bash asks it for a completion.
    """
    if environ.get(_HOW) != "complete_bash":
        return
    given, at = environ.get("COMP_WORDS", "").split("\n"), environ.get("COMP_CWORD", "")
    if not at.isdecimal():
        return
    current = int(at)
    kept: list[str] = []
    for index, word in enumerate(given):
        joined = word == "=" and index > 0 and given[index - 1].startswith("--")
        if not joined:
            kept.append(word)
        elif index == current:
            kept.append("")
        elif index < current:
            at = str(int(at) - 1)
    environ["COMP_WORDS"], environ["COMP_CWORD"] = "\n".join(kept), at
