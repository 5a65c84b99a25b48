"""Keys of sockets of the protocol stand in memory while the connection lives, and nowhere afterwards, whatever became of it."""

from __future__ import annotations

import os
import struct

import pytest

from .netlink_agent import (
    CHANNEL,
    CHANNEL_ID,
    DONE,
    ERROR,
    ID,
    RECEIVE_COUNTER,
    RECEIVE_KEY,
    SEND_COUNTER,
    SEND_KEY,
    Link,
    attribute,
    wait_taken,
)
from .sockets import start, tcp_listener
from .test_memory import HiddenKey, search

WAYS = ("closed", "peer gone", "bad frame", "rekeyed", "refused")


class Keyed:
    """A connected socket with keys of its own, which end in one of the ways there are.

    Attributes:
        keys: those that stand in memory now and must not after `end`.
    """

    def __init__(self, link: Link, way: str) -> None:
        self.way = way
        self.keys = [HiddenKey(), HiddenKey()]
        with tcp_listener() as listener:
            self.app = start(listener)
            taken = wait_taken(link)
            self.peer, _ = listener.accept()
        os.close(taken.fd)
        counter = {"rekeyed": 1 << 20, "refused": (1 << 64) - 1}.get(way, 0)
        self.error = self._done(link, taken.number, counter)
        assert bool(self.error) == (way == "refused")

    def _done(self, link: Link, number: int, counter: int) -> int:
        """DONE in one buffer of ours, which is wiped. Returns the errno."""
        raw = bytearray(20)
        raw += attribute(ID, number, "=Q") + attribute(ERROR, 0, "=i") + attribute(CHANNEL_ID, CHANNEL)
        raw += attribute(SEND_COUNTER, counter, "=Q") + attribute(RECEIVE_COUNTER, 0, "=Q")
        places = []
        for kind in (SEND_KEY, RECEIVE_KEY):
            places.append(len(raw) + 4)
            raw += attribute(kind, bytes(32))
        struct.pack_into("=IHHIIBBH", raw, 0, len(raw), link.family, 5, 7, 0, DONE, 1, 0)
        for key, place in zip(self.keys, places, strict=True):
            key.write_to(raw, place)
        link.sock.send(raw)
        raw[:] = bytes(len(raw))
        while True:
            answer = link.sock.recv(1 << 17)
            if struct.unpack_from("=H", answer, 4)[0] == 2:  # NLMSG_ERROR, 0 is the acknowledgment
                return -int(struct.unpack_from("=i", answer, 16)[0])

    def end(self) -> None:
        if self.way == "rekeyed":
            self.app.setblocking(True)
            self.app.sendall(b"x")
            assert self.peer.recv(100)
            self.keys.pop()  # the other direction's is still in use
            return
        if self.way == "peer gone":
            self.peer.close()
        elif self.way == "bad frame":
            self.peer.sendall(b"\xff" * 4)
        self.app.close()

    def close(self) -> None:
        self.app.close()
        self.peer.close()


@pytest.mark.timeout(600)  # with the checkers a search of 2 GiB takes a minute or two
def test_keys_are_gone_when_the_socket_is(link: Link) -> None:
    sockets = [Keyed(link, way) for way in WAYS]
    living = [key for one in sockets if one.way != "refused" for key in one.keys]
    assert search(living) >= len(living), "the search cannot find what is there"
    for one in sockets:
        one.end()
    keys = [key for one in sockets for key in one.keys]
    assert search(keys) == 0
    for one in sockets:
        one.close()
