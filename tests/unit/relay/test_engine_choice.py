"""auto, kernel and python, with and without the module, which is played by a fake probe: this machine may have it or not."""

from __future__ import annotations

import errno
import socket

import pytest

from stcp_proxy.errors import ConfigError
from stcp_proxy.protocol.secret import Secret
from stcp_proxy.relay import engine_choice, kernel
from stcp_proxy.relay.engine import DirectionKey, Handover, RelayEnd, RelayLimits
from stcp_proxy.relay.kernel import KernelEngine, KernelUnavailable


def absent() -> None:
    raise KernelUnavailable(errno.ENOENT, "the module stcp is not loaded")


def present() -> bool:
    return True


def old() -> bool:
    return False


@pytest.mark.parametrize(
    ("configured", "probe", "name", "why"),
    [
        ("python", absent, "python", "configured"),
        ("python", present, "python", "configured"),
        ("auto", absent, "python", "the module stcp is not loaded"),
        ("auto", present, "kernel", "the module stcp is loaded"),
        ("kernel", present, "kernel", "configured"),
        ("auto", old, "kernel", "the module stcp is loaded; the module is older than this program, and wire legs are not kept"),
    ],
)
def test_choice(monkeypatch: pytest.MonkeyPatch, configured: str, probe: object, name: str, why: str) -> None:
    monkeypatch.setattr(engine_choice, "probe", probe)
    monkeypatch.setattr(engine_choice, "compiled", lambda: True)
    engine, reason = engine_choice.choose(configured)
    assert (engine.name, reason) == (name, why)
    monkeypatch.setattr(engine_choice, "compiled", lambda: False)
    engine, reason = engine_choice.choose(configured)
    assert (engine.name, reason) == (name, f"{why}; not compiled" if name == "python" else why)


def test_a_required_module_that_is_not_there_is_refused_with_the_way_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_choice, "probe", absent)
    with pytest.raises(ConfigError, match=r"not loaded; modprobe stcp, build it as docs/KERNEL.md says"):
        engine_choice.choose("kernel")


def test_check_says_what_it_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_choice, "probe", absent)
    monkeypatch.setattr(engine_choice, "compiled", lambda: True)
    said = "kernel engine: not available, the module stcp is not loaded; engine auto is python"
    assert engine_choice.describe_kernel() == f"{said}, compiled"
    monkeypatch.setattr(engine_choice, "compiled", lambda: False)
    assert engine_choice.describe_kernel().startswith(f"{said}, not compiled and therefore slower: install gcc")
    monkeypatch.setattr(engine_choice, "probe", present)
    assert engine_choice.describe_kernel() == "kernel engine: the module stcp is loaded; engine auto is kernel"
    monkeypatch.setattr(engine_choice, "probe", old)
    assert engine_choice.describe_kernel().endswith("wire legs are not kept: build it again as docs/KERNEL.md says, and load it")


def test_legs_are_not_kept_with_an_older_module(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (engine_choice, kernel):
        monkeypatch.setattr(module, "probe", old)
    engine, reason = engine_choice.choose("kernel")
    assert reason == "configured; the module is older than this program, and wire legs are not kept"
    engine.start()
    assert not engine.keeps_legs
    engine.close()


class Ends:
    def __init__(self) -> None:
        self.ends: list[RelayEnd] = []

    def __call__(self, end: RelayEnd) -> None:
        self.ends.append(end)


@pytest.mark.parametrize(
    ("number", "reason"),
    [
        (errno.ENOENT, "the module stcp is not loaded any more"),
        (errno.ENOTCONN, "one of its legs is gone already"),
        (errno.EOPNOTSUPP, "the module stcp refused it: Operation not supported"),
    ],
)
def test_what_the_module_does_not_take_goes_to_the_python_engine(
    monkeypatch: pytest.MonkeyPatch, number: int, reason: str
) -> None:
    def refuse(handover: Handover) -> None:
        raise OSError(number, "Operation not supported")

    monkeypatch.setattr(kernel, "probe", present)
    monkeypatch.setattr(kernel, "hand_over", refuse)
    engine, ends = KernelEngine(), Ends()
    engine.start()
    app, plain = socket.socketpair()
    peer, wire = socket.socketpair()
    for sock in (plain, wire):
        sock.setblocking(False)
    key = DirectionKey(Secret(bytes(32)), 0)
    # A socket pair has no address family that would name the reason.
    monkeypatch.setattr(kernel, "_is_unix", lambda sock: False)
    relay = engine.adopt(Handover(plain, wire, key, key, limits=RelayLimits()), ends)
    assert (relay.engine, relay.why_engine) == ("python", reason)
    assert engine.fallbacks == {reason: 1}
    app.sendall(b"text")
    assert len(peer.recv(100)) == 24
    assert relay.counts() == (4, 0)
    engine.close()
    assert len(ends.ends) == 1
    for sock in (app, peer):
        sock.close()


def test_a_wire_leg_that_cannot_be_watched_is_not_handed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    """Past the handover nothing may fail: the module would carry a connection whose end nobody hears of."""

    class Full:
        def register(self, fd: int, events: int) -> None:
            raise OSError(errno.ENOSPC, "no epoll watch is left")

    handed_over: list[Handover] = []
    monkeypatch.setattr(kernel, "probe", present)
    monkeypatch.setattr(kernel, "hand_over", handed_over.append)
    monkeypatch.setattr(kernel, "_is_unix", lambda sock: False)
    engine, ends = KernelEngine(), Ends()
    engine.start()
    epoll = engine._epoll
    engine._epoll = Full()  # type: ignore[assignment]
    app, plain = socket.socketpair()
    peer, wire = socket.socketpair()
    for sock in (plain, wire):
        sock.setblocking(False)
    key = DirectionKey(Secret(bytes(32)), 0)
    assert engine.adopt(Handover(plain, wire, key, key), ends).engine == "python"
    assert handed_over == []
    engine._epoll = epoll
    engine.close()
    assert len(ends.ends) == 1
    for sock in (app, peer):
        sock.close()


def test_a_unix_plain_leg_is_the_python_engines(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the module the real handover fails at its first option, and the reason is still the one that stays true with it."""
    monkeypatch.setattr(kernel, "probe", present)
    engine, ends = KernelEngine(), Ends()
    engine.start()
    app, plain = socket.socketpair()
    peer, wire = socket.socketpair()
    for sock in (plain, wire):
        sock.setblocking(False)
    key = DirectionKey(Secret(bytes(32)), 0)
    relay = engine.adopt(Handover(plain, wire, key, key), ends)
    assert (relay.engine, relay.why_engine) == ("python", "its plain leg is a unix socket")
    engine.close()
    for sock in (app, peer):
        sock.close()
