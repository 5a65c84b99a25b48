"""Write new files and folders: whole or not at all, and synced to disk.

Invariants:
- Nothing that exists is overwritten. `replace_file` is the one exception.
- A secret file has mode 0600 from its first moment, whatever the umask.
- After a failure, no partial file or folder stays behind.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from stcp_proxy.errors import KeyFileError
from stcp_proxy.keys.secret_file import check_file_name

SECRET: Final = 0o600
PUBLIC: Final = 0o644


def write_secret_file(path: str | Path, text: str) -> None:
    """Write a new file that only its owner can read, and sync it to disk.

    Args:
        path: name of the new file.
        text: the whole content.

    Raises:
        KeyFileError: the file exists or cannot be written. No partial file stays behind.
    """
    check_file_name(path)
    path = Path(path)
    try:
        fd = _create(path, SECRET)
    except FileExistsError:
        raise KeyFileError(f"{path} exists, and a key file is never overwritten", remedy="choose another name") from None
    except OSError as exc:
        raise KeyFileError(f"cannot create {path}: {exc.strerror}", remedy="choose a folder that you can write to") from None
    try:
        _fill(path, fd, text, SECRET)
        _sync_folder(path.parent)
    except OSError as exc:
        path.unlink(missing_ok=True)
        raise _not_written(path, exc) from None


def replace_file(path: str | Path, text: str) -> None:
    """Write a file that everybody may read. A reader finds the old content or the new content, never a part.

    Args:
        path: name of the file; it may exist.
        text: the whole content.

    Raises:
        KeyFileError: the file cannot be written; the old one is unchanged.
    """
    path = Path(path)
    try:
        fd, new = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    except OSError as exc:
        raise _not_written(path, exc) from None
    try:
        _fill(Path(new), fd, text, PUBLIC)
        os.replace(new, path)
        _sync_folder(path.parent)
    except OSError as exc:
        Path(new).unlink(missing_ok=True)
        raise _not_written(path, exc) from None


def write_folder(path: str | Path, files: Mapping[str, tuple[str, int]]) -> None:
    """Write a new folder with files in it, which appear together.

    Args:
        path: name of the folder; an empty folder may exist there.
        files: content and mode of each file, by its name.

    Raises:
        KeyFileError: the folder is not empty or cannot be written. Nothing was changed.
    """
    check_file_name(path)
    path = Path(os.path.abspath(path))
    folder: Path | None = None
    try:
        folder = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
        for name, (text, mode) in files.items():
            _fill(folder / name, _create(folder / name, mode), text, mode)
        _sync_folder(folder)
        os.rename(folder, path)
        _sync_folder(path.parent)
    except OSError as exc:
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)
        if exc.errno in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR) and os.path.lexists(path):
            what = f"{path} exists, and nothing in it is overwritten"
            raise KeyFileError(what, remedy="choose another name") from None
        raise _not_written(path, exc) from None


def _create(path: Path, mode: int) -> int:
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, mode)


def _fill(path: Path, fd: int, text: str, mode: int) -> None:
    """Write and sync a new file, and close its descriptor. Remove the file on a failure."""
    try:
        with open(fd, "w", encoding="ascii") as file:
            os.fchmod(fd, mode)  # the umask may have removed bits
            file.write(text)
            file.flush()
            os.fsync(fd)
    except OSError:
        with contextlib.suppress(OSError):
            path.unlink()
        raise


def _sync_folder(folder: Path) -> None:
    """Sync `folder`, so that a new file in it survives a power failure."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    except OSError as exc:
        if exc.errno != errno.EINVAL:  # the file system cannot sync a directory
            raise
    finally:
        os.close(fd)


def _not_written(path: Path, exc: OSError) -> KeyFileError:
    room = exc.errno in (errno.ENOSPC, errno.EDQUOT)
    remedy = "make room for it and try again" if room else "choose a folder that exists and that you can write to"
    return KeyFileError(f"cannot write {path}: {exc.strerror}", remedy=remedy)
