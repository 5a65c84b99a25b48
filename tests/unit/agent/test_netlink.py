"""Generic netlink to the module: requests and answers, and whatever an answer can lack."""

from __future__ import annotations

import errno
import os
import socket
import struct

import pytest
import trio
import trio.testing

from stcp_proxy.agent import netlink, netlink_abi
from stcp_proxy.agent.messages import Opened, UnreadableHandshake
from stcp_proxy.agent.netlink import NetlinkError
from stcp_proxy.protocol.secret import Secret
from stcp_proxy.relay.engine import DirectionKey

from .fake_kernel import ACCEPT, FAMILY, FakeKernel, acknowledgement, connected, describe, is_open, reply

KEY = b"\x5a" * 32


def descriptor() -> int:
    """A descriptor that the kernel gives away."""
    left, right = socket.socketpair()
    right.close()
    return left.detach()


def test_the_family_is_found_and_the_group_joined(kernel: FakeKernel) -> None:
    connected(kernel).close()
    assert kernel.memberships == [(270, 1, 16)]


@pytest.mark.parametrize("name", ["nlctrl", "ethtool"])
def test_a_family_of_this_kernel_is_found(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setattr(netlink_abi, "GENL_NAME", name)
    try:
        netlink.open_netlink().close()
    except OSError as exc:
        if exc.errno in (errno.ENOENT, errno.EPROTONOSUPPORT, errno.EAFNOSUPPORT, errno.EPERM):
            pytest.skip(f"this kernel: {exc}")
        raise


def test_a_malformed_family(kernel: FakeKernel) -> None:
    kernel.more = b"\x01"
    with pytest.raises(NetlinkError) as caught:
        connected(kernel)
    assert caught.value.errno == errno.EPROTO


def test_register(kernel: FakeKernel) -> None:
    there = connected(kernel)
    there.register()
    assert kernel.registered == [2]
    kernel.busy = True
    with pytest.raises(NetlinkError) as caught:
        there.register()
    assert caught.value.errno == errno.EBUSY


def test_accept(kernel: FakeKernel) -> None:
    there = connected(kernel)
    assert there.accept(256) is None
    fd = descriptor()
    kernel.offer(describe(fd, id=3))
    pending = there.accept(1)
    assert pending is not None
    assert (pending.id, pending.fd) == (3, fd)
    assert there.accept(1_000_000) is None
    assert kernel.places == [256, 1, 1_000_000]
    os.close(fd)


def test_a_malformed_handshake_leaves_no_descriptor_open(kernel: FakeKernel) -> None:
    there = connected(kernel)
    fd = descriptor()
    kernel.offer(describe(fd, id=5, role=9))
    with pytest.raises(UnreadableHandshake) as caught:
        there.accept(256)
    assert caught.value.number == 5
    assert not is_open(fd)


def test_a_descriptor_that_is_closed_already_is_no_failure(kernel: FakeKernel) -> None:
    there = connected(kernel)
    kernel.push(reply(FAMILY, 0xABCDEF, ACCEPT, describe(2**31 - 1)))
    assert there.accept(256) is None


def test_an_answer_without_an_acknowledgement_leaves_no_descriptor_open(
    kernel: FakeKernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = connected(kernel)
    fd = descriptor()
    kernel.offer(describe(fd))
    answer = kernel.answer

    def half(kind: int, sequence: int, command: int, found: dict[int, bytes]) -> int:
        answer(kind, sequence, command, found)
        kernel.push(b"")  # the acknowledgement is for another request
        monkeypatch.setattr(kernel, "push", lambda datagram: None)
        return 0

    monkeypatch.setattr(kernel, "answer", half)
    with pytest.raises(NetlinkError, match="did not answer"):
        there.accept(256)
    assert not is_open(fd)


def test_a_late_answer_leaves_no_descriptor_open(kernel: FakeKernel) -> None:
    there = connected(kernel)
    fd = descriptor()
    kernel.push(reply(FAMILY, 0xABCDEF, ACCEPT, describe(fd)))
    assert there.accept(256) is None
    assert not is_open(fd)


def test_bytes_that_are_no_answer_change_nothing(kernel: FakeKernel) -> None:
    there = connected(kernel)
    for datagram in (b"\0" * 7, struct.pack("=IHHII", 999, FAMILY, 0, 0, 0), acknowledgement(99, errno.EIO), bytes(64)):
        kernel.push(datagram)
    there.register()
    assert kernel.registered == [2]


def test_a_message_of_another_process_does_not_count(kernel: FakeKernel, monkeypatch: pytest.MonkeyPatch) -> None:
    there = connected(kernel)
    receive = kernel.recvfrom
    monkeypatch.setattr(kernel, "recvfrom", lambda size: (receive(size)[0], (4711, 0)))
    with pytest.raises(NetlinkError, match="did not answer"):
        there.register()


def test_done_and_its_keys_are_overwritten(kernel: FakeKernel) -> None:
    there = connected(kernel)
    key = DirectionKey(Secret(KEY), 1)
    there.done(4, Opened(key, key, b"", "db", bytes(32)))
    there.done(5, errno.ENOKEY)
    assert kernel.errors() == [0, errno.ENOKEY]
    assert kernel.done[0][9] == KEY
    assert all(request == bytes(len(request)) for request in kernel.sent)
    kernel.unknown = {6}
    with pytest.raises(NetlinkError) as caught:
        there.done(6, errno.EACCES)
    assert caught.value.errno == errno.ENOENT


async def test_ready(kernel: FakeKernel) -> None:
    there = connected(kernel)
    with trio.move_on_after(0.05) as scope:
        await there.wait_ready()
    assert scope.cancelled_caught
    kernel.notify()
    with trio.fail_after(5):
        await there.wait_ready()
    kernel.notify()
    there.register()  # reads the notification on its way
    with trio.fail_after(5):
        await there.wait_ready()
    there.look_again()
    with trio.fail_after(5):
        await there.wait_ready()


@pytest.mark.parametrize("news", ["ready", "full", "unloaded"])
async def test_a_request_of_another_task_reads_the_notification(
    kernel: FakeKernel, monkeypatch: pytest.MonkeyPatch, news: str
) -> None:
    """The waiting task is woken although Trio never sees that the socket can be read."""
    there = connected(kernel)
    receive, full = kernel.recvfrom, [OSError(errno.ENOBUFS, "full")] if news == "full" else []
    woken = []

    def lossy(size: int) -> tuple[bytes, tuple[int, int]]:
        if full:
            raise full.pop()
        return receive(size)

    async def wait() -> None:
        try:
            await there.wait_ready()
        except NetlinkError as exc:
            woken.append(exc.errno)
        else:
            woken.append(0)

    with trio.fail_after(5):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(wait)
            await trio.testing.wait_all_tasks_blocked()
            monkeypatch.setattr(kernel, "recvfrom", lossy)
            if news == "ready":
                kernel.notify()
            elif news == "unloaded":
                kernel.unload()
            there.register()
    assert woken == [errno.ENODEV if news == "unloaded" else 0]


async def test_a_lost_notification_is_taken_for_one(kernel: FakeKernel, monkeypatch: pytest.MonkeyPatch) -> None:
    there = connected(kernel)
    receive, full = kernel.recvfrom, [OSError(errno.ENOBUFS, "full")]

    def lossy(size: int) -> tuple[bytes, tuple[int, int]]:
        if full:
            raise full.pop()
        return receive(size)

    monkeypatch.setattr(kernel, "recvfrom", lossy)
    kernel.push(bytes(1))
    with trio.fail_after(5):
        await there.wait_ready()
