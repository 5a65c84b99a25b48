"""Two proxies in front of a target, which make spans."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

from harness.admin import Admin
from harness.files import FileProxy
from harness.process import wait_for
from harness.proxies import Keys
from harness.sockets import connect, read_exactly, talk


class Pair:
    """Two proxies in front of an echo server.

    Args:
        folder: the folder of their files.
        target: the address of the server.
        otlp: the setting of both; None for no spans.
        listen: further settings of the listening side.
        whole: further settings of both.
    """

    def __init__(self, folder: Path, target: str, otlp: dict[str, Any] | None, listen: Any = None, **whole: Any) -> None:
        keys = Keys(folder)
        extra = ({} if otlp is None else {"otlp": otlp}) | whole
        tunnel = {"mode": "listen", "bind": "127.0.0.1:0", "to": target, "allow": "app"}
        listening = {"identity": "server.key", "peers": {"app": str(keys.client.public)}, "tunnels": {"in": tunnel}}
        self.listen = FileProxy(folder, "listen", listening | extra | (listen or {}))
        tunnel = {"mode": "connect", "bind": "127.0.0.1:0", "to": "{}:{}".format(*self.listen.address_of("in")), "peer": "db"}
        out = {"identity": "client.key", "peers": {"db": str(keys.server.public)}, "tunnels": {"out": tunnel}}
        self.connect = FileProxy(folder, "connect", out | extra)

    def talk(self, text: bytes = b"hello") -> None:
        with connect(self.connect.address_of("out")) as sock:
            sock.sendall(text)
            assert read_exactly(sock, len(text)) == text

    def held(self) -> socket.socket:
        """A connection that stays open."""
        sock = connect(self.connect.address_of("out"))
        talk(sock)
        return sock

    def stop(self) -> None:
        self.connect.stop()
        self.listen.stop()

    def results(self, side: FileProxy, **wanted: int) -> dict[str, int]:
        """Wait until the metrics of one side count these results of spans. The side needs an admin address."""
        admin = Admin(side)

        def look() -> dict[str, int] | None:
            found = {labels[0][1]: int(value) for labels, value in admin.metrics().get("stcp_spans_total", {}).items()}
            return found if wanted.items() <= found.items() else None

        return wait_for(look, words=f"spans {wanted}")


def exporters_of(side: FileProxy) -> list[int]:
    """The process ids of the exporters of a proxy."""
    children = [pid for task in Path(f"/proc/{side.pid}/task").iterdir() for pid in (task / "children").read_text().split()]
    return [int(pid) for pid in children if b"stcp_proxy.spans" in Path(f"/proc/{pid}/cmdline").read_bytes()]
