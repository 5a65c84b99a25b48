"""Listening unix sockets, and the files that they have.

The file of a unix socket outlives the program that made it. A stale file is replaced; the file of a socket that is still bound
never is, whether that socket listens already or not.

A new file has mode 0600 or a wider one, and has it before anybody can connect: on Linux, fchmod on the unbound socket decides it,
without touching the process's umask. It is unlinked *before* its socket is closed, so that no other program can take it for stale
and bind there in between.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import stat
import weakref
from collections.abc import Iterable
from typing import Final

from stcp_proxy.errors import ConfigError

UNIX_MODE: Final = 0o600
"""Mode of a socket's file. Whoever may write to the file may connect: only the user who made it."""

_inodes: weakref.WeakKeyDictionary[socket.socket, tuple[int, int]] = weakref.WeakKeyDictionary()
"""Device and inode of each file as it was made here: no other file is ours to unlink."""


def listen_unix(path: str, backlog: int, mode: int = UNIX_MODE) -> socket.socket:
    """A listening, non-blocking unix socket.

    Args:
        path: absolute path of its file.
        backlog: connections that may wait to be accepted.
        mode: permission bits of the file.

    Raises:
        ConfigError: the path is in use, or is no socket.
        OSError: the system refuses.
    """
    _remove_stale(path)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        os.fchmod(sock.fileno(), mode)
        sock.bind(path)
        made = os.lstat(path)
        _inodes[sock] = (made.st_dev, made.st_ino)
        if stat.S_IMODE(made.st_mode) != mode:
            _set_mode(path, made, mode)  # bind() removes the bits of the umask
        sock.listen(backlog)
    except BaseException:
        close_unix(sock)
        raise
    return sock


def close_unix(sock: socket.socket) -> None:
    """Remove the socket's file, if it is still the one made here, and close the socket."""
    inode = _inodes.pop(sock, None)
    if inode is not None:
        _unlink(sock.getsockname(), inode)
    sock.close()


def forget_file(listeners: Iterable[socket.socket]) -> None:
    """Leave the files of these sockets to another process: closing the sockets here does not remove them."""
    for sock in listeners:
        _inodes.pop(sock, None)


def change_mode(listeners: Iterable[socket.socket], mode: int) -> None:
    """Change the mode of the files of those unix sockets that were made here and are still in place."""
    for sock in listeners:
        inode = _inodes.get(sock)
        if inode is not None:
            path = sock.getsockname()
            with contextlib.suppress(OSError):
                found = os.lstat(path)
                if (found.st_dev, found.st_ino) == inode:
                    _set_mode(path, found, mode)


def is_bound(path: str) -> bool | None:
    """Whether a socket of any program is bound to the file at `path`, listening or not.

    A datagram socket asks: it is told apart from a missing socket (ECONNREFUSED) even where it cannot connect (EPROTOTYPE). So a
    socket that does not listen yet is found, and no connection arrives at one that does.

    Returns:
        None where the system does not tell, for want of permission as a rule.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as probe:
        status = probe.connect_ex(path)
    if status in (errno.ECONNREFUSED, errno.ENOENT):
        return False
    return True if status in (0, errno.EPROTOTYPE, errno.EAGAIN) else None


def _remove_stale(path: str) -> None:
    """Unlink a stale socket at `path`.

    Raises:
        ConfigError: something else is there.
    """
    try:
        found = os.lstat(path)
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(found.st_mode):
        raise ConfigError(f"{path} exists and is not a socket", remedy="remove it, or choose another path")
    bound = is_bound(path)
    if bound is None:
        what = f"unix:{path} exists, and user {os.geteuid()} may not find out whether a program uses it"
        raise ConfigError(what, remedy="remove it if no program uses it, or choose another path")
    if bound:
        raise ConfigError(f"another program has bound unix:{path}", remedy="stop that program, or choose another path")
    _unlink(path, (found.st_dev, found.st_ino))


def _set_mode(path: str, made: os.stat_result, mode: int) -> None:
    """Set the mode of the file that `made` describes, and of no other that may stand at `path` by now."""
    fd = os.open(path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        found = os.fstat(fd)
        if stat.S_ISSOCK(found.st_mode) and (found.st_dev, found.st_ino) == (made.st_dev, made.st_ino):
            os.chmod(f"/proc/self/fd/{fd}", mode)
    finally:
        os.close(fd)


def _unlink(path: str, inode: tuple[int, int]) -> None:
    with contextlib.suppress(OSError):
        found = os.lstat(path)
        if (found.st_dev, found.st_ino) == inode:
            os.unlink(path)
