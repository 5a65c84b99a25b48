"""The connection of one client of the admin address, with deadlines."""

from __future__ import annotations

import ipaddress
import socket
from typing import Any, Final

import trio

from stcp_proxy.admin.access import TRUSTED
from stcp_proxy.admin.source_limit import source_of

_CHUNK: Final = 4096
"""Bytes that are parsed at a time. The relays wait while these bytes are processed."""
_SPOKEN: Final = b"HTTP/1.1 "
"""The beginning of every answer."""
_SWITCHED: Final = b"HTTP/1.1 101 "
"""The beginning of an answer that switches to a different protocol."""
_PATIENCE: Final = 10.0
"""Seconds that a client may take to read an answer or to send a request."""
LAST_WORDS: Final = 2.0
"""Seconds for the last answer, after the client has ended its side."""


def is_local(address: Any) -> bool:
    """Whether an address of `accept` belongs to a unix socket or to loopback."""
    if not isinstance(address, tuple):
        return True
    ip = ipaddress.ip_address(address[0].partition("%")[0])
    return (getattr(ip, "ipv4_mapped", None) or ip).is_loopback


class ClientStream:
    """The socket stream of one client, with deadlines. Hypercorn sends inside a shield, so only these deadlines end a send to a
    client that does not read.

    Args:
        sock: the connection.
        address: the client's address, as `accept` returns it.
        who: the client, for the log: its process or its address.

    Attributes:
        source: the name of its source, from `source_of`.
        local: whether the client is on this host, by its address.
        request: the current or last request, as `AccessControl` has marked it.

    Raises:
        OSError: the connection is closed already.
    """

    def __init__(self, sock: socket.socket, address: Any, who: str) -> None:
        self.address: Final = address
        self.source: Final = source_of(address)
        self.local: Final = is_local(address)
        self.who: Final = who
        self._stream = trio.SocketStream(trio.socket.from_stdlib_socket(sock))
        self._unread = b""
        self.socket: Final = self._stream.socket
        self.scope: Final = trio.CancelScope()
        self.request: dict[str, Any] = {}
        self._has_spoken = False

    @property
    def trusted(self) -> bool:
        """Whether its last request had full access. A connection without the token never displaces such a connection."""
        return bool(self.request.get(TRUSTED))

    def abort(self) -> None:
        """Close the connection now, even during a shielded wait."""
        self.socket.close()
        self.scope.cancel()

    def unread(self, data: bytes) -> None:
        """Have the next `receive_some` return `data`."""
        self._unread = data

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        if self._unread:
            data, self._unread = self._unread, b""
            await trio.lowlevel.checkpoint()
            return data
        data = b""
        try:
            data = bytes(await self._stream.receive_some(min(max_bytes or _CHUNK, _CHUNK)))
        finally:
            if not data:  # the client sends no more, but may still read the answer to its last request
                self.scope.deadline = trio.current_time() + LAST_WORDS
        return data

    async def send_all(self, data: bytes) -> None:
        if data.startswith(_SWITCHED) or not (self._has_spoken or data.startswith(_SPOKEN)):
            self.abort()
            raise trio.BrokenResourceError("another protocol")
        self._has_spoken = True
        with trio.move_on_after(_PATIENCE):
            await self._stream.send_all(data)
            return
        self.abort()
        raise trio.BrokenResourceError("the client does not read")

    async def send_eof(self) -> None:
        await self._stream.send_eof()

    async def aclose(self) -> None:
        await self._stream.aclose()
        self.scope.cancel()
