"""Nothing in the description of one handshake ends the agent, or touches a handshake that is under way.

Each test has a victim: the handshake of another connection, which waits for its peer while the bad one comes.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import struct
from collections.abc import AsyncIterator, Callable

import pytest
import structlog
import trio
import trio.testing
from harness.netlink import attribute
from trio.testing import MockClock

from stcp_proxy.agent import agent as agents
from stcp_proxy.agent import handshakes

from .fake_kernel import FD, ID, IDENTITY, ROLE, SERVICE, TIMEOUT, UID, FakeKernel, describe, is_open, split
from .stage import Stage, both_sides, connection, stage

BAD = 99
"""The number of the bad handshake."""

Change = Callable[[dict[int, bytes]], dict[int, bytes]]


def set_to(kind: int, value: bytes) -> Change:
    return lambda found: found | {kind: value}


def without(kind: int) -> Change:
    return lambda found: {each: value for each, value in found.items() if each != kind}


def body(fd: int, change: Change = dict, more: bytes = b"") -> bytes:
    """The description of a bad handshake."""
    found = change(split(describe(fd, id=BAD)))
    return b"".join(attribute(kind, value) for kind, value in found.items()) + more


@contextlib.asynccontextmanager
async def victim(kernel: FakeKernel) -> AsyncIterator[Stage]:
    """An agent with a handshake under way, which has to succeed when its peer appears at last."""
    with connection() as (near, far), structlog.testing.capture_logs() as lines:
        async with stage(kernel, both_sides()) as running:
            running.offer(near)
            await trio.testing.wait_all_tasks_blocked(0.01)
            yield running
            count = len(kernel.done)
            running.offer(far, role=1, identity="server")
            await running.done(count + 2)
    assert kernel.errors()[count:] == [0, 0]
    assert kernel.registered == [2]
    assert not [line for line in lines if line["event"] == "agent stopped"]


NAMES = [
    set_to(IDENTITY, b"\xff\0"),
    set_to(SERVICE, b"\xff\0"),
    set_to(IDENTITY, b"a\0b\0"),
    set_to(IDENTITY, b"\xc3\0"),
    set_to(SERVICE, b"s" * 65 + b"\0"),
]


@pytest.mark.parametrize("role", [0, 1])
@pytest.mark.parametrize("change", NAMES, ids=["identity", "service", "NUL", "half a character", "long"])
async def test_a_name_that_is_no_name(kernel: FakeKernel, change: Change, role: int) -> None:
    async with victim(kernel) as running:
        with connection() as (near, far), structlog.testing.capture_logs() as lines:
            fd = near.dup().detach()
            kernel.offer(body(fd, lambda found: change(found) | {ROLE: struct.pack("=I", role)}))
            (found,) = await running.done()
            far.settimeout(0.05)
            with pytest.raises(TimeoutError):
                far.recv(1)  # not a byte went to the peer
        assert found[ID] == struct.pack("=Q", BAD)
        assert kernel.errors() == [errno.ENOKEY]
        assert not is_open(fd)
    (line,) = [line for line in lines if line["event"] == "handshake failed"]
    assert (line["reason"], line["errno"], line["user"]) == ("no_identity", "ENOKEY", 1000)
    assert line["why"].startswith(("STCP_IDENTITY of the socket is ", "STCP_SERVICE of the socket is "))


@pytest.mark.parametrize(
    ("change", "more"),
    [
        (without(ROLE), b""),
        (without(TIMEOUT), b""),
        (without(UID), b""),
        (without(FD), b""),
        (set_to(ROLE, struct.pack("=I", 9)), b""),
        (set_to(FD, struct.pack("=i", -1)), b""),
        (set_to(UID, b"\1"), b""),
        (dict, attribute(UID, bytes(4))),
        (dict, b"\1"),
        (dict, struct.pack("=HH", 999, 77)),
    ],
    ids=["role", "timeout", "user", "descriptor", "role 9", "descriptor -1", "length", "twice", "cut short", "too long"],
)
async def test_a_malformed_description_with_a_number(kernel: FakeKernel, change: Change, more: bytes) -> None:
    async with victim(kernel) as running:
        with connection() as (near, _), structlog.testing.capture_logs() as lines:
            fd = near.dup().detach()
            had_descriptor = FD in split(body(fd, change)) and split(body(fd, change))[FD] == struct.pack("=i", fd)
            kernel.offer(body(fd, change, more))
            (found,) = await running.done()
        assert found[ID] == struct.pack("=Q", BAD)
        assert kernel.errors() == [errno.ECONNABORTED]
        assert is_open(fd) != had_descriptor
        if not had_descriptor:
            os.close(fd)
    (line,) = [line for line in lines if line["event"] == "handshake failed"]
    assert line["handshake"] == BAD


@pytest.mark.parametrize("change", [without(ID), set_to(ID, b"\1"), lambda _: {}], ids=["missing", "length", "nothing"])
async def test_a_description_without_a_number(kernel: FakeKernel, autojump_clock: MockClock, change: Change) -> None:
    """There is no handshake to end. The agent pauses after each, so that a broken kernel does not keep it busy."""
    async with victim(kernel):
        with connection() as (near, _), structlog.testing.capture_logs() as lines:
            fds = [near.dup().detach() for _ in range(4)]
            for fd in fds:
                kernel.offer(body(fd, change))
            await trio.sleep(2.5 * agents._AGAIN)
            assert len(kernel.pending) == 1
            await trio.sleep(agents._AGAIN)
        assert not kernel.done
        keeps = FD not in change(split(describe(0)))
        assert [is_open(fd) for fd in fds] == [keeps] * 4
        for fd in filter(is_open, fds):
            os.close(fd)
    assert sum(line["event"] == "handshake failed" for line in lines) == 4


async def test_an_acknowledgement_without_a_description(kernel: FakeKernel, autojump_clock: MockClock) -> None:
    async with victim(kernel):
        kernel.accept_fails = [0] * 4
        kernel.notify()
        await trio.sleep(2.5 * agents._AGAIN)
        assert len(kernel.accept_fails) == 1
        await trio.sleep(agents._AGAIN)
        assert not kernel.accept_fails
        assert not kernel.done


async def test_a_descriptor_that_is_not_open(kernel: FakeKernel) -> None:
    async with victim(kernel) as running:
        with structlog.testing.capture_logs() as lines:
            kernel.offer(body(2**31 - 1))
            await running.done()
        assert kernel.errors() == [errno.ECONNABORTED]
    (line,) = [line for line in lines if line["event"] == "handshake failed"]
    assert "is no socket" in line["why"]


def unix_named() -> socket.socket:
    """A connected socket whose peer has a name that is no text."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(b"\0stcp-test-%d" % os.getpid())
        listener.listen()
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        sock.connect(listener.getsockname())
    return sock


def unix(kind: socket.SocketKind) -> socket.socket:
    """A connected socket without names. Its peer is closed."""
    near, far = socket.socketpair(type=kind)
    far.close()
    return near


def netlink() -> socket.socket:
    """A socket whose peer has numbers in the place of a host."""
    sock = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0)
    sock.connect((0, 0))
    return sock


@pytest.mark.parametrize(
    "make",
    [
        unix_named,
        netlink,
        lambda: unix(socket.SOCK_STREAM),
        lambda: unix(socket.SOCK_DGRAM),
        lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM),
        lambda: socket.socket(socket.AF_INET, socket.SOCK_STREAM),
    ],
    ids=["unix with a name", "netlink", "unix", "unix datagram", "UDP", "TCP without a peer"],
)
@pytest.mark.parametrize("role", [0, 1])
async def test_a_descriptor_of_a_different_kind(kernel: FakeKernel, make: Callable[[], socket.socket], role: int) -> None:
    async with victim(kernel) as running:
        fd = make().detach()
        kernel.offer(
            body(fd, lambda found: found | {ROLE: struct.pack("=I", role), TIMEOUT: struct.pack("=I", 100), IDENTITY: b"server"})
        )
        (found,) = await running.done()
        assert found[ID] == struct.pack("=Q", BAD)
        assert kernel.errors()[0] > 0
        assert not is_open(fd)


async def test_a_result_that_does_not_fit_into_done(kernel: FakeKernel, monkeypatch: pytest.MonkeyPatch) -> None:
    """A bug here ends one handshake. It is told to the kernel, and its descriptor and its place are free."""
    opened = handshakes._opened
    async with victim(kernel) as running:
        with connection() as (near, far), structlog.testing.capture_logs() as lines:

            def broken(*args: object) -> object:
                found = opened(*args)  # type: ignore[arg-type]
                object.__setattr__(found, "channel_id", b"short")
                return found

            monkeypatch.setattr(handshakes, "_opened", broken)
            running.offer(far, role=1, identity="server")
            running.offer(near)
            await running.done(2)
            monkeypatch.undo()
        assert kernel.errors() == [errno.ECONNABORTED] * 2
        assert len(running.agent._places._held) == 1
    found = [line for line in lines if line["event"] == "the end of a handshake was not sent to the module"]
    assert [line["why"] for line in found] == ["ValueError: the result of a handshake does not fit into DONE"] * 2
