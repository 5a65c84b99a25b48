"""Whoever has not proved itself: is not answered, reaches nothing, learns nothing, and disturbs nobody.

Each stranger meets a real `listen` process that has a working connection all the while, and a target that counts its dials.
"""

from __future__ import annotations

import secrets
import signal
import socket
import ssl
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest
from harness.peer import Peer, initiator, message_1
from harness.process import wait_for
from harness.proxies import Keys, Proxy, times
from harness.sockets import Target, connect, read_exactly, reset

from stcp_proxy.protocol.handshake import prologue
from stcp_proxy.protocol.wire import MAX_PLAINTEXT, MESSAGE_2_LEN, MESSAGE_LENGTH_LEN, FrameType, Suite

DEADLINE = 1.0
"""Handshake deadline of the listening side."""


class Site:
    """A listening side, its target, and one connection that goes on."""

    def __init__(self, folder: Path, *, psk: bool) -> None:
        self.target = Target()
        self.keys = Keys(folder, psk=psk)
        arguments = ["listen", "--bind", "127.0.0.1:0", "--to", self.target.to, *self.keys.listen()]
        self.proxy = Proxy([*arguments, "--handshake-timeout", str(DEADLINE), "--log-level", "debug"], log=folder / "listen.log")
        self.proxy.ready()
        self.witness = Peer(connect(self.proxy.address), self.keys)
        self.witness.open()
        self.check()

    def check(self) -> None:
        """The working connection works, and nothing but it was ever dialled."""
        word = secrets.token_bytes(100)
        self.witness.send(FrameType.DATA, word)
        assert self.witness.receive() == (FrameType.DATA, word)
        assert self.target.dialled(1)

    def stop(self) -> None:
        self.witness.sock.close()
        self.proxy.stop()
        self.target.close()


@pytest.fixture(scope="module", params=["keys", "psk"])
def site(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    found = Site(tmp_path_factory.mktemp("site"), psk=request.param == "psk")
    yield found
    found.stop()


def client_hello() -> bytes:
    """What a TLS client says first."""
    out = ssl.MemoryBIO()
    tls = ssl.create_default_context().wrap_bio(ssl.MemoryBIO(), out, server_hostname="example.org")
    with suppress(ssl.SSLWantReadError):
        tls.do_handshake()
    return out.read()


def wrong_key(keys: Keys) -> bytes:
    """All is right but the key is on no list; or the secret is another."""
    return initiator(keys, key=keys.stranger, secret=keys.other_secret).message_1()


def other_server(keys: Keys) -> bytes:
    """Meant for somebody else's server."""
    other = keys.stranger
    keys_of_other = object.__new__(Keys)
    keys_of_other.psk, keys_of_other.server, keys_of_other.client = keys.psk, other, keys.client
    keys_of_other.secret = keys.other_secret
    return message_1(keys_of_other)


def with_length(keys: Keys, length: int) -> bytes:
    first = message_1(keys)
    return first[:6] + length.to_bytes(2, "big") + first[8:] + bytes(70_000)


def with_prologue(keys: Keys, head: bytes) -> bytes:
    return head + message_1(keys)[6:]


def classic(keys: Keys) -> bytes:
    """A suite that the listening side does not accept unless it is told to."""
    return initiator(keys, suite=Suite.CLASSIC_PSK if keys.psk else Suite.CLASSIC_KEYS).message_1()


def other_kind(keys: Keys) -> bytes:
    """A secret's suite for a side with keys, and the other way round."""
    return prologue(Suite.HYBRID_KEYS if keys.psk else Suite.HYBRID_PSK) + message_1(keys)[6:]


def zero_ephemeral(keys: Keys) -> bytes:
    """A public key of low order: the exchange would give zero."""
    first = message_1(keys)
    return first[:8] + bytes(32) + first[40:]


@dataclass(frozen=True)
class Stranger:
    """What somebody sends, and the reason that the listening side's log gives."""

    says: Callable[[Keys], bytes]
    reason: str | tuple[str, str]
    """A label; with two, the first is for keys and the second for a shared secret."""
    words: str = ""


STRANGERS = {
    "wrong-key": Stranger(wrong_key, ("unknown_peer", "not_authentic")),
    "other-server": Stranger(other_server, "not_authentic"),
    "silence": Stranger(lambda _: b"", "handshake_timeout"),
    "one-byte-and-silence": Stranger(lambda _: b"S", "handshake_timeout"),
    "half-and-silence": Stranger(lambda keys: message_1(keys)[:500], "handshake_timeout"),
    "all-but-a-byte-and-silence": Stranger(lambda keys: message_1(keys)[:-1], "handshake_timeout"),
    "garbage": Stranger(lambda _: secrets.token_bytes(4096), "not_stcp"),
    "zeros": Stranger(lambda _: bytes(4096), "not_stcp"),
    "tls": Stranger(lambda _: client_hello(), "not_stcp", "TLS"),
    "http": Stranger(lambda _: b"GET / HTTP/1.1\r\nHost: example.org\r\n\r\n", "not_stcp", "HTTP"),
    "redis": Stranger(lambda _: b"*1\r\n$4\r\nPING\r\n", "not_stcp", "Redis"),
    "magic-in-small-letters": Stranger(lambda keys: with_prologue(keys, b"stcp\x01\x01"), "not_stcp"),
    "version-0": Stranger(lambda keys: with_prologue(keys, b"STCP\x00\x01"), "version"),
    "version-2": Stranger(lambda keys: with_prologue(keys, b"STCP\x02\x01"), "version"),
    "suite-0": Stranger(lambda keys: with_prologue(keys, b"STCP\x01\x00"), "suite"),
    "suite-255": Stranger(lambda keys: with_prologue(keys, b"STCP\x01\xff"), "suite"),
    "classic-suite": Stranger(classic, "suite", "--suite"),
    "other-kind-of-suite": Stranger(other_kind, "suite"),
    "length-0": Stranger(lambda keys: with_length(keys, 0), "malformed"),
    "length-1-less": Stranger(lambda keys: with_length(keys, len(message_1(keys)) - 8 - 1), "malformed"),
    "length-1-more": Stranger(lambda keys: with_length(keys, len(message_1(keys)) - 8 + 1), "malformed"),
    "length-oversized": Stranger(lambda keys: with_length(keys, 65535), "malformed"),
    "garbage-in-message-1": Stranger(
        lambda keys: message_1(keys)[:8] + secrets.token_bytes(len(message_1(keys)) - 8), "not_authentic"
    ),
    "zero-ephemeral": Stranger(zero_ephemeral, ("malformed", "not_authentic")),
}


@pytest.mark.parametrize("name", STRANGERS)
@pytest.mark.parametrize("ending", ["waits", "half-closes", "resets"])
def test_stranger(site: Site, name: str, ending: str) -> None:
    stranger = STRANGERS[name]
    is_check = name == "silence" and ending != "waits"
    event = "health check received" if is_check else "connection refused"
    before = times(site.proxy.log(event))
    sock = connect(site.proxy.address)
    with suppress(OSError):  # refused before all was said
        sock.sendall(stranger.says(site.keys))
        if ending == "half-closes":
            sock.shutdown(socket.SHUT_WR)
    if ending == "resets":
        reset(sock)
    else:
        with sock:
            assert answer(sock) == b""
    line = site.proxy.wait_log(event, count=before + 1)[-1]
    assert "peer" not in line
    assert "channel" not in line
    assert not is_check or (line["reason"], line["level"]) == ("tcp_check", "debug")
    if ending == "waits":
        reason = stranger.reason if isinstance(stranger.reason, str) else stranger.reason[site.keys.psk]
        assert line["reason"] == reason
        assert stranger.words in line["why"] + line.get("remedy", "")
        assert line["level"] == "warning"
    site.check()


def answer(sock: socket.socket) -> bytes:
    """All that comes before the end, which must come."""
    data = b""
    with suppress(ConnectionResetError):
        while part := sock.recv(4096):
            data += part
    return data


def test_the_refused_key_is_in_the_log(site: Site) -> None:
    """What the operator needs to allow it; with a shared secret there is none."""
    if site.keys.psk:
        return
    before = times(site.proxy.log("connection refused"))
    with connect(site.proxy.address) as sock:
        sock.sendall(wrong_key(site.keys))
        assert answer(sock) == b""
    line = site.proxy.refused(before + 1)[-1]
    assert line["key"] == str(site.keys.stranger.public)
    assert "'allow'" in line["remedy"]


@pytest.mark.parametrize("cut", [1, 3, 4, 5, 6, 7, 8, 40, 41, 1000])
def test_truncated_first_message(site: Site, cut: int) -> None:
    before = times(site.proxy.log("connection refused"))
    with connect(site.proxy.address) as sock:
        sock.sendall(message_1(site.keys)[:cut])
        sock.shutdown(socket.SHUT_WR)
        assert answer(sock) == b""
    assert site.proxy.refused(before + 1)[-1]["reason"] == "handshake_closed"
    site.check()


def test_slow_bytes_do_not_move_the_deadline(site: Site) -> None:
    before = times(site.proxy.log("connection refused"))
    with connect(site.proxy.address) as sock:
        sock.settimeout(0.1)
        for byte in message_1(site.keys):
            sock.sendall(bytes([byte]))
            try:
                assert sock.recv(1) == b""
                break
            except TimeoutError:
                continue
            except ConnectionResetError:
                break
    assert site.proxy.refused(before + 1)[-1]["reason"] == "handshake_timeout"
    site.check()


# -- a first message that was recorded ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def recorded(site: Site, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The first flight of a real `connect` process, as they stand on the wire."""
    folder, keys = tmp_path_factory.mktemp("record"), site.keys
    heard: list[bytes] = []

    def listen(sock: socket.socket) -> None:
        heard.append(read_exactly(sock, len(message_1(keys))))

    with Target(listen) as wiretap:
        arguments = ["connect", "--bind", "127.0.0.1:0", "--to", wiretap.to, *keys.connect()]
        with Proxy(arguments, log=folder / "connect.log") as proxy:
            proxy.ready()
            with connect(proxy.address) as client, suppress(ConnectionResetError):
                client.sendall(b"secret words")
                client.recv(1)
    return heard[0]


REPLY = MESSAGE_LENGTH_LEN + MESSAGE_2_LEN[Suite.HYBRID_KEYS]
assert MESSAGE_2_LEN[Suite.HYBRID_KEYS] == MESSAGE_2_LEN[Suite.HYBRID_PSK]

AFTERWARDS: dict[str, tuple[Callable[[], bytes], str]] = {
    "silence": (lambda: b"", "handshake_timeout"),
    "garbage": (lambda: b"\x03\x00\x00\x10" + secrets.token_bytes(16), "bad_tag"),
    "zeros": (lambda: bytes(4096), "bad_frame"),
    "oversized-frame": (lambda: b"\x03\x00\xff\xff" + bytes(70_000), "bad_frame"),
    "unknown-frame": (lambda: b"\x09\x00\x00\x10" + bytes(16), "bad_frame"),
    "data-first": (lambda: b"\x00\x00\x00\x20" + secrets.token_bytes(32), "bad_frame"),
    "forged-open": (lambda: bytes([FrameType.OPEN, 0, 0, 0x20]) + secrets.token_bytes(32), "bad_tag"),
    "half-a-frame": (lambda: b"\x03\x00\x00\x10" + bytes(5), "handshake_timeout"),
}


def refused_after_reply(site: Site, first: bytes, says: bytes) -> str:
    """Why a caller is refused that gets a reply to its first message, and cannot go on."""
    before = times(site.proxy.log("connection refused"))
    with connect(site.proxy.address) as sock:
        sock.sendall(first)
        assert len(read_exactly(sock, REPLY)) == REPLY
        with suppress(ConnectionResetError, BrokenPipeError):
            sock.sendall(says)
        assert answer(sock) == b""
    line = site.proxy.refused(before + 1)[-1]
    assert "peer" not in line
    site.check()
    return str(line["reason"])


@pytest.mark.parametrize("name", AFTERWARDS)
def test_stolen_first_message(site: Site, name: str) -> None:
    """The responder answers a genuine first message, whoever brings it; but nobody is dialled, named, or told anything."""
    says, reason = AFTERWARDS[name]
    assert refused_after_reply(site, message_1(site.keys), says()) == reason


def test_replayed_first_message(site: Site, recorded: bytes) -> None:
    """A second time it gets no answer, although it is genuine; and a changed one neither."""
    assert refused_after_reply(site, recorded, b"") == "handshake_timeout"
    for again in (recorded, recorded[:-1] + bytes([recorded[-1] ^ 1])):
        before = times(site.proxy.log("connection refused"))
        with connect(site.proxy.address) as sock:
            sock.sendall(again)
            assert answer(sock) == b""
        assert site.proxy.refused(before + 1)[-1]["reason"] == "replayed"
        site.check()


# -- a peer that has proved itself, and then misbehaves -------------------------------------------------------------------------

MISDEEDS: dict[str, Callable[[Peer], None]] = {
    "data-before-open": lambda peer: peer.send(FrameType.DATA, b"hello"),
    "fin-before-open": lambda peer: peer.send(FrameType.FIN),
    "accept-from-the-initiator": lambda peer: peer.send(FrameType.ACCEPT),
    "reject-from-the-initiator": lambda peer: peer.send(FrameType.REJECT, b"\x00\x01"),
    "attribute-cut-short": lambda peer: peer.send(FrameType.OPEN, b"\x01\x00\x05abc"),
    "attribute-twice": lambda peer: peer.send(FrameType.OPEN, b"\x01\x00\x01a" * 2),
    "address-of-a-wrong-family": lambda peer: peer.send(FrameType.OPEN, b"\x02\x00\x07\x05" + bytes(6)),
    "service-not-utf-8": lambda peer: peer.send(FrameType.OPEN, b"\x01\x00\x01\xff"),
    "huge-open-of-garbage": lambda peer: peer.send(FrameType.OPEN, b"\xff" * MAX_PLAINTEXT),
}


@pytest.mark.parametrize("name", MISDEEDS)
def test_allowed_peer_opens_badly(site: Site, name: str) -> None:
    with connect(site.proxy.address) as sock:
        peer = Peer(sock, site.keys)
        MISDEEDS[name](peer)
        assert answer(sock) == b""
    assert site.proxy.refused(channel=peer.channel)[0]["reason"] == "bad_frame"
    site.check()


def test_many_strangers_at_once(site: Site) -> None:
    """A crowd, while the working connection goes on."""
    before = times(site.proxy.log("connection refused"))
    crowd = [connect(site.proxy.address) for _ in range(100)]
    for number, sock in enumerate(crowd):
        with suppress(ConnectionResetError, BrokenPipeError):
            sock.sendall(list(STRANGERS.values())[number % len(STRANGERS)].says(site.keys))
    site.check()
    for sock in crowd:
        with sock:
            assert answer(sock) == b""
    site.proxy.refused(before + 100)
    site.check()
    wait_for(lambda: site.proxy.descriptors() < 30, words="all descriptors are given back")


def test_silent_strangers_do_not_take_the_last_places(tmp_path: Path) -> None:
    """Fewer than max_handshakes, and all that max_connections has left: an honest peer does not wait for their deadline."""
    keys = Keys(tmp_path)
    with Target() as target:
        arguments = ["listen", "--bind", "127.0.0.1:0", "--to", target.to, *keys.listen(), "--max-connections", "5"]
        with Proxy([*arguments, "--handshake-timeout", "60s"], log=tmp_path / "listen.log").ready() as proxy:
            strangers = [connect(proxy.address) for _ in range(5)]
            with connect(proxy.address) as sock:
                Peer(sock, keys).open()
            assert proxy.refused(reason="over_limit")
            for stranger in strangers:
                stranger.close()


def test_peers_that_wait_for_a_busy_machine_keep_their_places(tmp_path: Path) -> None:
    """All places are taken, and by peers that have said what they had to: it is this side that has not come to read it."""
    keys = Keys(tmp_path)
    with Target() as target:
        arguments = ["listen", "--bind", "127.0.0.1:0", "--to", target.to, *keys.listen(), "--max-handshakes", "4"]
        with Proxy(arguments, log=tmp_path / "listen.log").ready() as proxy:
            idle = proxy.descriptors()
            socks = [connect(proxy.address) for _ in range(4)]
            wait_for(lambda: proxy.descriptors() >= idle + len(socks), words="all are accepted")
            proxy.signal(signal.SIGSTOP)
            late = connect(proxy.address)
            with ThreadPoolExecutor() as pool:
                peers = [pool.submit(Peer, sock, keys) for sock in socks]
                time.sleep(1.3)
                proxy.signal(signal.SIGCONT)
                for peer in peers:
                    peer.result().open()
            assert not proxy.log("connection refused")
            for sock in (*socks, late):
                sock.close()
