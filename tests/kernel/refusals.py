"""Refusals of the module: an expected errno, and the refusal of disconnect."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import socket
from collections.abc import Iterator

import pytest


@contextlib.contextmanager
def refused(number: int) -> Iterator[None]:
    with pytest.raises(OSError, match=r"\[Errno") as caught:
        yield
    assert errno.errorcode[caught.value.errno or 0] == errno.errorcode[number]


def protocol_is_asked() -> bool:
    """Whether the socket layer leaves options of SOL_SOCKET to the protocol: since Linux 6.4."""
    major, minor = os.uname().release.split(".")[:2]
    return (int(major), int(minor)) >= (6, 4)


def disconnect(sock: socket.socket) -> None:
    """connect(AF_UNSPEC) would make a fresh socket out of a connected one."""
    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.connect(sock.fileno(), bytes(16), 16) == -1
    assert ctypes.get_errno() == errno.EBUSY
