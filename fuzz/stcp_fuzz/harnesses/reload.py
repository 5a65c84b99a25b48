"""Sequences of reloads: plans with tunnels that come, go, move and change, and files that are refused, on live listening sockets.

Promises: a reload is applied whole or changes nothing; after each one the process listens on the addresses of the plan in force
and on no others; the difference between two plans is empty only where they are equal; no descriptor is left at the end.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from typing import Final
from unittest import mock

import structlog
import trio

from stcp_fuzz.choices import Choices
from stcp_proxy.config import KeyAuth, Mode, Plan, TunnelPlan
from stcp_proxy.config.diff import difference
from stcp_proxy.errors import ConfigError, StcpError
from stcp_proxy.keys import PrivateKey
from stcp_proxy.logs import log
from stcp_proxy.net.address import TcpAddress
from stcp_proxy.process.reload import Reloader
from stcp_proxy.protocol.secret import Secret
from stcp_proxy.protocol.wire import Suite
from stcp_proxy.tunnel.tunnels import Tunnels

KEYS: Final = tuple(PrivateKey(Secret(bytes([number]) * 32)) for number in range(1, 5))
NAMES: Final = ("a", "b", "c", "d")


def one(data: bytes) -> None:
    """Run one input."""
    before = len(os.listdir("/proc/self/fd"))
    with structlog.testing.capture_logs(), mock.patch.object(log, "change"):
        trio.run(_play, Choices(data))
    assert len(os.listdir("/proc/self/fd")) <= before, "descriptors are left"


def _tunnel(name: str, choices: Choices, hosts: list[int]) -> TunnelPlan:
    return TunnelPlan(
        name=name,
        mode=choices.pick([Mode.LISTEN, Mode.CONNECT]),
        bind=TcpAddress(f"127.77.{hosts[0]}.{1 + choices.byte() % 4}", 7700),
        to=(TcpAddress("127.0.0.1", 1 + choices.byte() % 3),),
        auth=_auth(choices),
        suites=(Suite.CLASSIC_KEYS,),
        max_connections=100,
        max_handshakes=100,
    )


def _auth(choices: Choices) -> KeyAuth:
    others = [key for number, key in enumerate(KEYS[1:], 1) if choices.byte() & 1 << number] or [KEYS[1]]
    return KeyAuth(KEYS[0], {key.public: f"peer-{key.public}"[:16] for key in others})


def _plan(choices: Choices, hosts: list[int]) -> Plan:
    chosen = choices.byte() % 15 + 1
    tunnels = {}
    for number, name in enumerate(NAMES):
        if chosen & 1 << number:
            tunnel = _tunnel(name, choices, hosts)
            tunnels[str(tunnel.bind)] = tunnel
    return Plan(tunnels=tuple(tunnels.values()))


async def _play(choices: Choices) -> None:
    hosts = [os.getpid() % 250 + 1]
    coming: list[Plan | ConfigError] = []

    def read() -> Callable[[], Plan]:
        def wait() -> Plan:
            found = coming.pop()
            if isinstance(found, ConfigError):
                raise found
            return found

        return wait

    tunnels = Tunnels(_plan(choices, hosts))
    tunnels.open()
    reloader = Reloader(tunnels, read)
    try:
        async with trio.open_nursery() as connections, trio.open_nursery() as accepting:
            tunnels.start(accepting, connections)
            for _ in range(choices.byte() % 12):
                await _reload(reloader, tunnels, choices, coming, hosts)
            accepting.cancel_scope.cancel()
            connections.cancel_scope.cancel()
    finally:
        tunnels.close()


async def _reload(
    reloader: Reloader, tunnels: Tunnels, choices: Choices, coming: list[Plan | ConfigError], hosts: list[int]
) -> None:
    old, taken = tunnels.plan, None
    kind = choices.byte() % 8
    coming.append(ConfigError("a mistake") if kind == 0 else old if kind == 1 else _plan(choices, hosts))
    wanted = coming[-1]
    if kind == 2:  # another program has the first address
        try:
            taken = socket.create_server((wanted.tunnels[0].bind.host, 7700))  # type: ignore[union-attr]
        except OSError:
            taken = None
    try:
        changed = await reloader.reload(force=choices.flag())
    except StcpError:
        assert tunnels.plan is old
    else:
        assert tunnels.plan is wanted
        assert changed.empty == (old == wanted)
        assert difference(wanted, tunnels.plan).empty  # type: ignore[arg-type]
    finally:
        if taken is not None:
            taken.close()
    _check_listeners(tunnels)
    await trio.lowlevel.checkpoint()


def _check_listeners(tunnels: Tunnels) -> None:
    listening = sorted(sock.getsockname()[0] for tunnel in tunnels.serving for sock in tunnel.listeners)
    assert listening == sorted(tunnel.bind.host for tunnel in tunnels.plan.tunnels), listening  # type: ignore[union-attr]
    assert [tunnel.plan.name for tunnel in tunnels.serving] == [tunnel.name for tunnel in tunnels.plan.tunnels]
