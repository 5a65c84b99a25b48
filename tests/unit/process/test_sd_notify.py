"""What the service manager is told, datagram by datagram, and how several workers speak as one."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio
import trio.testing

from stcp_proxy.process import sd_notify


class Manager:
    """The socket of a service manager."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)
        self._sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._sock.bind(self.path)
        self._sock.settimeout(10)

    def hear(self) -> dict[str, str]:
        """The next datagram."""
        text = self._sock.recv(4096).decode()
        return dict(line.split("=", 1) for line in text.splitlines())

    def heard(self) -> list[str]:
        """The verbs of all that is there already."""
        found = []
        self._sock.setblocking(False)
        try:
            while True:
                found.append(self._sock.recv(4096).decode().partition("=")[0])
        except BlockingIOError:
            return found
        finally:
            self._sock.settimeout(10)

    def close(self) -> None:
        self._sock.close()


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[Manager]:
    found = Manager(tmp_path / "notify")
    yield found
    found.close()
    sd_notify.attach({})


def test_without_a_manager_nothing_happens() -> None:
    sd_notify.attach({})
    sd_notify.ready("all")
    sd_notify.reloading()
    sd_notify.stopping("the rest", seconds=3)


def test_words(manager: Manager) -> None:
    environ = {"NOTIFY_SOCKET": manager.path, "HOME": "/root"}
    sd_notify.attach(environ)
    assert environ == {"HOME": "/root"}  # what this process starts must not speak for it
    sd_notify.ready("2 tunnels\nREADY=0")
    assert manager.hear() == {"READY": "1", "STATUS": "2 tunnels READY=0"}
    before = sd_notify.time.clock_gettime_ns(sd_notify.time.CLOCK_MONOTONIC) // 1000
    sd_notify.reloading()
    told = manager.hear()
    assert told.keys() == {"RELOADING", "MONOTONIC_USEC", "STATUS"}
    assert before <= int(told["MONOTONIC_USEC"]) <= before + 60_000_000
    sd_notify.stopping("3 connections may finish", seconds=30.5)
    assert manager.hear() == {"STOPPING": "1", "EXTEND_TIMEOUT_USEC": "30500000", "STATUS": "3 connections may finish"}
    sd_notify.status("busy")
    assert manager.hear() == {"STATUS": "busy"}


def test_a_manager_that_is_gone_or_does_not_read_costs_nothing_but_its_message(
    manager: Manager, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sd_notify, "_TIMEOUT", 0.01)
    sd_notify.attach({"NOTIFY_SOCKET": manager.path})
    for _ in range(20):  # more than its queue holds
        sd_notify.status("busy")
    os.unlink(manager.path)
    sd_notify.ready("nobody hears it")
    for path in ("vsock:2:1", "relative", "/" + "x" * 300):
        sd_notify.attach({"NOTIFY_SOCKET": path})
        sd_notify.ready("nobody hears it")


async def test_the_watchdog_hears_twice_an_interval(manager: Manager, autojump_clock: trio.testing.MockClock) -> None:
    sd_notify.attach({"NOTIFY_SOCKET": manager.path, "WATCHDOG_USEC": "20000000", "WATCHDOG_PID": str(os.getpid())})
    async with sd_notify.watchdog():
        await trio.sleep(35)
    assert manager.heard() == ["WATCHDOG"] * 4
    await trio.sleep(100)
    assert manager.heard() == []


@pytest.mark.parametrize(
    "environ",
    [{}, {"WATCHDOG_USEC": "0"}, {"WATCHDOG_USEC": "soon"}, {"WATCHDOG_USEC": "2000000", "WATCHDOG_PID": "1"}],
    ids=["none", "zero", "nonsense", "somebody else's"],
)
async def test_no_watchdog(manager: Manager, environ: dict[str, str], autojump_clock: trio.testing.MockClock) -> None:
    sd_notify.attach({"NOTIFY_SOCKET": manager.path, **environ})
    async with sd_notify.watchdog():
        await trio.sleep(1000)
    assert manager.heard() == []


def test_workers_speak_as_one(manager: Manager) -> None:
    """`_heard` is what the parent does with each message."""
    sd_notify.attach({"NOTIFY_SOCKET": manager.path})
    together = sd_notify.WorkerNotifications(2, "2 workers")

    def hear(number: int, text: str) -> list[str]:
        together._heard(str(number), text, text.partition("=")[0])
        return manager.heard()

    assert hear(0, "READY=1\nSTATUS=mine") == []
    assert hear(1, "READY=1\nSTATUS=mine") == ["READY"]
    assert hear(0, "WATCHDOG=1") == []
    assert hear(0, "WATCHDOG=1") == []  # one that hangs is not covered up by one that does not
    assert hear(1, "WATCHDOG=1") == ["WATCHDOG"]
    assert hear(1, "STOPPING=1\nEXTEND_TIMEOUT_USEC=5") == ["STOPPING"]
    assert hear(0, "WATCHDOG=1") == ["WATCHDOG"]  # the other one may have ended
    assert hear(0, "STOPPING=1\nEXTEND_TIMEOUT_USEC=5") == []
    together._receiver.close()
    together._sender.close()
