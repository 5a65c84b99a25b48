"""One kind of tunnel that the benchmark compares, and the place where a pair of it runs."""

from __future__ import annotations

import enum
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from stcp_proxy.lab.bench.rows import Kind, Row


class Role(enum.StrEnum):
    """What a pair is compared as. A yardstick does not encrypt."""

    OURS = "this project"
    TLS = "TLS peer"
    PEER = "peer"
    YARDSTICK = "yardstick"


@dataclass(frozen=True, slots=True)
class Place:
    """The place of a pair: a folder for its files, and its ports on 127.0.0.1.

    Attributes:
        folder: the folder, as the programs of the pair see it.
        entry: where the connect side accepts.
        wire: where the listen side accepts.
        target: the server.
        path: where a path with delay to `wire` begins; None without one.
        root: the root file system of the programs.
    """

    folder: Path
    entry: int
    wire: int
    target: int
    path: int | None = None
    root: Path = Path("/")

    @property
    def dial(self) -> int:
        """Where the connect side dials."""
        return self.wire if self.path is None else self.path

    @property
    def here(self) -> Path:
        """The folder, as this process sees it."""
        return self.root / self.folder.relative_to("/")

    def write(self, name: str, text: str) -> str:
        """Write a configuration file. Returns its path, as the programs of the pair see it."""
        (self.here / name).write_text(text)
        return str(self.folder / name)


Commands = dict[str, Sequence[str]]
"""Program and arguments by side, "listen" and "connect"."""


@dataclass(frozen=True, slots=True)
class Peer:
    """One kind of tunnel.

    Attributes:
        name: its name for `--peers`.
        title: its name in tables.
        missing: the reason why it cannot be measured on this machine, or None.
        set_up: writes its files and returns the commands by side; None means no proxy.
        version: the version in use, as text.
        on_request: whether it is measured only when the user names it.
        kinds: the kinds of rows that it is measured in; None for all.
        resumes: whether a later connection of a TLS peer resumes the session of an earlier one.
        root: the root file system of its programs.
    """

    name: str
    title: str
    role: Role
    missing: Callable[[], str | None]
    set_up: Callable[[Place], Commands] | None
    version: Callable[[], str]
    on_request: bool = False
    kinds: frozenset[Kind] | None = None
    resumes: bool = False
    root: Path = Path("/")

    def measures(self, row: Row) -> bool:
        """Whether it is measured in a row."""
        return self.kinds is None or row.kind in self.kinds


def available_ulps() -> list[str]:
    """The upper layer protocols of TCP that this kernel has loaded: `stcp`, `tls`."""
    try:
        return Path("/proc/sys/net/ipv4/tcp_available_ulp").read_text().split()
    except OSError:
        return []
