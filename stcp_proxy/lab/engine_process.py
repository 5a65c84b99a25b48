"""One side of the engine step of the ladder: an engine in a process of its own, over sockets that it inherits.

    python -m stcp_proxy.lab.engine_process connect|listen PLAIN,… WIRE,…

Both sides use the same two fixed keys; they carry only test data. PLAIN and WIRE are numbers of descriptors.
"""

from __future__ import annotations

import signal
import socket
import sys

from stcp_proxy.protocol.secret import Secret
from stcp_proxy.relay.engine import DirectionKey, Handover
from stcp_proxy.relay.pump import PumpEngine


def _sockets(numbers: str) -> list[socket.socket]:
    sockets = [socket.socket(fileno=int(number)) for number in numbers.split(",")]
    for sock in sockets:
        sock.setblocking(False)
    return sockets


def main(side: str, plain: str, wire: str) -> None:
    """Relay until killed. Prints one line when all connections are relayed.

    Args:
        side: "connect" or "listen".
        plain: descriptors of the plain legs, separated by commas.
        wire: descriptors of the wire legs, in the same order.
    """
    there, back = (DirectionKey(Secret(bytes([number]) * 32), 0) for number in (1, 2))
    send, receive = (there, back) if side == "connect" else (back, there)
    engine = PumpEngine()
    engine.start()
    for near, far in zip(_sockets(plain), _sockets(wire), strict=True):
        engine.adopt(Handover(near, far, send, receive), lambda end: None)
    print("ready", flush=True)
    signal.pause()


if __name__ == "__main__":
    main(*sys.argv[1:4])
