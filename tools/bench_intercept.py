"""What interception costs: round trips through one pair of proxies, with it and without it, in turns. Needs root, and quiet.

    .venv/bin/python tools/bench_intercept.py [redirect|tproxy] [--rounds N] [--seconds S] [--guard|--egress]

Both ways go through the same two processes: one tunnel of the client's proxy intercepts, the other is dialled. Client and server
are network namespaces of their own. Printed are the medians of both and the median of the pairs' ratios, for one connection and
for fifty.

With --guard both ways are intercepted: with the guard in front of the wire, and without its chain. With --egress both ways are
intercepted: with the egress filter, and without it.
"""

from __future__ import annotations

import argparse
import socket
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from harness.hosts import Net
from harness.sockets import Target
from netns.sidecar import PORT, WIRE, Sidecar

BESIDE = 15002
SIZE = 256


def round_trips(sockets: list[socket.socket], seconds: float) -> float:
    """Round trips in a second, all connections together: one message of each under way."""
    message, done, until = b"x" * SIZE, 0, time.monotonic() + seconds
    started = time.monotonic()
    while time.monotonic() < until:
        for sock in sockets:
            sock.sendall(message)
        for sock in sockets:
            left = SIZE
            while left:
                left -= len(sock.recv(left))
        done += len(sockets)
    return done / (time.monotonic() - started)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("how", nargs="?", default="redirect", choices=["redirect", "tproxy"])
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--guard", action="store_true")
    parser.add_argument("--egress", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, Net() as net, Target(listener=net.server.listener("127.0.0.1", PORT)):
        beside = f'  beside: {{mode: connect, bind: "127.0.0.1:{BESIDE}", to: "{net.server.ip4}:{WIRE}", peer: server}}\n'
        with Sidecar(net, Path(folder), options.how, more=beside):
            for count in (1, 50):
                if options.guard:
                    compare_part(net, count, options, *guard_switch(net))
                elif options.egress:
                    compare_part(net, count, options, *egress_switch(net))
                else:
                    compare(net, count, options.rounds, options.seconds)


def guard_switch(net: Net) -> tuple[Callable[[], None], Callable[[], None]]:
    """Functions that take the guard's chain away and put it back."""
    chain = net.client.run("nft", "list", "chain", "inet", "stcp_proxy", "guard_output").stdout

    def bare() -> None:
        for verb in ("flush", "delete"):
            net.client.run("nft", verb, "chain", "inet", "stcp_proxy", "guard_output")

    def guarded() -> None:
        net.client.run("nft", "-f", "-", stdin=chain)

    return bare, guarded


def egress_switch(net: Net) -> tuple[Callable[[], None], Callable[[], None]]:
    """Functions that detach and attach the egress filter."""
    shown = net.client.run("tc", "filter", "show", "dev", "eth0", "egress").stdout
    pref, program = shown.split("pref ")[1].split()[0], shown.split("bytecode '")[1].partition("'")[0]

    def bare() -> None:
        net.client.run("tc", "qdisc", "delete", "dev", "eth0", "clsact")

    def guarded() -> None:
        net.client.run("tc", "qdisc", "add", "dev", "eth0", "clsact")
        where = ("dev", "eth0", "egress", "pref", pref, "protocol", "all", "handle", "1")
        net.client.run("tc", "filter", "add", *where, "bpf", "bytecode", program, "direct-action", "skip_hw")

    return bare, guarded


def compare_part(
    net: Net, count: int, options: argparse.Namespace, bare: Callable[[], None], guarded: Callable[[], None]
) -> None:
    """Compare the rules with and without a part that two functions take away and put back."""
    sockets = [net.client.connect(net.server.ip4, PORT) for _ in range(count)]
    for sock in sockets:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    found: dict[str, list[float]] = {"bare": [], "guarded": []}
    for number in range(options.rounds + 1):
        for guard in (False, True):
            (guarded if guard else bare)()
            round_trips(sockets, options.seconds / 2)  # the change itself costs time: it is not to be measured
            rate = round_trips(sockets, options.seconds)
            if number:
                found["guarded" if guard else "bare"].append(rate)
    for sock in sockets:
        sock.close()
    report(count, found)


def report(count: int, found: dict[str, list[float]]) -> None:
    (here, before), (there, after) = found.items()
    ratio = statistics.median(new / old for old, new in zip(before, after, strict=True))
    medians = ", ".join(f"{name} {statistics.median(rates):.0f}/s" for name, rates in found.items())
    print(f"{count} connections: {medians}; {there} is {ratio:.3f} of {here}")


def compare(net: Net, count: int, rounds: int, seconds: float) -> None:
    ways = {"dialled": ("127.0.0.1", BESIDE), "intercepted": (net.server.ip4, PORT)}
    sockets = {name: [net.client.connect(*address) for _ in range(count)] for name, address in ways.items()}
    for sock in (each for group in sockets.values() for each in group):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    found: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(rounds + 1):
        for name in ways if number % 2 else reversed(ways):
            rate = round_trips(sockets[name], seconds)
            if number:  # the first warms up
                found[name].append(rate)
    for group in sockets.values():
        for sock in group:
            sock.close()
    report(count, found)


if __name__ == "__main__":
    main()
