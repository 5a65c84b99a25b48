"""Attack a listener as an allowed peer does, and measure what another allowed peer feels: `python tools/flood_peer.py cycles`.

- cycles   connections without a byte on kept wire legs, one after the other, as fast as the listener answers
- ready    the same with the service `:ready`, which dials nothing
- resets   a handshake, OPEN and RESET in one segment, again and again
- tiny     empty DATA frames, 20 bytes each, on open connections

The honest peer has a key and a source of its own: it makes new connections, and round trips on a live one. The target counts how
often it is dialled. All processes are children of this tool and end with it. Nothing leaves loopback.
"""

from __future__ import annotations

import argparse
import contextlib
import socket
import threading
import time
from pathlib import Path
from typing import Any, Final

import flood

from stcp_proxy.keys import PrivateKey
from stcp_proxy.protocol.handshake import Credentials, Initiator
from stcp_proxy.protocol.leg import Leg
from stcp_proxy.protocol.noise import KeyPair
from stcp_proxy.protocol.opening import Opening, encode_reason
from stcp_proxy.protocol.wire import MESSAGE_2_LEN, MESSAGE_LENGTH_LEN, FrameType, Role

SOURCE: Final = "127.202.0.1"
KEEP: Final = 60


def leg_to(port: int, own: PrivateKey, server: bytes) -> tuple[socket.socket, Leg]:
    """A wire leg after the handshake."""
    sock = socket.create_connection(("127.0.0.1", port), flood.PATIENCE, (SOURCE, 0))
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    noise = Initiator(flood.SUITE, Credentials(static=KeyPair(own.secret)), remote_static=server)
    sock.sendall(noise.message_1())
    answer = b""
    while len(answer) < MESSAGE_LENGTH_LEN + MESSAGE_2_LEN[flood.SUITE]:
        part = sock.recv(4096)
        if not part:
            raise ConnectionResetError
        answer += part
    established = noise.receive(answer)
    assert established is not None
    return sock, Leg(Role.INITIATOR, established)


def cycle(sock: socket.socket, leg: Leg, service: str | None) -> None:
    """One connection without a byte. The leg is idle again afterwards."""
    sock.sendall(leg.seal(FrameType.OPEN, Opening(service=service, keep=KEEP).encode()) + leg.seal(FrameType.FIN))
    data, kind = b"", None
    while kind is not FrameType.FIN:
        received = leg.open(data)
        if received is not None:
            data, kind = data[received.used :], received.kind
            if kind is FrameType.REJECT:
                raise ConnectionRefusedError
            continue
        part = sock.recv(65536)
        if not part:
            raise ConnectionResetError
        data += part


def send_tiny(sock: socket.socket, leg: Leg, until: float) -> int:
    """Open a connection and send empty DATA frames. Returns their number."""
    sock.sendall(leg.seal(FrameType.OPEN, b""))
    while leg.open(sock.recv(65536)) is None:
        pass
    frames = 0
    while time.monotonic() < until:
        sock.sendall(b"".join(leg.seal(FrameType.DATA) for _ in range(1000)))
        frames += 1000
    return frames


def attack(kind: str, port: int, own: PrivateKey, server: bytes, legs: int, until: float, out: Any) -> None:
    """Play one kind of attack on this many wire legs at a time."""
    done, failed = [0] * legs, [0] * legs

    def play(number: int) -> None:
        while time.monotonic() < until:
            try:
                sock, leg = leg_to(port, own, server)
                with sock:
                    if kind == "resets":
                        reset = leg.seal(FrameType.OPEN, Opening().encode()), leg.seal(FrameType.RESET, encode_reason(8, ""))
                        sock.sendall(b"".join(reset))
                        done[number] += 1
                        continue
                    if kind == "tiny":
                        done[number] += send_tiny(sock, leg, until)
                        continue
                    while time.monotonic() < until:
                        cycle(sock, leg, ":ready" if kind == "ready" else None)
                        done[number] += 1
            except OSError:
                failed[number] += 1
                time.sleep(0.01)

    threads = [threading.Thread(target=play, args=(number,)) for number in range(legs)]
    began = time.monotonic()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    what = "frames" if kind == "tiny" else "connections"
    out.put(("attack", {f"{what} a second": round(sum(done) / (time.monotonic() - began)), "failed": sum(failed)}))


def main() -> None:
    """Run one attack and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kind", choices=["none", "cycles", "ready", "resets", "tiny"])
    parser.add_argument("--legs", type=int, default=32, help="wire legs at a time in each process [default: 32]")
    parser.add_argument("--processes", type=int, default=2, help="processes of the attacker [default: 2]")
    parser.add_argument("--seconds", type=float, default=10, help=f"at most {flood.MOST_SECONDS} [default: 10]")
    parser.add_argument("--listen", default="", help="further options of stcp-proxy listen, in one string")
    options = parser.parse_args()
    seconds, out, hostile = min(options.seconds, flood.MOST_SECONDS), flood.FORK.SimpleQueue(), PrivateKey.generate()
    arguments = ["--allow", f"hostile={hostile.public}", *options.listen.split()]
    with flood.listener(arguments, "127.0.0.1") as (process, port, own, server):
        log = Path(f"/proc/{process.pid}/fd/2").resolve()
        (before, resident_before), lines = flood.used(process), log.read_bytes().count(b"\n")
        until = time.monotonic() + 2 + seconds
        work: list[tuple[Any, tuple[Any, ...]]] = [(run, (port, own, server)) for run in (flood.newcomers, flood.round_trips)]
        if options.kind != "none":
            work += [(attack, (options.kind, port, hostile, server, options.legs))] * options.processes
        children = [flood.FORK.Process(target=run, args=(*args, until, out), daemon=True) for run, args in work]
        for child in children:
            child.start()
        for child in children:
            child.join(seconds + 30)
        results = []
        while not out.empty():
            results.append(out.get())
        (after, resident), lines = flood.used(process), log.read_bytes().count(b"\n") - lines
        with contextlib.suppress(ProcessLookupError):
            descriptors = len(list(Path(f"/proc/{process.pid}/fd").iterdir()))
    for name, figures in sorted(results, key=lambda each: str(each[0])):
        print(f"{name:<16}", "  ".join(f"{what} {value}" for what, value in figures.items()))
    print(
        f"{'listener':<16} processor seconds {after - before:.1f} of {seconds + 2:.0f}  "
        f"resident MiB {resident_before // 1024} to {resident // 1024}  log lines {lines}  descriptors {descriptors}"
    )


if __name__ == "__main__":
    main()
