"""Bytes of sockets of the protocol: frames against an implementation that shares nothing with the module."""

from __future__ import annotations

import array
import contextlib
import errno
import fcntl
import os
import random
import select
import socket
import struct
import threading
import time

import pytest

from stcp_proxy.relay import kernel_abi as abi

from .netlink_agent import Agent
from .peer import DATA, FIN, INTERVAL, MAX_TEXT, RESET, how_it_ends, noise, read_exactly
from .refusals import refused
from .sockets import Pair
from .test_wire import MALFORMED

FAMILIES = pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6], ids=["ipv4", "ipv6"])
ROLES = pytest.mark.parametrize("listens", [False, True], ids=["connects", "listens"])


@FAMILIES
@ROLES
def test_both_ways_and_the_end(agent: Agent, family: socket.AddressFamily, listens: bool) -> None:
    with Pair(family, listens=listens) as p:
        for size in (1, 15, 16, 4076, 4077, 65516, 65517, 200_000):
            data = noise(size)
            thread = threading.Thread(target=p.app.sendall, args=(data,))
            thread.start()
            assert p.read_data(size) == data
            thread.join()
            for at in range(0, size, MAX_TEXT):
                p.send(DATA, data[at : at + MAX_TEXT])
            assert read_exactly(p.app, size) == data
        p.app.shutdown(socket.SHUT_WR)
        assert p.read_frame() == (FIN, b"")
        p.send(DATA, b"still here")
        assert read_exactly(p.app, 10) == b"still here"
        p.send(FIN)
        assert how_it_ends(p.app) == (0, "eof")
        assert p.app.recv(1) == b""
        status = p.status()
        assert (status.ended, status.end) == (True, abi.End.FINISHED)
        assert status.bytes_to_plain == status.bytes_to_wire + 10


@pytest.mark.parametrize("counter", [INTERVAL - 1, INTERVAL, 7 * INTERVAL])
def test_the_rekey(counter: int) -> None:
    with Agent(counters=(counter, counter)), Pair(counters=(counter, counter)) as p:
        for i in range(3):
            p.app.sendall(bytes([i]))
            assert p.read_frame() == (DATA, bytes([i]))
            p.send(DATA, bytes([i]))
            assert p.app.recv(9) == bytes([i])


def test_random_chunks_both_ways(agent: Agent) -> None:
    with Pair() as p:
        up, down = noise(1_000_000), noise(1_000_000)
        rng = random.Random(5)
        frames, at = b"", 0
        while at < len(down):
            size = rng.choice((1, rng.randint(1, 200), rng.randint(1, MAX_TEXT)))
            frames += p.down.seal(DATA, down[at : at + size])
            at += size
        got: list[bytes] = []
        threads = [
            threading.Thread(target=p.app.sendall, args=(up,)),
            threading.Thread(target=p.peer.sendall, args=(frames,)),
            threading.Thread(target=lambda: got.append(p.read_data(len(up)))),
        ]
        for thread in threads:
            thread.start()
        assert read_exactly(p.app, len(down)) == down
        for thread in threads:
            thread.join()
        assert got == [up]


def test_poll_is_readable_for_a_whole_frame_only(agent: Agent) -> None:
    with Pair() as p:
        raw = p.down.seal(DATA, noise(30_000))
        p.app.setblocking(False)
        for cut in (1, 3, 4, 5, 20_000, len(raw) - 1):
            p.peer.sendall(raw[:cut])
            raw = raw[cut:]
            assert select.select([p.app], [p.app], [], 0.1) == ([], [p.app], [])
            with pytest.raises(BlockingIOError):
                p.app.recv(1)
            if len(raw) <= 10_020:
                break
        p.peer.sendall(raw)
        assert select.select([p.app], [], [], 10)[0] == [p.app]
        assert len(p.app.recv(30_000)) == 30_000
        assert select.select([p.app], [], [], 0)[0] == []


def test_poll_is_writable_when_a_frame_finds_room(agent: Agent) -> None:
    with Pair() as p:
        p.app.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 50_000)
        p.app.setblocking(False)
        sent = 0
        # The peer's receive buffer grows for a while.
        while select.select([], [p.app], [], 0.5)[1]:
            with contextlib.suppress(BlockingIOError):
                sent += p.app.send(bytes(100_000))
        assert sent > 50_000
        assert select.select([], [p.app], [], 0.1)[1] == []
        thread = threading.Thread(target=p.read_data, args=(sent,))
        thread.start()
        assert select.select([], [p.app], [], 10)[1] == [p.app]
        thread.join()


def test_peek_waitall_lowat_fionread(agent: Agent) -> None:
    with Pair() as p:
        p.app.setblocking(True)  # a timeout of Python's would make it one that does not block
        for text in (b"ab", b"cd", b"ef"):
            p.send(DATA, text)
        assert p.app.recv(5, socket.MSG_PEEK | socket.MSG_WAITALL) == b"abcde"
        assert p.app.recv(99, socket.MSG_PEEK) == b"abcdef"
        size = array.array("i", [0])
        fcntl.ioctl(p.app, 0x541B, size)
        assert size[0] == 6
        assert p.app.recv(3) == b"abc"
        thread = threading.Timer(0.3, p.send, (DATA, b"ghi"))
        thread.start()
        assert p.app.recv(6, socket.MSG_WAITALL) == b"defghi"
        thread.join()
        p.app.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, 4)
        thread = threading.Timer(0.3, p.send, (DATA, b"4"))
        p.send(DATA, b"123")
        thread.start()
        assert select.select([p.app], [], [], 0.1)[0] == []
        assert p.app.recv(9) == b"1234"
        thread.join()
        p.app.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, 1)
        p.send(DATA, b"truncated")
        assert p.app.recv_into(bytearray(9), 9, socket.MSG_TRUNC) == 9
        with pytest.raises(BlockingIOError):
            p.app.recv(1, socket.MSG_DONTWAIT)
        fcntl.ioctl(p.app, 0x5411, size)
        assert size[0] == 0


def test_timeouts_of_the_socket(agent: Agent) -> None:
    with Pair() as p:
        p.app.setblocking(True)
        p.app.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("ll", 0, 200_000))
        p.app.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", 0, 200_000))
        p.app.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 50_000)
        start = time.monotonic()
        with pytest.raises(BlockingIOError):
            p.app.recv(1)
        with contextlib.suppress(BlockingIOError):
            while True:
                p.app.send(bytes(1 << 20))
        assert 0.35 < time.monotonic() - start < 20


def test_sendfile_splice_and_more(agent: Agent) -> None:
    data = noise(300_000)
    with Pair() as p, open("/tmp/sendfile", "w+b") as file:
        file.write(data)
        file.flush()
        got: list[bytes] = []
        thread = threading.Thread(target=lambda: got.append(p.read_data(len(data))))
        thread.start()
        at = 0
        while at < len(data):
            at += os.sendfile(p.app.fileno(), file.fileno(), at, len(data) - at)
        thread.join()
        assert got == [data]
        p.app.send(b"not yet ", socket.MSG_MORE)
        p.app.send(b"now")
        assert p.read_data(11) == b"not yet now"
        r, w = os.pipe()
        p.send(DATA, b"spliced")
        assert os.splice(p.app.fileno(), w, 100) == 7
        assert os.read(r, 100) == b"spliced"
        os.write(w, b"back")
        assert os.splice(r, p.app.fileno(), 4) == 4
        assert p.read_data(4) == b"back"
        os.close(r)
        os.close(w)


@pytest.mark.parametrize("name", MALFORMED)
@pytest.mark.parametrize("before", [0, 9], ids=["first", "behind a good one"])
def test_malformed_frames_are_a_reset(agent: Agent, name: str, before: int) -> None:
    with Pair() as p:
        good = p.down.seal(DATA, b"authentic") if before else b""
        p.peer.sendall(good + MALFORMED[name](p.down))
        size, ending = how_it_ends(p.app)
        # Behind FIN the application has its end already, and learns the rest when it sends.
        assert (size, ending) == (before, "reset") or "behind FIN" in name or name.startswith("a frame twice")
        if "behind FIN" in name:
            with pytest.raises((ConnectionResetError, BrokenPipeError)):
                p.app.send(b"x")
        assert p.status().end is abi.End.BAD_FRAME
        assert how_it_ends(p.peer)[1] == "reset"
        for _ in range(2):  # it never becomes a clean end
            if "behind FIN" not in name:
                with pytest.raises(ConnectionResetError):
                    p.app.recv(1)
        with pytest.raises(BrokenPipeError):
            p.app.send(b"x")


@pytest.mark.parametrize("cut", [0, 1, 3, 4, 5, 20, 28])
def test_truncation_is_a_reset(agent: Agent, cut: int) -> None:
    with Pair() as p:
        p.send(DATA, b"whole")
        p.peer.sendall(p.down.seal(DATA, b"some text")[:cut])
        p.peer.shutdown(socket.SHUT_WR)
        assert how_it_ends(p.app) == (5, "reset")
        assert p.app.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0
        with pytest.raises(ConnectionResetError):
            p.app.recv(1)
        assert p.status().end is abi.End.TRUNCATED


def test_reset_from_the_peer(agent: Agent) -> None:
    with Pair() as p:
        p.send(DATA, b"before")
        p.send(RESET, b"\x00\x07shutting down")
        assert how_it_ends(p.app) == (6, "reset")
        status = p.status()
        assert (status.end, status.code, status.text) == (abi.End.PEER_RESET, 7, b"shutting down")


def test_a_tcp_reset(agent: Agent) -> None:
    with Pair() as p:
        p.peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        p.peer.close()
        assert select.select([p.app], [], [], 10)[0] == [p.app]
        assert how_it_ends(p.app) == (0, "reset")


def test_poll_without_events_tells_of_a_tcp_reset(agent: Agent) -> None:
    with Pair() as p:
        p.send(DATA, b"before")
        poll = select.poll()
        poll.register(p.app, 0)
        assert poll.poll(100) == []
        p.peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        thread = threading.Timer(0.3, p.peer.close)
        thread.start()
        ((_, events),) = poll.poll(10_000)
        thread.join()
        # TCP reports the end of the connection first, then the error.
        assert events & select.POLLHUP
        assert poll.poll(0) == [(p.app.fileno(), select.POLLHUP | select.POLLERR)]
        assert p.app.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == errno.ECONNRESET
        assert p.app.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0
        assert how_it_ends(p.app) == (6, "reset")
        with pytest.raises(ConnectionResetError):
            p.app.recv(1)
        assert p.status().end is abi.End.TRUNCATED


def test_close_says_fin_and_close_with_unread_bytes_says_reset(agent: Agent) -> None:
    with Pair() as p:
        p.app.close()
        assert p.read_frame() == (FIN, b"")
        assert p.peer.recv(1) == b""
    for half in (False, True):
        with Pair() as p:
            raw = p.down.seal(DATA, b"never read")
            p.peer.sendall(raw[:9] if half else raw)
            while not p.app.getsockopt(socket.SOL_TCP, socket.TCP_INFO, 200)[0]:
                pass
            time.sleep(0.1)
            p.app.close()
            kind, text = p.read_frame()
            assert (kind, text[:2]) == (RESET, b"\x00\x08")
    with Pair() as p:
        p.app.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        p.app.close()
        assert p.read_frame()[0] == RESET


def test_close_delivers_what_was_sent_and_linger_waits(agent: Agent) -> None:
    with Pair() as p:
        data = noise(500_000)
        p.app.setblocking(False)
        sent = p.app.send(data)
        p.app.close()
        assert p.read_data(sent) == data[:sent]
        assert p.read_frame() == (FIN, b"")
    with Pair() as p:
        p.app.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 1))
        p.app.settimeout(0)
        with contextlib.suppress(BlockingIOError):
            while True:
                p.app.send(data)
        start = time.monotonic()
        p.app.close()
        assert 0.8 < time.monotonic() - start < 10


def test_sigpipe_only_where_it_is_wanted(agent: Agent) -> None:
    with Pair() as p:
        p.app.shutdown(socket.SHUT_WR)
        pid = os.fork()
        if not pid:
            import signal

            signal.signal(signal.SIGPIPE, signal.SIG_DFL)
            with contextlib.suppress(BrokenPipeError):
                p.app.send(b"x", socket.MSG_NOSIGNAL)
            p.app.send(b"x")
            os._exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -13
        assert p.app.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0


def test_early_bytes_of_the_agent() -> None:
    early: list[bytes] = []
    for cut in (3, 29, 30, 60):
        with Agent() as agent:
            from .peer import KEY_DOWN, Cipher

            cipher = Cipher(KEY_DOWN)
            raw = cipher.seal(DATA, b"some bytes") + cipher.seal(DATA, b"more bytes") + cipher.seal(FIN)
            agent.changed["wire"] = raw[:cut]
            early.append(raw[cut:])
            with Pair() as p:
                if cut >= 30:
                    assert select.select([p.app], [], [], 5)[0] == [p.app]
                else:
                    assert select.select([p.app], [], [], 0.1)[0] == []
                p.peer.sendall(raw[cut:])
                assert read_exactly(p.app, 20) == b"some bytesmore bytes"
                assert how_it_ends(p.app) == (0, "eof")


def test_urgent_and_unknown_flags(agent: Agent) -> None:
    with Pair() as p:
        with refused(errno.EOPNOTSUPP):
            p.app.send(b"x", socket.MSG_OOB)
        raw = p.down.seal(DATA, b"with an urgent byte")
        p.peer.send(raw[:10], socket.MSG_OOB)
        p.peer.sendall(raw[10:])
        assert read_exactly(p.app, 19) == b"with an urgent byte"
