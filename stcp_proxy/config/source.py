"""Plain data of a configuration, the place of each part, and the mistakes in it.

A `Source` locates a mistake by file, line and key path, or by the flag.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from stcp_proxy.config.inputs import digest
from stcp_proxy.errors import ConfigError
from stcp_proxy.redact import shown

KeyPath = tuple[str | int, ...]


@dataclass(frozen=True, slots=True)
class Finding:
    """One mistake.

    Attributes:
        where: `file:line: key.path`, or the flag; empty for a mistake without a place.
        what: the mistake.
        remedy: the instruction that corrects it, or None.
    """

    where: str
    what: str
    remedy: str | None = None

    def __str__(self) -> str:
        text = f"{self.where}: {self.what}" if self.where else self.what
        return f"{text}; {self.remedy}" if self.remedy else text


class ConfigProblems(ConfigError):
    """All mistakes of a configuration, one line each."""

    def __init__(self, name: str, findings: Sequence[Finding]) -> None:
        self.findings = tuple(findings)
        if len(findings) == 1:
            super().__init__(str(findings[0]))
        else:
            super().__init__("\n  ".join([f"{len(findings)} mistakes in {name}", *map(str, findings)]))


@dataclass(slots=True)
class Source:
    """Plain data, and the place of each part.

    Attributes:
        name: the name of the file, or words for the command line.
        data: mappings with text keys, lists, and scalars.
        base: the folder for relative paths.
        where: returns the text of a place from a key path.
        key: returns the name of a setting from its key: in quotes, or as a flag.
        from_flags: whether the data are from a command line, where `peers` has generated names only.
        whole: whether a file ends with a mark that proves that nothing was cut off.
        findings: mistakes so far.
        inputs: digests of the files that the configuration is made of, by path. A digest is taken before its file is read: so a
            later change is noticed.
    """

    name: str
    data: Any
    base: Path
    where: Callable[[KeyPath], str]
    key: Callable[[str], str] = repr
    from_flags: bool = False
    whole: bool = False
    findings: list[Finding] = field(default_factory=list)
    inputs: dict[str, bytes] = field(default_factory=dict)

    def file(self, name: str) -> Path:
        """The path of a file or directory that the data name. Call this before reading it: it becomes an input."""
        path = self.base / name
        key = os.path.abspath(path)
        if key not in self.inputs:
            self.inputs[key] = digest(path)
        return path

    def report(self, path: KeyPath, what: str, remedy: str | None = None) -> None:
        """Note a mistake at `path`."""
        self.findings.append(Finding(self.where(self._trim(path)), what, remedy))

    def value_at(self, path: KeyPath) -> Any:
        """The value at `path`; None where no value is."""
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
        """Note a mistake from a different check of the value at `path`."""
        self.report(path, error.what, error.remedy)

    def raise_findings(self) -> None:
        """Raise ConfigProblems if any mistake has been noted."""
        if self.findings:
            raise ConfigProblems(self.name, list(dict.fromkeys(self.findings)))

    def _trim(self, path: KeyPath) -> KeyPath:
        """Cut a path at a scalar: the user wrote one value in place of a list or of a mapping with one required key."""
        value = self.data
        for depth, step in enumerate(path):
            if isinstance(step, int) and not isinstance(value, list):
                return path[:depth]
            if isinstance(step, str) and isinstance(value, str | list):
                return path[:depth]
            value = value.get(step) if isinstance(value, dict) else value[step] if isinstance(step, int) else None
        return path


def dotted(path: KeyPath) -> str:
    """Format a key path as `tunnels.postgres.to[1]`. A part that looks like a key is not shown."""
    text = ""
    for step in path:
        if isinstance(step, int):
            text += f"[{step}]"
        else:
            name = step if re.fullmatch(r"[A-Za-z0-9._-]{1,39}", step) else shown(step)
            text += f".{name}" if text else name
    return text
