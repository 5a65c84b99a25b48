"""The files that a configuration is made of, by the digest of their content.

A running proxy with `watch` compares these digests again and again. It compares the content and not the time of the last change:
a file may be replaced through a symbolic link, and clocks of file systems are coarse.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Final

PEER_SUFFIX: Final = ".pub"
"""The end of the name of a peer file. Other files in a peer directory are ignored."""
_CHUNK: Final = 256 * 1024
_FLAGS: Final = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC


def digest(path: str | Path) -> bytes:
    """The digest of a file, or of all peer files in a directory; empty when it cannot be read.

    Symbolic links are followed.
    """
    path = os.fspath(path)
    try:
        if not os.path.isdir(path):
            return _of_file(path)
        found = hashlib.sha256()
        for name in peer_files(path):
            found.update(name.encode("utf-8", "surrogateescape") + b"\0")
            found.update(_of_file(os.path.join(path, name)))
        return found.digest()
    except (OSError, ValueError):
        return b""


def peer_files(folder: str | Path) -> list[str]:
    """The names of the peer files in a directory, in order. Hidden files are left out.

    Raises:
        OSError: the directory cannot be read.
    """
    return sorted(name for name in os.listdir(folder) if name.endswith(PEER_SUFFIX) and not name.startswith("."))


def changed(inputs: Mapping[str, bytes]) -> dict[str, bytes]:
    """The files whose content differs now, with their digests now.

    Args:
        inputs: digests by path.
    """
    now = {path: digest(path) for path in inputs}
    return {path: found for path, found in now.items() if found != inputs[path]}


def _of_file(path: str) -> bytes:
    fd = os.open(path, _FLAGS)
    with open(fd, "rb", buffering=0) as file:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            return b""
        found = hashlib.sha256()
        while chunk := file.read(_CHUNK):
            found.update(chunk)
        return found.digest()
