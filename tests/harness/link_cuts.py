"""Connections with different traffic, direct and through a pair of proxies, while the path between two hosts is lost for a time.

Client and server agree on the traffic by the first byte of a connection. Both sides of each direction send blocks with running
numbers, so a lost, repeated or changed byte is found.
"""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from harness.hosts import Net
from harness.proxies import Keys, Proxy

PORT, WIRE, NEAR = 5100, 7444, 15100
TRAFFIC = ("quiet", "word", "up", "down", "both", "up, not read", "down, not read")
"""quiet: no bytes while the path is lost. word: one byte is sent and answered. not read: the receiver's window is closed."""
LOSSES = ("link", "client's firewall", "server's firewall")
_BLOCK = 4096
_PAUSE = 0.05
_DROP = "table inet lost {\n\tchain c {\n\t\ttype filter hook output priority 0\n\t\toif != lo drop\n\t}\n}\n"
_DEADLINE = 150.0
"""Seconds after which a connection that makes no progress has failed."""


@contextlib.contextmanager
def lost(net: Net, how: str) -> Iterator[None]:
    """Lose the path between the hosts until the end of the block.

    Args:
        net: the hosts.
        how: one of `LOSSES`.
    """
    if how == "link":
        net.cut()
        try:
            yield
        finally:
            net.mend()
        return
    host = net.client if how.startswith("client") else net.server
    host.run("nft", "-f", "-", stdin=_DROP)
    try:
        yield
    finally:
        host.run("nft", "delete", "table", "inet", "lost")


@dataclass
class Stage:
    """What all connections of one loss share.

    Attributes:
        stop: the path is back, and senders finish.
        errors: what ended each connection that did not survive, by its name.
    """

    stop: threading.Event = field(default_factory=threading.Event)
    errors: dict[str, str] = field(default_factory=dict)


def _block(number: int) -> bytes:
    return number.to_bytes(8, "big") * (_BLOCK // 8)


def _send(sock: socket.socket, stage: Stage, *, full: bool) -> None:
    """Send blocks until the stage stops: without a pause where the receiver does not read, so that its window closes."""
    number = 0
    while not stage.stop.is_set():
        sock.sendall(_block(number))
        number += 1
        if not full:
            time.sleep(_PAUSE)
    sock.shutdown(socket.SHUT_WR)


def _receive(sock: socket.socket, stage: Stage, *, waits: bool) -> None:
    """Receive blocks up to EOF and compare them.

    Args:
        sock: the connection.
        stage: of the connection.
        waits: whether to read nothing before the stage stops.
    """
    if waits:
        stage.stop.wait()
    number, data = 0, b""
    while part := sock.recv(1 << 16):
        data += part
        while len(data) >= _BLOCK:
            assert data[:_BLOCK] == _block(number), "other bytes than were sent"
            data, number = data[_BLOCK:], number + 1
    assert not data, "an incomplete block"
    assert number, "no block"


def _both(*works: Callable[[], None]) -> None:
    """Run functions in threads of their own and raise the first exception."""
    errors: list[BaseException] = []

    def call(work: Callable[[], None]) -> None:
        try:
            work()
        except BaseException as exc:
            errors.append(exc)

    threads = [threading.Thread(target=call, args=(work,), daemon=True) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]


def _serve(sock: socket.socket, stage: Stage) -> None:
    kind = TRAFFIC[sock.recv(1)[0]]
    sock.sendall(b"!")
    _run(sock, kind, stage, client=False)


def _run(sock: socket.socket, kind: str, stage: Stage, *, client: bool) -> None:
    """One end of a connection."""
    if kind in ("quiet", "word"):
        _words(sock, kind, stage, client=client)
        return
    direction, waits = kind.partition(",")[0], "," in kind
    works: list[Callable[[], None]] = []
    if direction == "both" or (direction == "up") == client:
        works.append(lambda: _send(sock, stage, full=waits))
    else:
        sock.shutdown(socket.SHUT_WR)
    if direction == "both" or (direction == "down") == client:
        works.append(lambda: _receive(sock, stage, waits=waits))
    else:
        works.append(lambda: _end(sock))
    _both(*works)


def _words(sock: socket.socket, kind: str, stage: Stage, *, client: bool) -> None:
    if not client:
        while part := sock.recv(1):
            sock.sendall(part)
        return
    if kind == "quiet":
        stage.stop.wait()
    for word in (b"a", b"b"):
        sock.sendall(word)
        assert sock.recv(1) == word, "no answer"
    sock.shutdown(socket.SHUT_WR)
    _end(sock)


def _end(sock: socket.socket) -> None:
    assert sock.recv(1) == b"", "bytes after the end"


class Connections:
    """One connection for each kind of traffic and each way; a context manager.

    Args:
        net: the hosts.
        folder: for keys and logs.
    """

    def __init__(self, net: Net, folder: Path) -> None:
        self._net = net
        self._stage = Stage()
        self._listener = net.server.listener(net.server.ip4, PORT)
        self._listener.listen(100)
        self._listener.settimeout(None)
        threading.Thread(target=self._accept, args=(self._stage,), daemon=True).start()
        keys = Keys(folder)
        listen = ["listen", "--bind", f":{WIRE}", "--to", f"{net.server.ip4}:{PORT}", *keys.listen()]
        connect = ["connect", "--bind", f"127.0.0.1:{NEAR}", "--to", f"{net.server.ip4}:{WIRE}", *keys.connect()]
        self.proxies = [
            Proxy(listen, log=folder / "listen.log", place=net.server.place()),
            Proxy(connect, log=folder / "connect.log", place=net.client.place()),
        ]
        for proxy in self.proxies:
            proxy.ready()

    def _accept(self, stage: Stage) -> None:
        with contextlib.suppress(OSError):
            while True:
                sock = self._listener.accept()[0]
                sock.settimeout(_DEADLINE)
                threading.Thread(target=self._served, args=(sock, stage), daemon=True).start()

    def _served(self, sock: socket.socket, stage: Stage) -> None:
        with sock, contextlib.suppress(OSError, AssertionError):  # the client's end has the same error, or an end too early
            _serve(sock, self._stage)

    def outlive(self, how: str, seconds: float, *, before: float = 0.3) -> dict[str, str]:
        """Open all connections, lose the path, and wait until each has finished or failed.

        Args:
            how: one of `LOSSES`.
            seconds: how long the path is lost.
            before: seconds of traffic before it is lost.

        Returns:
            The error of each connection that did not survive, by its way and its traffic.
        """
        stage = self._stage = Stage()
        ways = {"direct": (self._net.server.ip4, PORT), "proxied": ("127.0.0.1", NEAR)}
        threads = []
        for way, address in ways.items():
            for number, kind in enumerate(TRAFFIC):
                sock = self._net.client.connect(*address)
                sock.settimeout(_DEADLINE)
                sock.sendall(bytes([number]))
                assert sock.recv(1) == b"!"
                name = f"{way}: {kind}"
                threads.append(threading.Thread(target=self._client, args=(sock, kind, name, stage), daemon=True))
        for thread in threads:
            thread.start()
        time.sleep(before)
        with lost(self._net, how):
            time.sleep(seconds)
        stage.stop.set()
        for thread in threads:
            thread.join()
        return stage.errors

    @staticmethod
    def _client(sock: socket.socket, kind: str, name: str, stage: Stage) -> None:
        with sock:
            try:
                _run(sock, kind, stage, client=True)
            except (OSError, AssertionError) as exc:
                stage.errors[name] = f"{type(exc).__name__}: {exc}"

    def __enter__(self) -> Connections:
        return self

    def __exit__(self, *exc: object) -> None:
        for proxy in self.proxies:
            proxy.stop()
        self._listener.close()
