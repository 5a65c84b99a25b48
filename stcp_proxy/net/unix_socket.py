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

_files: weakref.WeakKeyDictionary[socket.socket, tuple[int, int]] = weakref.WeakKeyDictionary()
"""Device and inode of the file of each socket. While the socket is open the kernel gives that inode to no other file."""
_ours: weakref.WeakSet[socket.socket] = weakref.WeakSet()
"""The sockets whose file was made here and is unlinked here: no other file is."""


def listen_unix(path: str, backlog: int, mode: int = UNIX_MODE, *, kind: int = socket.SOCK_STREAM) -> socket.socket:
    """A listening, non-blocking unix socket.

    Args:
        path: absolute path of its file.
        backlog: connections that may wait to be accepted.
        mode: permission bits of the file.
        kind: its type, SOCK_STREAM or SOCK_SEQPACKET.

    Raises:
        ConfigError: the path is in use, or is no socket.
        OSError: the system refuses.
    """
    _remove_stale(path)
    sock = socket.socket(socket.AF_UNIX, kind | socket.SOCK_NONBLOCK)
    try:
        os.fchmod(sock.fileno(), mode)
        sock.bind(path)
        made = os.lstat(path)
        _files[sock] = (made.st_dev, made.st_ino)
        _ours.add(sock)
        if stat.S_IMODE(made.st_mode) != mode:
            _set_mode(path, made, mode)  # bind() removes the bits of the umask
        sock.listen(backlog)
    except BaseException:
        close_unix(sock)
        raise
    return sock


def close_unix(sock: socket.socket) -> None:
    """Remove the socket's file, if it is still the one made here, and close the socket."""
    inode = _files.pop(sock, None)
    if inode is not None and sock in _ours:
        _unlink(sock.getsockname(), inode)
    _ours.discard(sock)
    sock.close()


def remember_file(sock: socket.socket) -> None:
    """Note which file a socket has that another process made, for `in_place`."""
    if sock.family == socket.AF_UNIX and sock not in _files:
        with contextlib.suppress(OSError, ValueError):
            found = os.lstat(sock.getsockname())
            _files[sock] = (found.st_dev, found.st_ino)


def in_place(sock: socket.socket) -> bool:
    """Whether the path of a listening socket still leads to it: not where its file was removed or replaced.

    A TCP socket needs no file. Neither does a unix socket whose file nobody has noted.
    """
    inode = _files.get(sock)
    if inode is None:
        return True
    try:
        found = os.lstat(sock.getsockname())
    except OSError as exc:
        return exc.errno not in (errno.ENOENT, errno.ENOTDIR)
    return (found.st_dev, found.st_ino) == inode


def forget_file(listeners: Iterable[socket.socket]) -> None:
    """Leave the files of these sockets to another process: closing the sockets here does not remove them."""
    for sock in listeners:
        _ours.discard(sock)


def made_here(sock: socket.socket) -> bool:
    """Whether closing the socket by `close_unix` removes its file."""
    return sock in _ours


def inode_of(sock: socket.socket) -> int:
    """The number by which the kernel knows a socket: the same for every descriptor of it."""
    return os.fstat(sock.fileno()).st_ino


def adopt_file(sock: socket.socket) -> None:
    """Remove the file of a unix socket that another process made and has given up, as if it had been made here."""
    remember_file(sock)
    if sock in _files:
        _ours.add(sock)


def change_mode(listeners: Iterable[socket.socket], mode: int) -> None:
    """Change the mode of the files of those unix sockets that were made here and are still in place."""
    for sock in listeners:
        inode = _files.get(sock) if sock in _ours else None
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
