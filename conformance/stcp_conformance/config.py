"""The file that describes an implementation: how it is started, what it is told, and what it offers (README.md)."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, field
from pathlib import Path

ROLES = ("responder", "initiator")
PARTS = frozenset({"attribute-limit", "keep", "ready", "services"})
"""Parts of the protocol that an implementation may leave out."""


@dataclass(frozen=True)
class Program:
    """How one role of the implementation is started.

    Attributes:
        role: responder or initiator.
        command: the command with placeholders, one argument each.
        files: the files to write before it, by name, with placeholders.
        environment: variables that are added to the environment.
    """

    role: str
    command: list[str]
    files: dict[str, str] = field(default_factory=dict)
    environment: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Implementation:
    """What the file says.

    Attributes:
        name: its name for the report.
        suites: the suites that it has. The first one carries all cases that are not about a suite.
        offers: the optional parts that it has.
        programs: one for each role.
        words: further placeholders, by suite.
        seconds: limit of each wait for the implementation.
        here: the folder of the file.
    """

    name: str
    suites: list[int]
    offers: frozenset[str]
    programs: dict[str, Program]
    words: dict[int, dict[str, str]]
    seconds: float
    here: Path


def read(path: Path, words: dict[str, str] | None = None) -> Implementation:
    """Read the file.

    Args:
        path: the file.
        words: further placeholders, for every suite.

    Raises:
        ValueError: it is not valid.
    """
    try:
        found = tomllib.loads(path.read_text(encoding="utf-8"))
        programs = {role: Program(role, **found[role]) for role in ROLES if role in found}
        own: dict[str, dict[str, str]] = found.get("words", {})
        implementation = Implementation(
            name=found["name"],
            suites=found["suites"],
            offers=frozenset(found.get("offers", ())),
            programs=programs,
            words={number: own.get(str(number), {}) | (words or {}) for number in found["suites"]},
            seconds=float(found.get("seconds", 5)),
            here=path.resolve().parent,
        )
    except (KeyError, TypeError) as exc:
        raise ValueError(f"{path}: {exc}") from exc
    if unknown := implementation.offers - PARTS:
        raise ValueError(f"{path}: offers: {', '.join(sorted(unknown))} is none of {', '.join(sorted(PARTS))}")
    return implementation
