"""The parent's half of a reload: whatever a worker does but say yes, the round ends, and all are told."""

from __future__ import annotations

import dataclasses
import select
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from stcp_proxy.config import KeyAuth, Mode, Plan, TunnelPlan
from stcp_proxy.errors import ConfigError
from stcp_proxy.keys import PrivateKey, PublicKey
from stcp_proxy.net.address import TcpAddress
from stcp_proxy.process import reload_messages
from stcp_proxy.process.reload_parent import ReloadParent
from stcp_proxy.protocol.secret import Secret
from stcp_proxy.protocol.wire import Suite

TUNNEL = TunnelPlan(
    name="a",
    mode=Mode.LISTEN,
    bind=TcpAddress("127.0.0.1", 0),
    to=(TcpAddress("127.0.0.1", 1),),
    auth=KeyAuth(PrivateKey(Secret(bytes(range(32)))), {PublicKey(bytes(range(1, 33))): "app"}),
    suites=(Suite.CLASSIC_KEYS,),
)
OLD = Plan((TUNNEL,), workers=2)
NEW = dataclasses.replace(OLD, tunnels=(TUNNEL, dataclasses.replace(TUNNEL, name="b")))


class Group:
    """A leader, and the workers' ends in the test's hands."""

    def __init__(self, patience: float) -> None:
        pairs = [reload_messages.pair() for _ in range(2)]
        self.workers = [worker for _, worker in pairs]
        self.leader = ReloadParent(OLD, lambda: lambda: NEW, [line for line, _ in pairs], {}, patience=patience)
        self.leader.start()
        self.port = 0

    def hear(self, number: int) -> tuple[str, dict[str, Any]]:
        """The next message to a worker."""
        poll = select.poll()
        poll.register(self.workers[number], select.POLLIN)
        assert poll.poll(10_000), "nothing comes"
        heard = reload_messages.receive(self.workers[number])
        assert heard is not None
        for sock in heard.sockets:
            if heard.verb == "listeners":
                self.port = sock.getsockname()[1]
            sock.close()
        return heard.verb, heard.rest | {"round": heard.round}

    def say(self, number: int, verb: str, round_: int = 0, **rest: Any) -> None:
        reload_messages.send(self.workers[number], verb, round_, **rest)

    def both(self, verb: str, answer: str | None = "yes") -> int:
        """Both get this and answer. Returns the round."""
        for number in range(2):
            heard, rest = self.hear(number)
            assert heard == verb
            if answer:
                self.say(number, answer, rest["round"])
        return int(rest["round"])

    def refused(self) -> list[dict[str, Any]]:
        found = [self.hear(number) for number in range(2)]
        assert [verb for verb, _ in found] == ["refused", "refused"]
        return [rest for _, rest in found]

    def close(self) -> None:
        for worker in self.workers:
            worker.close()
        self.leader.close()


@pytest.fixture
def group(request: pytest.FixtureRequest) -> Iterator[Group]:
    found = Group(getattr(request, "param", 10.0))
    yield found
    found.close()


@pytest.mark.parametrize("group", [0.05], indirect=True)
def test_a_silent_worker(group: Group) -> None:
    """It is not waited for, and what it says later belongs to the past."""
    group.leader.reload()
    assert group.hear(0)[0] == "plan"
    _, rest = group.hear(1)
    group.say(1, "yes", rest["round"])
    first, _ = group.refused()
    assert first["why"] == "worker 0 has not answered in 0.05 seconds"
    group.leader.reload()
    assert group.hear(0)[0] == group.hear(1)[0] == "plan"
    group.say(0, "yes", rest["round"])
    group.say(1, "yes", rest["round"] + 1)
    assert group.refused()[0]["why"] == "worker 0 has not answered in 0.05 seconds"
    assert group.leader.plan is OLD


def test_one_says_no_to_the_doors(group: Group) -> None:
    """The port of the tunnel that was to come is free again; whoever asked, and nobody else, hears why."""
    group.say(0, "ask")
    group.both("plan")
    assert group.hear(1)[0] == "listeners"
    port, (verb, rest) = group.port, group.hear(0)
    assert (verb, rest["names"], rest["last"]) == ("listeners", ["b"], True)
    assert group.port == port  # SO_REUSEPORT: a socket of its own for each
    group.say(1, "no", rest["round"], why="no room", remedy="make some")
    for told in group.refused():
        assert (told["why"], told["remedy"], told["asked"]) == ("worker 1: no room", "make some", [0])
    with socket.socket() as sock:
        deadline = time.monotonic() + 10
        while sock.connect_ex(("127.0.0.1", port)) == 0:
            assert time.monotonic() < deadline
    group.leader.reload()
    group.both("plan", None)
    group.say(0, "no", 2, why="", remedy=None)
    assert group.refused()[0]["asked"] == []


def test_a_worker_ends(group: Group) -> None:
    group.leader.reload()
    assert group.hear(0)[0] == group.hear(1)[0] == "plan"
    group.workers[1].close()
    verb, rest = group.hear(0)
    assert verb == "refused"
    assert "shutting down" in rest["why"] or "stopping" in rest["why"]


def test_as_many_sockets_as_may_go_with_one_message() -> None:
    ours, theirs = reload_messages.pair()
    with ours, theirs, socket.socket() as sock:
        reload_messages.send(
            ours,
            "listeners",
            1,
            sockets=[sock] * reload_messages.MAX_SOCKETS,
            names=["a"] * reload_messages.MAX_SOCKETS,
            last=True,
        )
        heard = reload_messages.receive(theirs)
        assert heard is not None
        inherited = [each.get_inheritable() for each in heard.sockets]
        for each in heard.sockets:
            each.close()
        assert heard.complete
        assert inherited == [False] * reload_messages.MAX_SOCKETS
        with pytest.raises(BlockingIOError):
            reload_messages.receive(theirs)
        ours.close()
        assert reload_messages.receive(theirs) is None


def slow_reload(group: Group) -> threading.Event:
    """Begin a reload whose file is being read until the event is set, and then has a mistake."""
    reading, read = threading.Event(), threading.Event()

    def slow() -> Plan:
        reading.set()
        assert read.wait(10)
        raise ConfigError("no", remedy="no")

    group.leader._read = lambda: slow
    group.leader.reload()
    assert reading.wait(10)
    return read


@pytest.mark.parametrize("group", [0.05], indirect=True)
def test_a_request_that_was_given_up_is_not_carried_out_later(group: Group) -> None:
    """A takeover that was refused because a reload took long must not make the workers drain afterwards."""
    read = slow_reload(group)
    with pytest.raises(ConfigError, match="a reload is under way"):
        group.leader.collect()
    read.set()
    assert group.hear(0)[0] == group.hear(1)[0] == "refused"
    group.leader._read = lambda: lambda: OLD
    group.leader.reload()
    assert group.hear(0)[0] == "plan"  # and no `give` before it


@pytest.mark.parametrize("group", [0.05], indirect=True)
def test_a_new_process_that_serves_waits_for_a_reload(group: Group) -> None:
    """It accepts already, so the old one drains in any case."""
    read = slow_reload(group)
    thread = threading.Thread(target=group.leader.replaced, args=({}, ()))
    thread.start()
    thread.join(0.5)  # longer than it would wait for an answer
    assert thread.is_alive()
    read.set()
    assert group.hear(0)[0] == group.hear(1)[0] == "refused"
    assert group.hear(0)[0] == group.hear(1)[0] == "replaced"
    thread.join(10)
    assert group.leader.was_replaced
