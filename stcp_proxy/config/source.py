"""Plain data of a configuration, where each part of it stands, and the mistakes found in it.

A `Source` locates a mistake by file, line and key path, or by the flag.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from stcp_proxy.errors import ConfigError
from stcp_proxy.redact import shown

KeyPath = tuple[str | int, ...]


@dataclass(frozen=True, slots=True)
class Finding:
    """One mistake.

    Attributes:
        where: `file:line: key.path`, or the flag; empty where it is about no part in particular.
        what: what is wrong.
        remedy: what to do about it, or None.
    """

    where: str
    what: str
    remedy: str | None = None

    def __str__(self) -> str:
        text = f"{self.where}: {self.what}" if self.where else self.what
        return f"{text}; {self.remedy}" if self.remedy else text


class ConfigProblems(ConfigError):
    """All the mistakes that were found, one line each."""

    def __init__(self, name: str, findings: Sequence[Finding]) -> None:
        self.findings = tuple(findings)
        if len(findings) == 1:
            super().__init__(str(findings[0]))
        else:
            super().__init__("\n  ".join([f"{len(findings)} mistakes in {name}", *map(str, findings)]))


@dataclass(slots=True)
class Source:
    """Plain data, and where each part of it stands.

    Attributes:
        name: of the file, or words for the command line.
        data: mappings with text keys, lists, and scalars.
        base: relative paths are relative to this.
        where: the text of a place, by key path.
        key: how a setting is called there, by its key: in quotes, or as a flag.
        from_flags: whether the data are a command line's, which has no names for peers but its own.
        whole: whether a file ends with a mark that says that nothing was cut off.
        findings: mistakes so far.
    """

    name: str
    data: Any
    base: Path
    where: Callable[[KeyPath], str]
    key: Callable[[str], str] = repr
    from_flags: bool = False
    whole: bool = False
    findings: list[Finding] = field(default_factory=list)

    def report(self, path: KeyPath, what: str, remedy: str | None = None) -> None:
        """Note a mistake at `path`."""
        self.findings.append(Finding(self.where(self._trim(path)), what, remedy))

    def value_at(self, path: KeyPath) -> Any:
        """The value at `path`; None where there is none."""
        value = self.data
        for step in self._trim(path):
            if isinstance(value, dict):
                value = value.get(step)
            elif isinstance(value, list) and isinstance(step, int) and step < len(value):
                value = value[step]
            else:
                return None
        return value

    def blame(self, path: KeyPath, error: ConfigError) -> None:
        """Note a mistake that something else found in the value at `path`."""
        self.report(path, error.what, error.remedy)

    def raise_findings(self) -> None:
        """Raise ConfigProblems if there is any mistake so far."""
        if self.findings:
            raise ConfigProblems(self.name, list(dict.fromkeys(self.findings)))

    def _trim(self, path: KeyPath) -> KeyPath:
        """Drop what is behind a value that was written alone: taken as a list of one, or for the one key that had to be there."""
        value = self.data
        for depth, step in enumerate(path):
            if isinstance(step, int) and not isinstance(value, list):
                return path[:depth]
            if isinstance(step, str) and isinstance(value, str | list):
                return path[:depth]
            value = value.get(step) if isinstance(value, dict) else value[step] if isinstance(step, int) else None
        return path


def dotted(path: KeyPath) -> str:
    """`tunnels.postgres.to[1]`, with nothing in it that may be a key."""
    text = ""
    for step in path:
        if isinstance(step, int):
            text += f"[{step}]"
        else:
            name = step if re.fullmatch(r"[A-Za-z0-9._-]{1,39}", step) else shown(step)
            text += f".{name}" if text else name
    return text
