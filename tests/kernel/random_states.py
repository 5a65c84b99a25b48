"""Connections in every state for the pool of a random caller, made the way a program makes them."""

from __future__ import annotations

import os
import select
import socket
from collections.abc import Callable
from typing import Final

from stcp_proxy.relay import kernel_abi as abi

from .netlink_agent import Link
from .peer import DATA, FIN, Relay, noise, tcp_pair, ulp
from .random_operations import PROTOCOL, Caller
from .sockets import Pair, address

LONGEST: Final = 3.0
"""Seconds that a pair of sockets may take, whatever the agent does."""


def _family(c: Caller) -> socket.AddressFamily:
    return c.rng.choice((socket.AF_INET, socket.AF_INET6))


def _relay(c: Caller, flags: int) -> Relay:
    return Relay(
        family=_family(c),
        keep_plain=c.rng.random() < 0.2,
        idle_ms=c.rng.choice((0, 0, 0, 50)),
        half_close_ms=c.rng.choice((0, 0, 100)),
        linger_ms=c.rng.choice((0, 1, 500)),
        wire_bytes=c.rng.choice((None, lambda cipher: cipher.seal(DATA, noise(1000)), lambda _: noise(40))),
        plain_bytes=c.rng.choice((b"", noise(100), noise(100_000))),
        flags=flags,
    )


def _take_relay(c: Caller, r: Relay) -> None:
    c.pool.take(r.app, "tcp")
    c.pool.take(r.peer, "tcp", r.down)
    c.pool.take(r.wire, "wire")
    if r.plain.fileno() >= 0:
        c.pool.take(r.plain, "leg")


def relaying(c: Caller) -> None:
    """A relay at work."""
    _take_relay(c, _relay(c, c.rng.choice((0, abi.RELAY_KEEP))))


def over(c: Caller) -> None:
    """A relay whose connection is over in order: its wire leg may be given back, now or later."""
    r = _relay(c, abi.RELAY_KEEP)
    steps: list[Callable[[], object]] = [lambda: r.app.shutdown(socket.SHUT_WR), lambda: r.send(FIN)]
    c.rng.shuffle(steps)
    for step in steps:
        step()
    if c.rng.random() < 0.3:
        r.peer.send(noise(24))
    if c.rng.random() < 0.7:
        poll = select.poll()
        poll.register(r.wire, 0)
        poll.poll(c.rng.choice((0, 1, 300)))
    _take_relay(c, r)


def legs(c: Caller) -> None:
    """Two connections with the protocol on, or about to."""
    for _ in range(2):
        near, far = tcp_pair(_family(c))
        if c.rng.random() < 0.8:
            ulp(near)
        c.pool.take(near, "leg")
        c.pool.take(far, "tcp")


def pair(c: Caller) -> None:
    """A socket of the protocol with a peer that speaks frames. It needs the agent, which may be dead or unwilling."""
    one = Pair(_family(c), listens=c.rng.random() < 0.5, patience=LONGEST)
    c.pool.take(one.app, "stcp")
    c.pool.take(one.peer, "tcp", one.down)


def both(c: Caller) -> None:
    """A listener of the protocol and sockets of the protocol that connect to it, or are about to."""
    listener = _listener(c, PROTOCOL)
    for _ in range(c.rng.randrange(1, 4)):
        sock = socket.socket(listener.family, socket.SOCK_STREAM, c.rng.choice((PROTOCOL, PROTOCOL, 0)))
        sock.setblocking(False)
        sock.connect_ex(listener.getsockname())
        c.pool.take(sock, "stcp" if sock.proto == PROTOCOL else "tcp")
    c.pool.take(listener, "listener")


def listener_of_tcp(c: Caller) -> None:
    """Where connections of the protocol find a peer that says nothing."""
    c.pool.take(_listener(c, 0), "listener")


def _listener(c: Caller, protocol: int) -> socket.socket:
    listener = socket.socket(_family(c), socket.SOCK_STREAM, protocol)
    listener.bind((address(listener.family), 0))
    listener.listen(c.rng.choice((0, 1, 8)))
    c.pool.heard(listener)
    return listener


def others(c: Caller) -> None:
    """Descriptors that are no TCP: pipes, a file, epoll, generic netlink."""
    for end in os.pipe2(os.O_NONBLOCK):
        c.pool.add(end, "pipe")
    file = os.memfd_create("random")
    os.ftruncate(file, 200_000)
    c.pool.add(file, "file")
    with select.epoll() as epoll:
        c.pool.add(os.dup(epoll.fileno()), "epoll")
    link = Link()
    if c.rng.random() < 0.1:
        link.register()
    link.sock.setblocking(False)
    c.pool.add(link.sock.detach(), "netlink", family=link.family)


STATES: Final[dict[Callable[[Caller], None], int]] = {
    relaying: 4,
    over: 5,
    legs: 3,
    pair: 4,
    both: 4,
    listener_of_tcp: 1,
    others: 2,
}
"""Every state and how often it is chosen."""
