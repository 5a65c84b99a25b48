"""One kind of tunnel that the benchmark compares, and the place where a pair of it runs."""

from __future__ import annotations

import enum
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path


class Role(enum.StrEnum):
    OURS = "this project"
    TLS = "TLS peer"
    PEER = "peer"
    YARDSTICK = "yardstick"


@dataclass(frozen=True, slots=True)
class Place:
    """The place of a pair: a folder for its files, and its ports on 127.0.0.1."""

    folder: Path
    entry: int
    wire: int
    target: int

    def write(self, name: str, text: str) -> str:
        """Write a configuration file. Returns its path."""
        path = self.folder / name
        path.write_text(text)
        return str(path)


Commands = dict[str, Sequence[str]]


@dataclass(frozen=True, slots=True)
class Peer:
    """One kind of tunnel.

    Attributes:
        name: its name for `--peers`.
        missing: the reason why it cannot be measured on this machine, or None.
        set_up: writes its files and returns the commands by side; None means no proxy.
        version: the version in use, as text.
        on_request: whether it is measured only when the user names it.
    """

    name: str
    title: str
    role: Role
    missing: Callable[[], str | None]
    set_up: Callable[[Place], Commands] | None
    version: Callable[[], str]
    on_request: bool = False
