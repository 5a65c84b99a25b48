"""A host of a lobby, for tests."""

from __future__ import annotations

import socket

import trio

from stcp_proxy.errors import StcpError
from stcp_proxy.protocol.wire import Suite
from stcp_proxy.tunnel.caller import Caller
from stcp_proxy.tunnel.connections import no_place
from stcp_proxy.tunnel.lobby import Lobby

from .engine_loop import EngineLoop


class Site:
    """The host of a lobby.

    Attributes:
        ready: whether handshakes may begin.
        begun: callers whose session began, by address.
        refused: labels of refused callers, by address.
        evicted: addresses of callers that lost their places.
        places: callers with a place.
        engine: drives the lobby; None where a task does.
        asked: how often the lobby asked whether a handshake may begin.
    """

    def __init__(self, engine: EngineLoop | None = None) -> None:
        self.engine = engine
        self.asked = 0
        self.ready = True
        self.begun: list[str] = []
        self.refused: dict[str, str] = {}
        self.evicted: list[str] = []
        self.places = 0
        self.lobby = Lobby(self, lambda: self.engine)
        self.lobby.suites = (Suite.CLASSIC_KEYS,)
        self.nursery: trio.Nursery
        self.callers: list[socket.socket] = []
        """The callers' own ends."""

    def entered(self) -> None:
        self.places += 1

    def left(self) -> None:
        self.places -= 1

    def may_begin(self) -> bool:
        self.asked += 1
        return self.ready

    def begin(self, caller: Caller, connections: trio.Nursery) -> bool:
        self.begun.append(caller.address[0])
        self.on_begin()
        caller.sock.close()
        return False

    def on_begin(self) -> None:
        """What a handshake does meanwhile: nothing, unless a test says so."""

    def refuse(self, caller: Caller, failure: StcpError) -> None:
        if failure.label == "over_limit":
            self.evicted.append(caller.address[0])
        else:
            self.refused[caller.address[0]] = failure.label

    def why_evicted(self) -> StcpError:
        return no_place()

    def close(self) -> None:
        for caller in self.callers:
            caller.close()

    def call(self, host: str, says: bytes = b"") -> socket.socket:
        """A caller; returns its own end."""
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        self.callers.append(theirs)
        if says:
            theirs.send(says)
        self.lobby.add(ours, (host, 1), self.nursery)
        return theirs
