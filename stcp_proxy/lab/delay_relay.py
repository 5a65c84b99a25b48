"""A path with delay: a relay that passes bytes on later. `python -m stcp_proxy.lab.delay_relay PORT TO SECONDS`.

Loopback answers a SYN at once, so the relay adds the time that the three packets of TCP's handshake would take:

    towards the server   bytes leave one round trip after the accept or later, and take half a round trip
    towards the client   bytes leave one and a half round trips after the accept or later, and take half a round trip

With this, a client that speaks first gets its answer two round trips after its connect, as over a real path. The relay keeps the
order of bytes and passes on the end of each direction. It drops nothing and limits no rate.
"""

from __future__ import annotations

import contextlib
import sys
from typing import Final

import trio

READ: Final = 65536
"""Bytes of one read."""
_AHEAD: Final = 1024
"""The largest number of reads that are delayed in one direction."""


async def carry(source: trio.abc.ReceiveStream, sink: trio.abc.HalfCloseableStream, *, begin: float, delay: float) -> None:
    """Pass the bytes of one direction on, and its end.

    Args:
        source: gives the bytes.
        sink: takes them.
        begin: time on Trio's clock before which no byte leaves the sender.
        delay: seconds on the way.
    """
    put, take = trio.open_memory_channel[tuple[float, bytes]](_AHEAD)

    async def receive() -> None:
        async with put:
            with contextlib.suppress(trio.BrokenResourceError):
                while data := await source.receive_some(READ):
                    await put.send((max(trio.current_time(), begin) + delay, bytes(data)))
            await put.send((max(trio.current_time(), begin) + delay, b""))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(receive)
        async for due, data in take:
            await trio.sleep_until(due)
            with contextlib.suppress(trio.BrokenResourceError):
                await (sink.send_all(data) if data else sink.send_eof())


async def serve(port: int, to: int, round_trip: float) -> None:
    """Relay connections from one port of 127.0.0.1 to another until cancelled."""

    async def connection(client: trio.SocketStream) -> None:
        accepted = trio.current_time()
        try:
            server = await trio.open_tcp_stream("127.0.0.1", to)
        except OSError:
            return
        async with server, trio.open_nursery() as nursery:
            up, down = accepted + round_trip, accepted + 1.5 * round_trip
            nursery.start_soon(lambda: carry(client, server, begin=up, delay=round_trip / 2))
            nursery.start_soon(lambda: carry(server, client, begin=down, delay=round_trip / 2))

    await trio.serve_tcp(connection, port, host="127.0.0.1")


def main() -> None:
    """Serve with the arguments of the command line."""
    port, to, round_trip = sys.argv[1:]
    with contextlib.suppress(KeyboardInterrupt):
        trio.run(serve, int(port), int(to), float(round_trip))


if __name__ == "__main__":
    main()
