"""The addresses that a route's host name stands for.

An application looked a name up some time ago and connects to what it found; the proxy has to recognise that address. Name servers
with large pools give out a few addresses at a time, and applications keep what they have found. So an address counts for the name
until `dns.keep` has passed since an answer last contained it, also while no answer comes.

An address that is not known makes the proxy look the name up, at most once a second: a record that has changed is found with the
first connection to its new address. A known address waits for nothing; the name is looked up again behind it now and then.
"""

from __future__ import annotations

import ipaddress
import math
from collections.abc import Awaitable, Callable, Collection
from typing import Final

import trio

from stcp_proxy.net import name_cache
from stcp_proxy.net.address import TcpAddress
from stcp_proxy.net.dial import Failure
from stcp_proxy.net.pattern import IPAddress, plain_ip

REFRESH: Final = 5.0
"""Seconds after which a name is looked up again behind a connection to a known address."""
RETRY: Final = 1.0
"""Seconds between lookups for addresses that are not known."""
PATIENCE: Final = 5.0
"""Seconds after which a lookup counts as failed."""
MOST: Final = 4096
"""Addresses kept for one name; those go first that were answered longest ago."""

LookUp = Callable[[str], Awaitable[Collection[IPAddress] | Failure]]


async def look_up(name: str) -> Collection[IPAddress] | Failure:
    """Look up the addresses of a name, past the cache's own time."""
    address = TcpAddress(name, 1)
    name_cache.current().invalidate(address)  # when to look again is decided here
    found = await name_cache.current().hosts(address, trio.current_time() + PATIENCE)
    if isinstance(found, Failure):
        return found
    return [ipaddress.ip_address(option.address.sockaddr[0].partition("%")[0]) for option in found]


class RouteName:
    """The addresses of one name.

    Args:
        name: the host name.
        ask: looks it up.
    """

    def __init__(self, name: str, ask: LookUp = look_up) -> None:
        self.name: Final = name
        self._ask = ask
        self._failure = ""
        self._seen: dict[IPAddress, float] = {}
        """When an answer last contained each address; in that order."""
        self._asked_at = -math.inf
        self._under_way: trio.Event | None = None

    @property
    def trouble(self) -> str:
        """Why there is no answer now; empty where the latest lookup had one."""
        return self._failure or ("its name servers are silent" if self._under_way is not None else "")

    @property
    def known(self) -> int:
        """How many addresses count for the name."""
        oldest = self._oldest()
        return sum(at >= oldest for at in self._seen.values())

    def has(self, ip: IPAddress) -> bool:
        """Whether `ip` is known as an address of the name. Starts a lookup where the name has not been looked up for a time."""
        known = self._seen.get(plain_ip(ip), -math.inf) >= self._oldest()
        if trio.current_time() - self._asked_at >= (REFRESH if known else RETRY):
            self._start()
        return known

    async def covers(self, ip: IPAddress, patience: float) -> bool:
        """Whether `ip` is an address of the name.

        Args:
            ip: the address.
            patience: seconds that a lookup may take; a known address waits for none. So silent name servers hold up the
                connections of that time, and no later ones.
        """
        if self.has(ip):
            return True
        if self._under_way is not None:
            with trio.move_on_at(self._asked_at + patience):
                await self._under_way.wait()
        return self.has(ip)

    def _start(self) -> None:
        if self._under_way is None:
            self._asked_at = trio.current_time()
            self._under_way = trio.Event()
            trio.lowlevel.spawn_system_task(self._refresh, self._under_way)

    async def _refresh(self, done: trio.Event) -> None:
        """Look up, and note the answer. Connections that come meanwhile wait for the same lookup."""
        try:
            found = await self._ask(self.name)
        except Exception as exc:  # a system task may not raise
            found = Failure(self.name, 0, f"cannot resolve {self.name}: {exc}")
        if isinstance(found, Failure):
            self._failure = found.words
        else:
            self._failure = ""
            self._note(found)
        self._under_way = None
        done.set()

    def _note(self, addresses: Collection[IPAddress]) -> None:
        now, oldest = trio.current_time(), self._oldest()
        for ip in map(plain_ip, addresses):
            self._seen.pop(ip, None)
            self._seen[ip] = now
        while len(self._seen) > MOST or next(iter(self._seen.values()), math.inf) < oldest:
            del self._seen[next(iter(self._seen))]

    @staticmethod
    def _oldest() -> float:
        return trio.current_time() - name_cache.current().settings.keep
