"""Which users may change a configuration file. Such a user decides what a privileged command does with the file."""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Collection
from pathlib import Path
from typing import Final

from stcp_proxy.errors import ConfigError
from stcp_proxy.redact import printable, shown

_HOST_FOLDERS: Final = frozenset({"/", "/etc", "/home", "/opt", "/root", "/run", "/srv", "/usr", "/usr/local", "/var"})
"""Mount points of the host itself."""


def check_owner(path: str | Path, users: Collection[int]) -> None:
    """Refuse a file that other users can change or replace.

    Args:
        path: the path of the file.
        users: ids of allowed owners besides root and this process's user.

    Raises:
        ConfigError: another user owns it, or other users can change it; `open_to_others` gives the reason.
    """
    problem = open_to_others(path)
    owner = os.stat(path).st_uid
    if problem is None and not is_mounted_read_only(Path(path).resolve()) and owner not in {0, os.geteuid(), *users}:
        problem = f"user {owner} owns it"
    if problem is not None:
        what = f"{shown(str(path))} decides what this command does as root, and others can change it: {problem}"
        raise ConfigError(what, remedy="let root or the proxy's user own it and its folder, and nobody else write to them")


def is_mounted_read_only(file: Path) -> bool:
    """Whether a file was mounted into this container read-only. Then the user who started the container decides its content.

    A file system that is read-only for this process alone, as under systemd's ProtectSystem=, is no evidence.
    """
    if not os.statvfs(file).f_flag & os.ST_RDONLY:
        return False
    try:
        lines = Path("/proc/self/mountinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return False
    points = {line.split()[4] for line in lines}
    return any(str(place) in points for place in (file, *file.parents) if str(place) not in _HOST_FOLDERS)


def warn_if_open_to_others(path: str | Path) -> bool:
    """Warn on stderr of a file that other users can change. Returns whether it did."""
    problem = open_to_others(path)
    if problem is not None:
        sys.stderr.write(f"warning: others can change {printable(str(path))}: {problem}; remove that permission\n")
    return problem is not None


def warn_if_others_add_files(folder: Path) -> bool:
    """Warn on stderr of a directory to which other users can add files. Returns whether it did.

    The sticky bit protects existing files. It does not keep other users from adding a file.
    """
    try:
        mode = os.stat(folder).st_mode
        if not mode & (stat.S_IWGRP | stat.S_IWOTH) or is_mounted_read_only(folder.resolve()):
            return False
    except OSError:
        return False
    problem = f"its mode is {stat.S_IMODE(mode):04o}"
    sys.stderr.write(f"warning: others can add files to {printable(str(folder))}: {problem}; remove that permission\n")
    return True


def open_to_others(path: str | Path) -> str | None:
    """The reason why users besides the owner can change a file; None when they cannot, or when the file is missing."""
    file = Path(path).resolve()
    try:
        if is_mounted_read_only(file):
            return None
        mode, folder = os.stat(file).st_mode, os.stat(file.parent).st_mode
    except OSError:
        return None
    if not stat.S_ISREG(mode):
        return None
    if mode & (stat.S_IWGRP | stat.S_IWOTH):
        return f"its mode is {stat.S_IMODE(mode):04o}"
    if folder & stat.S_IWOTH and not folder & stat.S_ISVTX:
        return f"everybody can write to its folder, whose mode is {stat.S_IMODE(folder):04o}"
    return None
