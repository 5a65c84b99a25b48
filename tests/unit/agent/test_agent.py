"""The agent between a fake module and real TCP connections: keys for both ends, and an errno for each failure."""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Callable

import pytest
import structlog
import trio

from stcp_proxy.config import KeyAuth, PskAuth
from stcp_proxy.errors import Code
from stcp_proxy.protocol.frames import Opener
from stcp_proxy.protocol.opening import encode_reason
from stcp_proxy.protocol.secret import Secret
from stcp_proxy.protocol.wire import FrameType, Suite

from .fake_kernel import CHANNEL_ID, PEER, RECEIVE_COUNTER, RECEIVE_KEY, SEND_COUNTER, SEND_KEY, WIRE_BYTES, FakeKernel
from .peer import Peer
from .stage import (
    CLIENT,
    FROM_CLIENT,
    SECRET,
    STRANGER,
    TO_SERVER,
    USER,
    both_sides,
    by_certificate,
    connection,
    expected,
    identity,
    plan,
    stage,
)

PSK = PskAuth(SECRET)


def with_psk(auth: KeyAuth) -> KeyAuth:
    return KeyAuth(auth.identity, auth.peers, psk=SECRET)


def by_number(done: list[dict[int, bytes]]) -> list[dict[int, bytes]]:
    return sorted(done, key=lambda found: struct.unpack("=Q", found[1]))


@pytest.mark.parametrize(
    ("suite", "here", "there", "names"),
    [
        (Suite.HYBRID_KEYS, TO_SERVER, FROM_CLIENT, (b"server\0", b"client\0")),
        (Suite.CLASSIC_KEYS, TO_SERVER, FROM_CLIENT, (b"server\0", b"client\0")),
        (Suite.HYBRID_PSK, PSK, PSK, (None, None)),
        (Suite.CLASSIC_PSK, PSK, PSK, (None, None)),
        (Suite.HYBRID_KEYS_PSK, with_psk(TO_SERVER), with_psk(FROM_CLIENT), (b"server\0", b"client\0")),
        (
            Suite.HYBRID_CERTIFICATES,
            by_certificate("dns:app", "dns:db"),
            by_certificate("dns:db", "dns:a*"),
            (b"dns:db\0", b"dns:app\0"),
        ),
    ],
    ids=lambda value: value.name if isinstance(value, Suite) else "",
)
async def test_both_ends_get_matching_keys(
    kernel: FakeKernel, suite: Suite, here: KeyAuth | PskAuth, there: KeyAuth | PskAuth, names: tuple[bytes | None, bytes | None]
) -> None:
    with connection() as (near, far):
        async with stage(kernel, both_sides(suite, here, there)) as running:
            running.offer(near)
            running.offer(far, role=1, identity="server")
            left, right = by_number(await running.done(2))
    assert kernel.errors() == [0, 0]
    assert (left[SEND_KEY], left[RECEIVE_KEY]) == (right[RECEIVE_KEY], right[SEND_KEY])
    assert left[SEND_KEY] != left[RECEIVE_KEY]
    one = struct.pack("=Q", 1)
    assert {found[name] for found in (left, right) for name in (SEND_COUNTER, RECEIVE_COUNTER)} == {one}
    assert left[CHANNEL_ID] == right[CHANNEL_ID]
    assert len(left[CHANNEL_ID]) == 32
    assert (left.get(PEER), right.get(PEER)) == names
    assert kernel.registered == [2]


async def test_its_descriptor_is_closed_and_the_connection_lives(kernel: FakeKernel) -> None:
    before = set(os.listdir("/proc/self/fd"))
    with connection() as (near, far):
        async with stage(kernel, both_sides()) as running:
            running.offer(near)
            running.offer(far, role=1, identity="server")
            await running.done(2)
        near.sendall(b"still there")
        assert far.recv(99) == b"still there"
    kernel.close()
    assert set(os.listdir("/proc/self/fd")) <= before


async def meet(kernel: FakeKernel, behave: Callable[[Peer], None], **more: object) -> tuple[dict[int, bytes], Peer]:
    with connection() as (near, far):
        peer = Peer(far, behave)
        async with stage(kernel, both_sides()) as running:
            running.offer(near, **more)
            (found,) = await running.done()
        await trio.to_thread.run_sync(peer.join)
        return found, peer


@pytest.mark.parametrize(
    ("code", "number"),
    [
        (Code.DENIED, errno.EACCES),
        (Code.UNKNOWN_SERVICE, errno.EACCES),
        (Code.TARGET_REFUSED, errno.ECONNREFUSED),
        (Code.TARGET_TIMED_OUT, errno.ETIMEDOUT),
        (Code.TARGET_UNREACHABLE, errno.EHOSTUNREACH),
        (Code.OVER_LIMIT, errno.ECONNREFUSED),
        (Code.SHUTTING_DOWN, errno.ECONNREFUSED),
        (Code.KEY_REVOKED, errno.EACCES),
        (Code.INTERNAL_ERROR, errno.EPROTO),
        (4711, errno.EPROTO),
    ],
)
async def test_reject(kernel: FakeKernel, code: int, number: int) -> None:
    found, _ = await meet(kernel, lambda peer: peer.send(FrameType.REJECT, encode_reason(code, "")))
    assert kernel.errors() == [number]
    assert SEND_KEY not in found


async def test_bytes_read_beyond_go_back_to_the_kernel(kernel: FakeKernel) -> None:
    frames: list[bytes] = []

    def speak_at_once(peer: Peer) -> None:
        accept = peer.sealer.seal(FrameType.ACCEPT, b"")
        frames.append(peer.sealer.seal(FrameType.DATA, b"banner"))
        peer.raw(accept + frames[0])

    found, _ = await meet(kernel, speak_at_once)
    assert kernel.errors() == [0]
    assert found[WIRE_BYTES] == frames[0]
    opener = Opener(Secret(found[RECEIVE_KEY]), struct.unpack("=Q", found[RECEIVE_COUNTER])[0])
    assert opener.open(frames[0]) == (len(frames[0]), FrameType.DATA, b"banner")


@pytest.mark.parametrize(
    ("behave", "number"),
    [
        (lambda peer: peer.send(FrameType.DATA, b"x"), errno.EPROTO),
        (lambda peer: peer.raw(bytes(64)), errno.EPROTO),
        (lambda peer: peer.send(FrameType.ACCEPT, b"\x04\0\2\0\7"), errno.EPROTO),  # keeps a leg that nobody offered to keep
        (lambda peer: peer.close(), errno.ECONNRESET),
    ],
    ids=["data", "garbage", "keep", "end"],
)
async def test_a_peer_that_breaks_the_protocol(kernel: FakeKernel, behave: Callable[[Peer], None], number: int) -> None:
    await meet(kernel, behave)
    assert kernel.errors() == [number]


async def test_the_service_is_that_of_the_socket(kernel: FakeKernel) -> None:
    _, peer = await meet(kernel, lambda peer: peer.send(FrameType.ACCEPT), service="orders")
    assert peer.opening == (FrameType.OPEN, b"\1\0\6orders")  # no client's address, and no offer to keep the leg


# -- sockets without a rule ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "offered",
    [
        {"identity": "nobody"},
        {"uid": USER + 1},
        {"identity": "elsewhere"},
        {"role": 1},
        {"identity": "server"},
        {"role": 1, "identity": "server", "uid": 0},
    ],
    ids=["unknown identity", "other user", "other address", "listens without allow", "connects without a peer", "root"],
)
async def test_no_identity(kernel: FakeKernel, offered: dict[str, object]) -> None:
    rules = plan(
        default=identity(expected()),
        server=identity(auth=FROM_CLIENT),
        elsewhere=identity(expected(match="127.0.0.2"), expected(match=":1")),
    )
    with connection() as (near, far), structlog.testing.capture_logs() as lines:
        async with stage(kernel, rules) as running:
            running.offer(near, **offered)
            await running.done()
        far.settimeout(0.05)
        with pytest.raises(TimeoutError):
            far.recv(1)  # not a byte went to the peer
    assert kernel.errors() == [errno.ENOKEY]
    (line,) = [line for line in lines if line["event"] == "handshake failed"]
    assert (line["reason"], line["errno"]) == ("no_identity", "ENOKEY")
    assert line["remedy"]


async def test_every_user(kernel: FakeKernel) -> None:
    rules = plan(default=identity(expected(), users=None), server=identity(auth=FROM_CLIENT, users=None))
    with connection() as (near, far):
        async with stage(kernel, rules) as running:
            running.offer(near, uid=7)
            running.offer(far, role=1, identity="server", uid=8)
            await running.done(2)
    assert kernel.errors() == [0, 0]


async def test_the_first_address_that_matches_decides(kernel: FakeKernel) -> None:
    wrong = KeyAuth(CLIENT, {STRANGER.public: "stranger"})
    with connection() as (near, far):
        rules = plan(
            default=identity(expected(wrong, match="127.0.0.1:1"), expected(), expected(wrong, match="127.0.0.0/8")),
            server=identity(auth=FROM_CLIENT),
        )
        async with stage(kernel, rules) as running:
            running.offer(near)
            running.offer(far, role=1, identity="server")
            await running.done(2)
    assert kernel.errors() == [0, 0]


# -- services of listening sockets -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("service", "numbers"), [("orders", [0, 0]), (None, [0, 0]), ("other", [errno.EACCES] * 2)])
async def test_services(kernel: FakeKernel, service: str | None, numbers: list[int]) -> None:
    rules = plan(default=identity(expected(service=service)), server=identity(auth=FROM_CLIENT, services=frozenset({"orders"})))
    with connection() as (near, far):
        async with stage(kernel, rules) as running:
            running.offer(far, role=1, identity="server")
            running.offer(near)
            await running.done(1)
            near.shutdown(socket.SHUT_WR)
            await running.done(2)
    assert kernel.errors() == numbers
