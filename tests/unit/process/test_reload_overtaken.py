"""A stop or a takeover that comes while a reload reads the file: the reload changes nothing any more."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest
import trio

from stcp_proxy.config import KeyAuth, Mode, Plan, TunnelPlan
from stcp_proxy.errors import ShuttingDown
from stcp_proxy.keys import PrivateKey, PublicKey
from stcp_proxy.net.address import TcpAddress
from stcp_proxy.process.reload import Reloader
from stcp_proxy.protocol.secret import Secret
from stcp_proxy.protocol.wire import Suite
from stcp_proxy.tunnel.tunnels import Tunnels

TUNNEL = TunnelPlan(
    name="a",
    mode=Mode.LISTEN,
    bind=TcpAddress("127.0.0.1", 0),
    to=(TcpAddress("127.0.0.1", 1),),
    auth=KeyAuth(PrivateKey(Secret(bytes(range(32)))), {PublicKey(bytes(range(1, 33))): "app"}),
    suites=(Suite.CLASSIC_KEYS,),
)
NEW = Plan((TUNNEL,))


async def stop(tunnels: Tunnels) -> None:
    await tunnels.stop_accepting(Mode.LISTEN)


async def replaced(tunnels: Tunnels) -> None:
    await tunnels.hand_over(())


@pytest.mark.parametrize("end", [stop, replaced])
async def test_a_draining_process_does_not_listen_again(end: Callable[[Tunnels], Awaitable[None]]) -> None:
    tunnels = Tunnels(Plan(()))

    def read() -> Callable[[], Plan]:
        def finish() -> Plan:
            trio.from_thread.run(end, tunnels)
            return NEW

        return finish

    async with trio.open_nursery() as nursery:
        tunnels.open()
        tunnels.start(nursery, nursery)
        with pytest.raises(ShuttingDown):
            await Reloader(tunnels, read).reload()
        assert tunnels.serving == []
        nursery.cancel_scope.cancel()
    tunnels.close()
