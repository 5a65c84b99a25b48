"""Drivers of ciphers that any user can have the kernel make, and that the kernel prefers from then on."""

from __future__ import annotations

import contextlib
import ctypes
import socket
import struct
from pathlib import Path

import pytest

from .peer import Relay


def drivers() -> dict[str, int]:
    """Users of each driver of the kernel's ciphers, by its name (/proc/crypto)."""
    found, name = {}, ""
    for line in Path("/proc/crypto").read_text().splitlines():
        field, _, value = (part.strip() for part in line.partition(":"))
        if field == "driver":
            name = value
        elif field == "refcnt":
            found[name] = int(value)
    return found


def make_driver(name: str) -> None:
    """Have the kernel make a driver of an AEAD, as any user may. Python takes no name as long as those of nested templates."""
    address = struct.pack("=H14sII", socket.AF_ALG, b"aead", 0, 0) + name.encode() + b"\0"
    with socket.socket(socket.AF_ALG, socket.SOCK_SEQPACKET) as user:
        # It is made, although bind() may not find it by this name.
        ctypes.CDLL(None).bind(user.fileno(), address, len(address))


QUEUED_INSIDE = "gcm_base(cryptd(ctr(aes-generic)),ghash-generic)"


@pytest.mark.parametrize("name", ["pcrypt(gcm(aes))", QUEUED_INSIDE, "pcrypt(" * 5 + QUEUED_INSIDE + ")" * 5])
def test_a_cipher_that_a_user_has_made_serves_nobody_else(name: str) -> None:
    """Any user may have the kernel make one that queues the requests of everybody, and the kernel prefers it."""
    with contextlib.suppress(OSError):  # without AF_ALG nothing is made
        make_driver(name)
    # The kernel's own drivers keep one of "cryptd(__...)" each, for where the CPU cannot compute at once.
    made = [driver for driver in drivers() if "gcm" in driver and ("pcrypt(" in driver or "cryptd(ctr" in driver)]
    if not made:
        pytest.skip("this kernel has no pcrypt and no cryptd")
    before = drivers()
    relays = [Relay() for _ in range(10)]
    after = drivers()
    assert [driver for driver in made if after[driver] > before[driver]] == []
    for r in relays:
        r.check_alive()
        r.close()
