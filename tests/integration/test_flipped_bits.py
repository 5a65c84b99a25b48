"""One bit changes on the wire between two real proxies: in every field of every message and frame.

The connection ends. The target is dialled only when all up to OPEN came through unchanged. Neither application sees a byte that
the other did not send, nor a clean end that it did not make; others go on.
"""

from __future__ import annotations

import queue
import random
import socket
import threading
from collections.abc import Iterator
from contextlib import suppress

import pytest
from harness.proxies import Keys, Proxy
from harness.sockets import Target, connect, end_of, read_exactly
from harness.wire import Flip, Wire

from stcp_proxy.protocol.wire import (
    HEADER_LEN,
    KEM_CIPHERTEXT_LEN,
    KEM_PUBLIC_LEN,
    KEY_LEN,
    MESSAGE_LENGTH_LEN,
    PROLOGUE_LEN,
    TAG_LEN,
    Suite,
)

SOON = "1.5"
"""Deadlines of both sides, in seconds: a length that was made larger is waited for."""
FIRST = b"the first words"
MORE = random.Random(6).randbytes(200_000)


class Site:
    """A pair with a wire to meddle with between them, and a target that notes what it sees."""

    def __init__(self, folder_factory: pytest.TempPathFactory, suite: Suite) -> None:
        folder = folder_factory.mktemp(suite.name.lower())
        self.keys = Keys(folder, psk=suite in (Suite.HYBRID_PSK, Suite.CLASSIC_PSK))
        kind = ["--suite", "classic" if suite in (Suite.CLASSIC_KEYS, Suite.CLASSIC_PSK) else "hybrid"]
        limits = ["--handshake-timeout", SOON, "--dial-timeout", SOON, "--half-close-timeout", SOON]
        self.target = Target(self._serve)
        self.seen: queue.Queue[tuple[str, bytes]] = queue.Queue()
        arguments = ["listen", "--bind", "127.0.0.1:0", "--to", self.target.to, *self.keys.listen(), *kind, *limits]
        self.listen = Proxy(arguments, log=folder / "listen.log")
        self.listen.ready()
        self.wire = Wire(self.listen.address)
        arguments = ["connect", "--bind", "127.0.0.1:0", "--to", self.wire.to, *self.keys.connect(), *kind, *limits]
        self.connect = Proxy(arguments, log=folder / "connect.log")
        self.connect.ready()
        self.witness = connect(self.connect.address)
        self.check()

    def _serve(self, sock: socket.socket) -> None:
        """Answer the first words; then send much while hearing all."""
        word = read_exactly(sock, len(FIRST))
        if word != FIRST:
            if word.startswith(b"W"):
                while word:
                    sock.sendall(word)
                    word = read_exactly(sock, len(FIRST))
            elif word:
                self.seen.put(("foreign", word))
            else:
                self.seen.put(("eof", b""))
            return
        sock.sendall(FIRST)
        heard: list[tuple[str, bytes]] = []
        reader = threading.Thread(target=lambda: heard.append(end_of(sock)))
        reader.start()
        with suppress(OSError):
            sock.sendall(MORE)
            reader.join()
            if heard[0] == ("eof", MORE):
                sock.shutdown(socket.SHUT_WR)
        reader.join()
        self.seen.put((heard[0][0], word + heard[0][1]))

    def check(self) -> None:
        """The connection that nobody meddles with works."""
        word = b"W" * len(FIRST)
        self.witness.sendall(word)
        assert read_exactly(self.witness, len(word)) == word

    def stop(self) -> None:
        self.witness.close()
        self.connect.stop()
        self.wire.close()
        self.listen.stop()
        self.target.close()


@pytest.fixture(scope="module", params=list(Suite), ids=lambda suite: suite.name.lower())
def suite(request: pytest.FixtureRequest) -> Suite:
    return request.param  # type: ignore[no-any-return]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, suite: Suite) -> Iterator[Site]:
    found = Site(tmp_path_factory, suite)
    yield found
    found.stop()


def handshake_parts(suite: Suite) -> dict[str, Flip]:
    """A flip in each part of both handshake messages of a suite."""
    parts: dict[str, Flip] = {}
    hybrid = suite in (Suite.HYBRID_KEYS, Suite.HYBRID_PSK)
    keys = suite in (Suite.HYBRID_KEYS, Suite.CLASSIC_KEYS)

    def add(way: str, names: list[tuple[str, int]]) -> None:
        at = 0
        for name, size in names:
            parts[f"{way}-{name}"] = Flip(way, 0, at + size // 2)  # type: ignore[arg-type]
            at += size

    forth = [("magic", 4), ("version", 1), ("suite", 1), ("length-high", 1), ("length-low", 1), ("e", KEY_LEN)]
    assert sum(size for _, size in forth[:5]) == PROLOGUE_LEN + MESSAGE_LENGTH_LEN
    if hybrid:
        forth += [("e1", KEM_PUBLIC_LEN), ("e1-tag", TAG_LEN)]
    if keys:
        forth += [("s", KEY_LEN), ("s-tag", TAG_LEN)]
    add("forth", [*forth, ("payload-tag", TAG_LEN)])
    back = [("length-high", 1), ("length-low", 1), ("e", KEY_LEN)]
    if hybrid:
        back += [("ekem1", KEM_CIPHERTEXT_LEN), ("ekem1-tag", TAG_LEN)]
    add("back", [*back, ("payload-tag", TAG_LEN)])
    return parts


HANDSHAKES = sorted({name for suite in Suite for name in handshake_parts(suite)})


@pytest.mark.parametrize("part", HANDSHAKES)
def test_handshake(site: Site, suite: Suite, part: str) -> None:
    flip = handshake_parts(suite).get(part)
    if flip is None:
        return  # this suite has no such part
    dials, flipped = site.target.dials, site.wire.flipped
    site.wire.flip = flip
    try:
        with connect(site.connect.address) as client:
            client.sendall(FIRST)
            assert end_of(client) == ("reset", b"")
    finally:
        site.wire.flip = None
    assert site.wire.flipped == flipped + 1
    assert site.target.dials == dials
    site.check()


FIELDS = {
    "type": (0, 0),
    "type-high-bit": (0, 7),
    "reserved": (1, 3),
    "length-high": (2, 6),
    "length-low": (3, 0),
    "ciphertext": (HEADER_LEN, 5),
    "tag": (-1, 2),
    "tag-first": (-TAG_LEN, 7),
}
FRAMES: dict[str, tuple[str, int]] = {
    # forth: OPEN (1), DATA (2, behind OPEN or after ACCEPT), then the rest; the client's last frame is FIN
    "OPEN": ("forth", 1),
    "DATA-forth": ("forth", 2),
    "ACCEPT": ("back", 1),
    "DATA-back": ("back", 2),
}


@pytest.mark.parametrize("field", FIELDS)
@pytest.mark.parametrize("frame", FRAMES)
def test_frame(site: Site, suite: Suite, frame: str, field: str) -> None:
    if suite is not Suite.HYBRID_KEYS:
        return  # frames are the same in all suites
    way, unit = FRAMES[frame]
    at, bit = FIELDS[field]
    if frame == "ACCEPT" and field == "ciphertext":
        return  # it has none
    dials = site.target.dials
    how, data = exchange(site, Flip(way, unit, at, bit))  # type: ignore[arg-type]
    assert how == "reset"
    assert (FIRST + MORE).startswith(data)
    if way == "back":
        assert data == b""
    if frame == "OPEN":
        assert site.target.dials == dials
    else:
        assert site.target.dials == dials + 1
        how, seen = site.seen.get(timeout=20)
        assert how == "reset"
        assert (FIRST + MORE).startswith(seen)
        if frame == "DATA-forth":
            assert seen == b""
    site.check()


def exchange(site: Site, flip: Flip) -> tuple[str, bytes]:
    """One connection with a changed bit: the client speaks, then sends much, then ends. What it sees."""
    flipped = site.wire.flipped
    site.wire.flip = flip
    try:
        with connect(site.connect.address) as client:
            client.sendall(FIRST)

            def speak() -> None:
                with suppress(OSError):
                    client.sendall(MORE)
                    client.shutdown(socket.SHUT_WR)

            speaker = threading.Thread(target=speak)
            speaker.start()
            seen = end_of(client)
            speaker.join()
    finally:
        site.wire.flip = None
    assert site.wire.flipped == flipped + 1
    return seen


@pytest.mark.parametrize("field", [field for field in FIELDS if field != "ciphertext"])
@pytest.mark.parametrize("way", ["forth", "back"])
def test_fin(tmp_path_factory: pytest.TempPathFactory, fin_site: FinSite, way: str, field: str) -> None:
    """FIN is the only frame behind a short word: its change must not look like an end, nor lose the word."""
    at, bit = FIELDS[field]
    flip = Flip(way, 3, at, bit)  # type: ignore[arg-type]
    fin_site.wire.flip = flip
    flipped = fin_site.wire.flipped
    try:
        with connect(fin_site.pair.address) as client:
            client.sendall(b"word")
            assert read_exactly(client, 4) == b"drow"
            if way == "forth":
                client.shutdown(socket.SHUT_WR)
            assert end_of(client) == ("reset", b"")
    finally:
        fin_site.wire.flip = None
    assert fin_site.wire.flipped == flipped + 1
    assert fin_site.seen.get(timeout=20) == "reset"


class FinSite:
    """A pair with a wire to meddle with, before a server that ends its side when it is told to."""

    def __init__(self, folder_factory: pytest.TempPathFactory) -> None:
        self.seen: queue.Queue[str] = queue.Queue()
        self.target = Target(self._serve)
        limits = ["--half-close-timeout", "0.5"]
        folder = folder_factory.mktemp("fin")
        self.keys = Keys(folder)
        arguments = ["listen", "--bind", "127.0.0.1:0", "--to", self.target.to, *self.keys.listen(), *limits]
        self.listen = Proxy(arguments, log=folder / "listen.log")
        self.wire = Wire(self.listen.address)
        arguments = ["connect", "--bind", "127.0.0.1:0", "--to", self.wire.to, *self.keys.connect(), *limits]
        self.pair = Proxy(arguments, log=folder / "connect.log")
        self.pair.ready()

    def _serve(self, sock: socket.socket) -> None:
        sock.sendall(read_exactly(sock, 4)[::-1])
        if self.wire.flip is not None and self.wire.flip.way == "back":
            sock.shutdown(socket.SHUT_WR)
        self.seen.put(end_of(sock)[0])


@pytest.fixture(scope="module")
def fin_site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FinSite]:
    found = FinSite(tmp_path_factory)
    yield found
    found.pair.stop()
    found.wire.close()
    found.listen.stop()
    found.target.close()


def test_nothing_changed(site: Site) -> None:
    """The wire itself changes nothing: what all of the above is measured against."""
    with connect(site.connect.address) as client:
        client.sendall(FIRST + MORE)
        client.shutdown(socket.SHUT_WR)
        assert end_of(client) == ("eof", FIRST + MORE)
    assert site.seen.get(timeout=20) == ("eof", FIRST + MORE)
