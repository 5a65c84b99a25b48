"""Which addresses a host name stands for, as far as routes by name need to know.

An application looked a name up some time ago and dials what it found; this side has to recognise the address. So an address
counts for the name while it is in the latest answer, and for a minute after it was last in one: applications keep what they
have found, and servers of names give out now these addresses and now those. An address that is not known makes this side look
again at once, but not more than once a second: a record that has changed is found with the first connection to its new
address.

While no answer comes the last one holds, for five minutes at most. Then the name stands for nothing.
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

FRESH: Final = 30.0
"""Seconds for which an answer is not asked for again, while it knows the address in question."""
AGAIN: Final = 1.0
"""The same while it does not."""
KEPT: Final = 60.0
"""Seconds for which an address counts after it was last in an answer."""
LONGEST: Final = 300.0
"""Seconds for which the latest answer holds while no other comes."""
PATIENCE: Final = 5.0
"""Seconds to wait for an answer."""

LookUp = Callable[[str], Awaitable[Collection[IPAddress] | Failure]]


async def look_up(name: str) -> Collection[IPAddress] | Failure:
    """The addresses behind a name now."""
    address = TcpAddress(name, 1)
    name_cache.current().invalidate(address)  # when to look again is decided here
    found = await name_cache.current().hosts(address, trio.current_time() + PATIENCE)
    if isinstance(found, Failure):
        return found
    return [ipaddress.ip_address(option.address.sockaddr[0].partition("%")[0]) for option in found]


class Whereabouts:
    """The addresses of one name.

    Args:
        name: the host name.
        ask: looks it up.

    Attributes:
        trouble: why the latest look-up had no answer; empty where it had one.
    """

    def __init__(self, name: str, ask: LookUp = look_up) -> None:
        self.name: Final = name
        self.trouble = ""
        self._ask = ask
        self._latest: frozenset[IPAddress] = frozenset()
        self._seen: dict[IPAddress, float] = {}
        self._answered = self._asked = -math.inf
        self._asking = trio.Lock()

    async def covers(self, ip: IPAddress) -> bool:
        """Whether `ip` is an address of the name, which is looked up where that is not known for certain."""
        ip = plain_ip(ip)
        if self._is_known(ip) and self._since(self._asked) < FRESH:
            return True
        if self._since(self._asked) >= AGAIN:
            await self._refresh()
        return self._is_known(ip)

    async def _refresh(self) -> None:
        """Look up; who comes meanwhile waits for the same answer."""
        before = self._asked
        async with self._asking:
            if self._asked > before:
                return
            self._asked = trio.current_time()
            found = await self._ask(self.name)
            now = trio.current_time()
            if isinstance(found, Failure):
                self.trouble = found.words
                return
            self.trouble, self._answered = "", now
            self._latest = frozenset(map(plain_ip, found))
            self._seen = {ip: at for ip, at in self._seen.items() if now - at < KEPT} | dict.fromkeys(self._latest, now)

    def _is_known(self, ip: IPAddress) -> bool:
        if ip in self._latest and self._since(self._answered) < LONGEST:
            return True
        return self._since(self._seen.get(ip, -math.inf)) < KEPT

    def _since(self, moment: float) -> float:
        return trio.current_time() - moment
