"""Seeds: one text file for each fuzzer, an input a line in base64. So the repository has a dozen small files, not thousands."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import Final

MOST_BYTES: Final = 60_000
"""Size of one file of seeds; together they stay far below a megabyte."""


def read_seeds(file: Path) -> list[bytes]:
    """The inputs of a file of seeds; an empty list without a file."""
    if not file.exists():
        return []
    return [base64.b64decode(line) for line in file.read_text(encoding="ascii").splitlines()]


def write_seeds(file: Path, inputs: Iterable[bytes]) -> int:
    """Write inputs, the shortest first, until the file is full. Returns the number of inputs."""
    lines: list[str] = []
    size = 0
    for data in sorted(set(inputs), key=lambda data: (len(data), data)):
        line = base64.b64encode(data).decode()
        size += len(line) + 1
        if size > MOST_BYTES:
            break
        lines.append(line + "\n")
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(lines), encoding="ascii")
    return len(lines)


def unpack(inputs: Iterable[bytes], folder: Path) -> None:
    """Write each input to a file of its own, named by its content as libFuzzer does."""
    folder.mkdir(parents=True, exist_ok=True)
    for data in inputs:
        (folder / hashlib.sha1(data, usedforsecurity=False).hexdigest()).write_bytes(data)
