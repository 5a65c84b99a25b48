"""The agent when something goes wrong, when its rules change, and when it stops."""

from __future__ import annotations

import errno
import os
import socket
import struct
import threading
from pathlib import Path

import pytest
import structlog
import trio

from stcp_proxy.agent import agent as agents
from stcp_proxy.agent import results
from stcp_proxy.agent.netlink import Netlink, NetlinkError
from stcp_proxy.agent.netlink_abi import MAX_PEER
from stcp_proxy.config import KeyAuth
from stcp_proxy.errors import AgentUnavailable
from stcp_proxy.protocol.frames import Sealer
from stcp_proxy.protocol.handshake import Credentials, Responder
from stcp_proxy.protocol.noise import KeyPair
from stcp_proxy.protocol.wire import FrameType, Suite

from .fake_kernel import FakeKernel, connected, describe
from .peer import Peer
from .stage import (
    CLIENT,
    SERVER,
    STRANGER,
    USER,
    both_sides,
    connection,
    expected,
    identity,
    plan,
    stage,
    until,
)

# -- failed handshakes -----------------------------------------------------------------------------------------------------


async def test_a_peer_with_another_key(kernel: FakeKernel) -> None:
    """The initiator's message 1 is for a different key, so the responder cannot read it and says nothing."""
    rules = both_sides(here=KeyAuth(CLIENT, {STRANGER.public: "server"}))
    with connection() as (near, far):
        async with stage(kernel, rules) as running:
            running.offer(far, role=1, identity="server")
            running.offer(near)
            await running.done()
            far.shutdown(socket.SHUT_RDWR)  # as the kernel closes the connection
            await running.done(2)
    assert kernel.errors() == [errno.EKEYREJECTED, errno.EKEYREJECTED]


async def test_a_stranger(kernel: FakeKernel) -> None:
    rules = both_sides(there=KeyAuth(SERVER, {STRANGER.public: "stranger"}))
    with connection() as (near, far), structlog.testing.capture_logs() as lines:
        async with stage(kernel, rules) as running:
            running.offer(far, role=1, identity="server")
            running.offer(near)
            await running.done()
    assert kernel.errors()[0] == errno.EKEYREJECTED
    assert next(line for line in lines if line["event"] == "handshake failed")["key"] == str(CLIENT.public)


async def test_plain_text_is_never_taken(kernel: FakeKernel) -> None:
    with connection() as (near, far):
        async with stage(kernel, both_sides()) as running:
            running.offer(near)
            await trio.to_thread.run_sync(far.recv, 4096)
            far.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n" + bytes(200))
            await running.done()
    assert kernel.errors() == [errno.EKEYREJECTED]


async def test_a_silent_peer(kernel: FakeKernel) -> None:
    with connection() as (near, _):
        async with stage(kernel, both_sides()) as running:
            running.offer(near, timeout=30)
            await running.done()
    assert kernel.errors() == [errno.ETIMEDOUT]


async def test_a_connection_that_is_gone(kernel: FakeKernel) -> None:
    with connection() as (near, far):
        far.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        far.close()
        await until(lambda: near.getsockopt(socket.SOL_TCP, socket.TCP_INFO, 1) != b"\1")
        async with stage(kernel, both_sides()) as running:
            running.offer(near)
            await running.done()
    assert kernel.errors() == [errno.ENOKEY]


async def test_a_descriptor_that_is_no_socket(kernel: FakeKernel, tmp_path: Path) -> None:
    fd = os.open(tmp_path, os.O_RDONLY)
    async with stage(kernel, both_sides()) as running:
        kernel.offer(describe(fd, uid=USER))
        await running.done()
    assert kernel.errors() == [errno.ECONNABORTED]
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(fd)


async def test_failures_of_accept_that_pass(kernel: FakeKernel, monkeypatch: pytest.MonkeyPatch) -> None:
    """The netlink socket is kept: its end would fail the handshakes under way."""
    monkeypatch.setattr(agents, "_AGAIN", 0.01)
    kernel.accept_fails = [errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS, errno.EMSGSIZE, errno.EAGAIN, -1]
    with connection() as (near, far), structlog.testing.capture_logs() as lines:
        async with stage(kernel, both_sides()) as running:
            running.offer(far, role=1, identity="server")
            running.offer(near)
            await running.done(2)
    assert kernel.errors() == [0, 0]
    (line,) = [line for line in lines if line["event"] == "handshake was not taken"]
    assert line["why"] == os.strerror(errno.EMFILE)
    assert not [line for line in lines if line["event"] == "agent stopped"]


async def test_ready_that_found_no_memory(kernel: FakeKernel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(agents, "_LOOK", 0.05)
    monkeypatch.setattr(kernel, "notify", lambda: None)
    with connection() as (near, far):
        async with stage(kernel, both_sides()) as running:
            await trio.sleep(0.02)
            running.offer(far, role=1, identity="server")
            running.offer(near)
            await running.done(2)
    assert kernel.errors() == [0, 0]


async def test_a_name_that_is_too_long_for_its_option(kernel: FakeKernel) -> None:
    there = KeyAuth(SERVER, {CLIENT.public: "c" * (MAX_PEER + 1)})
    with connection() as (near, far):
        async with stage(kernel, both_sides(there=there)) as running:
            running.offer(far, role=1, identity="server")
            running.offer(near)
            await running.done(1)
            near.shutdown(socket.SHUT_WR)
            await running.done(2)
    assert kernel.errors() == [errno.EACCES, errno.EACCES]


# -- keys that change ------------------------------------------------------------------------------------------------------


async def test_which_of_two_keys_the_peer_has_is_found_out_first(kernel: FakeKernel) -> None:
    """The peer has its old key; the file names the new one first."""
    auth = KeyAuth(CLIENT, {STRANGER.public: "server", SERVER.public: "server"})
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            while True:
                sock, _ = listener.accept()
                with sock:
                    responder = Responder(
                        (Suite.CLASSIC_KEYS,), Credentials(static=KeyPair(SERVER.secret)), allowed={CLIENT.public.raw}
                    )
                    try:
                        while (answer := responder.receive(sock.recv(4096))) is None:
                            pass
                    except Exception:
                        continue
                    sock.sendall(answer.reply)
                    sealer = Sealer(answer.established.send_key)
                    if sock.recv(4096):
                        sock.sendall(sealer.seal(FrameType.ACCEPT, b""))
                        return

        with socket.create_connection(listener.getsockname()) as near:
            late, _ = listener.accept()  # the socket's own connection, served after those that look for the key
            thread = threading.Thread(target=serve)
            async with stage(kernel, plan(default=identity(expected(auth)))) as running:
                thread.start()
                running.offer(near)
                peer = await trio.to_thread.run_sync(lambda: Peer(late, lambda peer: peer.send(FrameType.ACCEPT)))
                await running.done()
                await trio.to_thread.run_sync(peer.join)
                with socket.create_connection(listener.getsockname()) as last:  # ends the thread; the key is known now
                    running.offer(last)
                    await running.done(2)
                await trio.to_thread.run_sync(thread.join)
            late.close()
    assert kernel.errors() == [0, 0]


async def test_the_search_for_a_key_ends_with_the_connection(kernel: FakeKernel) -> None:
    """The application has closed its socket, and the peer is silent: the place is for others."""
    auth = KeyAuth(CLIENT, {STRANGER.public: "server", SERVER.public: "server"})
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.create_connection(listener.getsockname()) as near:
        far, _ = listener.accept()
        async with stage(kernel, plan(default=identity(expected(auth)))) as running:
            running.offer(near, timeout=300_000)
            asked, _ = await trio.to_thread.run_sync(listener.accept)  # the search has begun
            assert not kernel.done
            near.shutdown(socket.SHUT_RD)  # as the kernel does
            await running.done()
        asked.close()
        far.close()
    assert kernel.errors() == [errno.EKEYREJECTED]


async def test_a_key_that_a_reload_takes_away_during_a_handshake(kernel: FakeKernel) -> None:
    with connection() as (near, far):
        async with stage(kernel, both_sides()) as running:
            running.offer(far, role=1, identity="server")
            await trio.testing.wait_all_tasks_blocked(0.01)
            nobody = plan(default=identity(expected()), server=identity(auth=KeyAuth(SERVER, {STRANGER.public: "other"})))
            running.agent.change(nobody)
            running.offer(near)
            await running.done(1)
            near.shutdown(socket.SHUT_WR)
            await running.done(2)
    assert kernel.errors() == [errno.EACCES, errno.EACCES]


async def test_a_reload_that_keeps_a_rule_keeps_its_handshakes(kernel: FakeKernel) -> None:
    with connection() as (near, far):
        async with stage(kernel, both_sides()) as running:
            running.offer(far, role=1, identity="server")
            await trio.testing.wait_all_tasks_blocked(0.01)
            running.agent.change(plan(**both_sides().identities, more=identity(expected())))
            running.offer(near)
            await running.done(2)
    assert kernel.errors() == [0, 0]


# -- the life of an agent --------------------------------------------------------------------------------------------------


async def test_stop_lets_handshakes_end(kernel: FakeKernel) -> None:
    with connection() as (near, far):
        async with stage(kernel, both_sides()) as running:
            running.offer(far, role=1, identity="server")
            running.offer(near)
            await until(lambda: not kernel.pending)
            running.agent.stop()
            with trio.fail_after(10):
                await running.agent.ended.wait()
    assert kernel.errors() == [0, 0]


async def test_a_stop_that_cuts_handshakes_off(kernel: FakeKernel) -> None:
    with connection() as (near, _):
        async with stage(kernel, both_sides()) as running:
            running.offer(near)
            await until(lambda: not kernel.pending)
    assert kernel.errors() == [errno.ECONNABORTED]
    assert running.agent.ended.is_set()


async def test_another_agent_is_waited_for(kernel: FakeKernel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(agents, "_AGAIN", 0.01)
    kernel.busy = True
    with structlog.testing.capture_logs() as lines:
        async with stage(kernel, both_sides()):
            await until(lambda: any(line["event"] == "another agent is registered" for line in lines))
            await trio.sleep(0.05)
            kernel.busy = False
            await until(lambda: kernel.registered)
    assert [line["event"] for line in lines] == ["another agent is registered", "agent registered"]


@pytest.mark.parametrize(
    ("number", "text"), [(errno.EPERM, "CAP_NET_ADMIN"), (errno.EPROTONOSUPPORT, "one release"), (errno.EIO, "log")]
)
async def test_a_kernel_that_refuses(kernel: FakeKernel, monkeypatch: pytest.MonkeyPatch, number: int, text: str) -> None:
    answer = kernel.answer
    monkeypatch.setattr(kernel, "answer", lambda kind, *rest: number if kind != 0x10 else answer(kind, *rest))
    monkeypatch.setattr(agents, "open_netlink", lambda: connected(kernel))
    with pytest.raises(AgentUnavailable, match=text):
        agents.open_agent(both_sides())


async def test_no_module(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing() -> Netlink:
        raise NetlinkError(errno.ENOENT, "no such family")

    monkeypatch.setattr(agents, "open_netlink", missing)
    with pytest.raises(AgentUnavailable, match="modprobe stcp protocol=253"):
        agents.open_agent(both_sides())


async def test_a_module_that_is_unloaded_and_loaded_again(kernel: FakeKernel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(agents, "_AGAIN", 0.01)
    second, tries = FakeKernel(), [OSError(errno.ENOENT, "not yet")]

    def reopen() -> Netlink:
        if tries:
            raise tries.pop()
        return connected(second)

    agent = agents.Agent(both_sides(), connected(kernel), reopen)
    with connection() as (near, _), structlog.testing.capture_logs() as lines:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(agent.serve)
            await until(lambda: kernel.registered)
            kernel.unload(number=99)  # another family
            kernel.unload()
            await until(lambda: second.registered)
            second.offer(describe(near.dup().detach(), role=1))
            await until(lambda: second.done)
            nursery.cancel_scope.cancel()
    assert [line["event"] for line in lines[:3]] == ["agent registered", "agent stopped", "agent registered"]
    assert lines[1]["why"] == "the module was unloaded"
    assert second.errors() == [errno.ENOKEY]
    second.close()


async def test_a_handshake_that_nobody_wants_any_more(kernel: FakeKernel) -> None:
    kernel.unknown = {1}
    with connection() as (near, far):
        async with stage(kernel, both_sides()) as running:
            running.offer(near, timeout=20)
            running.offer(far, timeout=30)
            await running.done()
    assert len(kernel.done) == 1


async def test_a_bug_ends_one_handshake_alone(kernel: FakeKernel, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError

    with connection() as (near, far), structlog.testing.capture_logs() as lines:
        async with stage(kernel, both_sides()) as running:
            monkeypatch.setattr(running.agent._policy, "rule", broken)
            running.offer(near)
            await running.done()
            monkeypatch.undo()
            running.offer(far, role=1)
            await running.done(2)
    assert kernel.errors() == [errno.ECONNABORTED, errno.ENOKEY]
    assert lines[-2]["why"].startswith("ZeroDivisionError")


async def test_a_log_line_for_each_handshake(kernel: FakeKernel) -> None:
    with connection() as (near, far), structlog.testing.capture_logs() as lines:
        async with stage(kernel, both_sides()) as running:
            running.offer(near, service="x")
            running.offer(far, role=1, identity="server")
            await running.done(1)
            near.shutdown(socket.SHUT_WR)
            await running.done(2)
    (refused,) = [line for line in lines if line["event"] == "handshake failed" and line["role"] == "responder"]
    assert refused["why"].startswith("the peer asks for the service")
    assert (refused["peer"], refused["identity"], refused["service"], refused["user"]) == ("client", "server", "x", USER)
    assert len(refused["channel"]) == 16
    assert str(CLIENT.public) not in str(lines)


@pytest.mark.parametrize("number", [errno.EINVAL, errno.ECONNABORTED])
async def test_a_result_that_the_module_refuses(kernel: FakeKernel, number: int) -> None:
    kernel.refused = {0: number}
    with connection() as (near, far), structlog.testing.capture_logs() as lines:
        async with stage(kernel, both_sides()) as running:
            running.offer(near)
            running.offer(far, role=1, identity="server")
            await running.done(2)
    assert kernel.errors() == [errno.ECONNABORTED] * 2
    assert sum(line["event"] == "the module refused the end of a handshake" for line in lines) == 2


async def test_a_connection_that_ends_before_its_keys_are_there(kernel: FakeKernel) -> None:
    """A peer may reset its connection at any time: no fault of the module. The module has ended the handshake itself."""
    kernel.refused = {0: errno.ECONNRESET}
    with connection() as (near, far), structlog.testing.capture_logs() as lines:
        async with stage(kernel, both_sides()) as running:
            running.offer(near)
            running.offer(far, role=1, identity="server")
            await until(lambda: sum(line["event"] == "connection ended" for line in lines) == 2)
    assert not kernel.done
    assert {line["log_level"] for line in lines} == {"info"}
    ends = [line for line in lines if line["event"] == "connection ended"]
    assert {line["channel"] for line in ends} == {line["channel"] for line in lines if line["event"] == "socket authenticated"}


def test_every_result_is_one_that_the_module_tells() -> None:
    """The list of kernel/sock_netlink.c."""
    every = {*results.REJECTED.values(), *(number for _, number in results._FAILED), results.OTHER, errno.EPROTO}
    assert every <= {
        errno.EACCES, errno.ECONNABORTED, errno.ECONNREFUSED, errno.ECONNRESET, errno.EHOSTUNREACH, errno.EKEYREJECTED,
        errno.ENOKEY, errno.EPROTO, errno.ETIMEDOUT,
    }  # fmt: skip
