"""The agent in a process that serves: start, reload, stop, and the command on a machine without the module."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest
import trio
import trio.testing
from harness.process import wait_for
from harness.proxies import Keys, Proxy

from stcp_proxy.agent import agent as agents
from stcp_proxy.agent.netlink_abi import AGENT_INTERFACE
from stcp_proxy.config import KeyAuth, Plan
from stcp_proxy.errors import ConfigError
from stcp_proxy.process.kernel_agent import KernelAgent, check_same

from .fake_kernel import FakeKernel, connected, describe
from .stage import SERVER, STRANGER, USER, both_sides, connection, expected, identity, plan, until

PLAN = Plan((), both_sides())


@pytest.fixture
def module(kernel: FakeKernel, monkeypatch: pytest.MonkeyPatch) -> FakeKernel:
    monkeypatch.setattr(agents, "open_netlink", lambda: connected(kernel))
    return kernel


async def test_from_start_to_stop(module: FakeKernel) -> None:
    agent = KernelAgent(PLAN, 0)
    with connection() as (near, far):
        async with trio.open_nursery() as nursery:
            agent.start(nursery)
            await until(lambda: module.registered)
            module.offer(describe(far.dup().detach(), id=1, role=1, identity="server", uid=USER))
            await trio.testing.wait_all_tasks_blocked(0.01)
            agent.stop()
            module.offer(describe(near.dup().detach(), id=2, uid=USER))
            with trio.move_on_after(0.05) as scope:
                await agent.wait_ended()
            assert scope.cancelled_caught  # a handshake is under way
            assert len(module.pending) == 1  # and no further one is taken
            near.shutdown(1)
            await agent.wait_ended()
    agent.close()
    assert module.errors() == [errno.ECONNABORTED]
    assert module.registered == [AGENT_INTERFACE]


async def test_a_reload(module: FakeKernel) -> None:
    agent = KernelAgent(PLAN, 0)
    nobody = plan(default=identity(expected()), server=identity(auth=KeyAuth(SERVER, {STRANGER.public: "other"})))
    with connection() as (near, far):
        async with trio.open_nursery() as nursery:
            agent.start(nursery)
            agent.change(Plan((), nobody))
            module.offer(describe(far.dup().detach(), id=1, role=1, identity="server", uid=USER))
            module.offer(describe(near.dup().detach(), id=2, uid=USER))
            await until(lambda: module.done)
            nursery.cancel_scope.cancel()
    agent.close()
    assert module.errors()[0] == errno.EKEYREJECTED


async def test_a_process_without_an_agent() -> None:
    for agent in (KernelAgent(Plan(()), 0), KernelAgent(PLAN, 1)):
        async with trio.open_nursery() as nursery:
            agent.start(nursery)
        agent.change(PLAN)
        agent.stop()
        await agent.wait_ended()
        agent.close()


async def test_an_agent_that_never_served_is_not_waited_for(module: FakeKernel) -> None:
    agent = KernelAgent(PLAN, 0)
    agent.stop()
    await agent.wait_ended()
    agent.close()


def test_a_reload_neither_adds_nor_removes_it() -> None:
    check_same(PLAN, Plan((), plan(default=identity(expected()))))
    check_same(Plan(()), Plan(()))
    with pytest.raises(ConfigError, match="the file has an 'agent': only a new start"):
        check_same(Plan(()), PLAN)
    with pytest.raises(ConfigError, match="no 'agent' any more"):
        check_same(PLAN, Plan(()))


@pytest.mark.skipif(Path("/sys/module/stcp").exists(), reason="the module is loaded here")
@pytest.mark.parametrize("how", ["flags", "file"])
def test_a_machine_without_the_module(tmp_path: Path, how: str) -> None:
    keys = Keys(tmp_path)
    if how == "flags":
        command = ["agent", "--key", str(tmp_path / "client.key"), "--user", "all", "--peer", f"10.0.0.1:1={keys.server.public}"]
    else:
        text = f"identity: client.key\nagent: {{identities: {{default: {{users: all, allow: '{keys.server.public}'}}}}}}\n"
        (tmp_path / "c.yaml").write_text(text)
        command = ["run", str(tmp_path / "c.yaml")]
    with Proxy(command, log=tmp_path / "log") as proxy:
        assert wait_for(lambda: proxy.status, words="the end of the proxy") == 2
        assert (
            "the kernel has no sockets of this protocol; install stcp.ko and load it with `modprobe stcp protocol=253`"
            in proxy.text()
        )
