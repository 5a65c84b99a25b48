"""Somebody meddles with the wire between two real proxies: changes a bit in any field of any message or frame, or cuts it.

The connection ends. The target is dialled only when all up to OPEN came through unchanged. Neither application sees a byte that
the other did not send, nor a clean end that it did not make; others go on.
"""

from __future__ import annotations

import queue
import random
import socket
import threading
from collections.abc import Callable, Iterator

import pytest
from harness.process import wait_for
from harness.proxies import Keys, Proxy
from harness.sockets import Target, connect, end_of, read_exactly
from harness.wire import Cut, Flip, Way, Wire

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


def start_of(sock: socket.socket, size: int) -> tuple[str, bytes]:
    """The first `size` bytes, or how it ended before."""
    try:
        word = read_exactly(sock, size)
    except ConnectionResetError:
        return "reset", b""
    return ("" if len(word) == size else "eof"), word


def converse(
    sock: socket.socket, words: bytes, *, end_after: tuple[str, bytes] | None = None, heard: bytes = b""
) -> tuple[str, bytes]:
    """Say `words` and end, while hearing all: how the other side ended, and what it said.

    The system tells a reset once, to whoever reads or writes next: a writer that is told is told for both.

    Args:
        sock: the application's end.
        words: what to say.
        end_after: when this was heard; at once unless said.
        heard: what was read before.
    """
    end: list[tuple[str, bytes]] = []
    reader = threading.Thread(target=lambda: end.append(end_of(sock)))
    reader.start()
    broken = False
    try:
        sock.sendall(words)
        if end_after is not None:
            reader.join()
        if end_after is None or end[0] == end_after:
            sock.shutdown(socket.SHUT_WR)
    except OSError:
        broken = True
    reader.join()
    how, data = end[0]
    return ("reset" if broken else how), heard + data


class Site:
    """A pair with a wire to meddle with between them, and a target that notes what it sees."""

    def __init__(self, folder_factory: pytest.TempPathFactory, suite: Suite) -> None:
        folder = folder_factory.mktemp(suite.name.lower())
        self.keys = Keys(folder, psk=suite in (Suite.HYBRID_PSK, Suite.CLASSIC_PSK))
        kind = ["--suite", "classic" if suite in (Suite.CLASSIC_KEYS, Suite.CLASSIC_PSK) else "hybrid"]
        # Each connection has a leg of its own, so that a harm meets its handshake.
        limits = ["--handshake-timeout", SOON, "--dial-timeout", SOON, "--half-close-timeout", SOON, "--keep", "off"]
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
        how, word = start_of(sock, len(FIRST))
        if word.startswith(b"W"):
            while word:
                sock.sendall(word)
                word = read_exactly(sock, len(FIRST))
            return
        if word != FIRST:
            self.seen.put((how, word))
            return
        self.seen.put(converse(sock, FIRST + MORE, end_after=("eof", MORE), heard=word))

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


@pytest.fixture(scope="module")
def sites(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[Suite], Site]]:
    """One site for each suite, made when it is first asked for."""
    made: dict[Suite, Site] = {}

    def get(suite: Suite) -> Site:
        if suite not in made:
            made[suite] = Site(tmp_path_factory, suite)
        return made[suite]

    yield get
    for site in made.values():
        site.stop()


@pytest.fixture
def site(request: pytest.FixtureRequest, sites: Callable[[Suite], Site]) -> Site:
    return sites(request.param)


def handshake_parts(suite: Suite) -> dict[str, Flip]:
    """A flip in each part of both handshake messages of a suite."""
    parts: dict[str, Flip] = {}
    hybrid = suite in (Suite.HYBRID_KEYS, Suite.HYBRID_PSK)
    keys = suite in (Suite.HYBRID_KEYS, Suite.CLASSIC_KEYS)

    def add(way: Way, names: list[tuple[str, int]]) -> None:
        at = 0
        for name, size in names:
            parts[f"{way}-{name}"] = Flip(way, 0, at + size // 2)
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


HANDSHAKES = [
    pytest.param(suite, flip, id=f"{suite.name.lower()}-{name}")
    for suite in Suite
    for name, flip in handshake_parts(suite).items()
]


@pytest.mark.parametrize(("site", "flip"), HANDSHAKES, indirect=["site"])
def test_handshake(site: Site, flip: Flip) -> None:
    dials, done = site.target.dials, site.wire.done
    site.wire.harm = flip
    try:
        assert talk(site, b"") == ("reset", b"")
    finally:
        site.wire.harm = None
    assert site.wire.done == done + 1
    site.check()
    assert site.target.dials == dials


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
FRAMES: dict[str, tuple[Way, int]] = {
    # forth: OPEN (1), DATA (2, behind OPEN or after ACCEPT), then the rest; the client's last frame is FIN
    "OPEN": ("forth", 1),
    "DATA-forth": ("forth", 2),
    "ACCEPT": ("back", 1),
    "DATA-back": ("back", 2),
}


CHANGES = [(frame, field) for frame in FRAMES for field in FIELDS if (frame, field) != ("ACCEPT", "ciphertext")]
"""ACCEPT has no ciphertext. Frames are the same in all suites."""


@pytest.mark.parametrize("site", [Suite.HYBRID_KEYS], indirect=True)
@pytest.mark.parametrize(("frame", "field"), CHANGES)
def test_frame(site: Site, frame: str, field: str) -> None:
    way, unit = FRAMES[frame]
    at, bit = FIELDS[field]
    dials = site.target.dials
    how, data = exchange(site, Flip(way, unit, at, bit))
    assert how == "reset"
    assert (FIRST + MORE).startswith(data)
    if way == "back":
        assert data == b""
    if frame == "OPEN":
        assert site.target.dials == dials
    else:
        wait_for(lambda: site.target.dials == dials + 1, words="the target has noticed its connection")
        how, seen = site.seen.get(timeout=20)
        assert (FIRST + MORE).startswith(seen)
        # The other direction may have come through whole before this one broke: then its end is the client's own.
        assert how == "reset" or (way, seen) == ("back", FIRST + MORE)
        if frame == "DATA-forth":
            assert seen == b""
    site.check()


def exchange(site: Site, harm: Flip | Cut) -> tuple[str, bytes]:
    """One connection with a changed bit: the client speaks, then sends much, then ends. What it sees."""
    done = site.wire.done
    site.wire.harm = harm
    try:
        seen = talk(site, MORE)
    finally:
        site.wire.harm = None
    assert site.wire.done == done + 1
    return seen


def talk(site: Site, more: bytes) -> tuple[str, bytes]:
    """Connect, say the first words and more, and end: what the client sees. The reset may come at any of these steps."""
    try:
        client = connect(site.connect.address)
    except ConnectionResetError:
        return "reset", b""

    with client:
        return converse(client, FIRST + more)


CUTS = [
    ("forth", 0, 3),
    ("forth", 0, 700),
    ("back", 0, 1),
    ("back", 0, 700),
    ("forth", 1, 0),
    ("forth", 1, 2),
    ("forth", 1, 12),
    ("back", 1, 0),
    ("back", 1, 2),
    ("back", 1, 12),
    ("forth", 2, 0),
    ("forth", 2, 2),
    ("forth", 2, 20),
    ("back", 2, 0),
    ("back", 2, 2),
    ("back", 2, 20),
]


@pytest.mark.parametrize("site", [Suite.HYBRID_KEYS], indirect=True)
@pytest.mark.parametrize(("way", "unit", "at"), CUTS)
def test_cut(site: Site, way: Way, unit: int, at: int) -> None:
    """The wire ends cleanly in the middle of a message, a frame, or between two: the applications see a reset."""
    dials = site.target.dials
    how, data = exchange(site, Cut(way, unit, at))
    assert how == "reset"
    assert (FIRST + MORE).startswith(data)
    if unit == 0 or (way, unit) == ("forth", 1):
        assert site.target.dials == dials
    else:
        how, seen = site.seen.get(timeout=20)
        assert (FIRST + MORE).startswith(seen)
        assert how == "reset" or (way, seen) == ("back", FIRST + MORE)
    site.check()


@pytest.mark.parametrize("field", [field for field in FIELDS if field != "ciphertext"])
@pytest.mark.parametrize("way", ["forth", "back"])
def test_fin(fin_site: FinSite, way: Way, field: str) -> None:
    """FIN is the only frame behind a short word: its change must not look like an end, nor lose the word."""
    at, bit = FIELDS[field]
    flip = Flip(way, 3, at, bit)
    fin_site.wire.harm = flip
    done = fin_site.wire.done
    try:
        with connect(fin_site.pair.address) as client:
            client.sendall(b"word")
            assert read_exactly(client, 4) == b"drow"
            if way == "forth":
                client.shutdown(socket.SHUT_WR)
            assert end_of(client) == ("reset", b"")
    finally:
        fin_site.wire.harm = None
    assert fin_site.wire.done == done + 1
    assert fin_site.seen.get(timeout=20) == "reset"


class FinSite:
    """A pair with a wire to meddle with, before a server that ends its side when it is told to."""

    def __init__(self, folder_factory: pytest.TempPathFactory) -> None:
        self.seen: queue.Queue[str] = queue.Queue()
        self.target = Target(self._serve)
        limits = ["--half-close-timeout", "0.5", "--keep", "off"]
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
        if self.wire.harm is not None and self.wire.harm.way == "back":
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


@pytest.mark.parametrize("site", [suite for suite in Suite if suite <= Suite.CLASSIC_PSK], indirect=True)
def test_nothing_changed(site: Site) -> None:
    """The wire itself changes nothing: what all of the above is measured against."""
    with connect(site.connect.address) as client:
        client.sendall(FIRST + MORE)
        client.shutdown(socket.SHUT_WR)
        assert end_of(client) == ("eof", FIRST + MORE)
    assert site.seen.get(timeout=20) == ("eof", FIRST + MORE)
