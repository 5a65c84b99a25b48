"""A relay of bytes on the wire leg: a proxy or NAT in the middle, which may forget connections or break them."""

from __future__ import annotations

import contextlib
import socket
import threading

from harness.sockets import Target, connect


class WirePath:
    """A relay in front of a listening side; a context manager.

    Args:
        address: the address of the listening side.

    Attributes:
        made: the number of connections so far.
    """

    def __init__(self, address: tuple[str, int] | str) -> None:
        self._address = address
        self._lock = threading.Lock()
        self._pairs: list[tuple[socket.socket, socket.socket]] = []
        self._forgotten: set[socket.socket] = set()
        self._front = Target(self._serve)
        self.to = self._front.to

    @property
    def made(self) -> int:
        return self._front.dials

    def forget(self) -> None:
        """Drop every byte of the connections that exist now, silently, as a NAT that has forgotten them."""
        with self._lock:
            for pair in self._pairs:
                self._forgotten.update(pair)

    def break_all(self) -> None:
        """End the connections that exist now, with a clean end of TCP on both sides."""
        with self._lock:
            for pair in self._pairs:
                for sock in pair:
                    with contextlib.suppress(OSError):
                        sock.shutdown(socket.SHUT_RDWR)

    def _serve(self, left: socket.socket) -> None:
        with connect(self._address) as right:
            for sock in (left, right):
                sock.settimeout(60)
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with self._lock:
                self._pairs.append((left, right))
            back = threading.Thread(target=self._pass, args=(right, left), daemon=True)
            back.start()
            self._pass(left, right)
            back.join()

    def _pass(self, source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                if source not in self._forgotten:
                    sink.sendall(data)
        if source not in self._forgotten:
            with contextlib.suppress(OSError):
                sink.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        self._front.close()
        self.break_all()

    def __enter__(self) -> WirePath:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()
