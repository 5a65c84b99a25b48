"""What comes back is used again, by itself and soon: targets and peers that stop and start."""

from __future__ import annotations

import socket
import time
from pathlib import Path

from harness.process import wait_for
from harness.proxies import Keys, Pair, Proxy
from harness.sockets import Target, end_of_new, free_port


def speaker(port: int, words: bytes) -> Target:
    """A target that says who it is."""
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(("127.0.0.1", port))
    return Target(lambda sock: sock.sendall(words), listener)


def ask(proxy: Proxy) -> bytes:
    return end_of_new(proxy.address)[1]


def test_the_first_target_is_used_again_when_it_is_back(tmp_path: Path) -> None:
    port = free_port()
    with speaker(0, b"second") as second, Pair(tmp_path, [f"127.0.0.1:{port}", second.to]) as pair:
        assert ask(pair.connect) == b"second"
        pair.listen.wait_log("endpoint marked unhealthy", target=f"127.0.0.1:{port}")
        time.sleep(1)
        with speaker(port, b"first"):
            pair.listen.wait_log("endpoint became healthy", target=f"127.0.0.1:{port}")  # no connection had to find out
            assert ask(pair.connect) == b"first"


def test_the_only_target_is_tried_every_time(tmp_path: Path) -> None:
    port = free_port()
    with Pair(tmp_path, f"127.0.0.1:{port}") as pair:
        for _ in range(5):
            assert ask(pair.connect) == b""
        with speaker(port, b"only"):
            assert ask(pair.connect) == b"only"


def test_a_peer_that_is_killed_and_started_again(tmp_path: Path) -> None:
    keys, ports = Keys(tmp_path), [free_port(), free_port()]
    targets = [speaker(0, b"first"), speaker(0, b"second")]

    def start(at: int) -> Proxy:
        arguments = ["listen", "--bind", f"127.0.0.1:{ports[at]}", "--to", targets[at].to, *keys.listen(), "--log-level", "debug"]
        return Proxy(arguments, log=tmp_path / f"listen-{at}-{time.monotonic_ns()}.log").ready()

    with targets[0], targets[1], start(1):
        first = start(0)
        flags = [flag for port in ports for flag in ("--to", f"127.0.0.1:{port}")]
        with Proxy(["connect", "--bind", "127.0.0.1:0", *flags, *keys.connect()], log=tmp_path / "connect.log").ready() as proxy:
            assert ask(proxy) == b"first"
            first.stop()
            assert ask(proxy) == b"second"
            with start(0) as again:
                proxy.wait_log("endpoint became healthy", target=f"127.0.0.1:{ports[0]}")
                wait_for(lambda: ask(proxy) == b"first", words="the first peer is used again")
                assert again.wait_log("health check received", reason="peer_left")[0]["level"] == "debug"


def test_a_peer_that_hangs_is_found_by_its_handshake(tmp_path: Path) -> None:
    """The kernel still takes connections for a process that does nothing; probes come as far as the handshake."""
    keys = Keys(tmp_path)
    with socket.socket() as hung, speaker(0, b"second") as target:
        hung.bind(("127.0.0.1", 0))
        hung.listen()
        listen = ["listen", "--bind", "127.0.0.1:0", "--to", target.to, *keys.listen()]
        with Proxy(listen, log=tmp_path / "listen.log").ready() as second:
            text = f"127.0.0.1:{hung.getsockname()[1]}"
            config = tmp_path / "config.yaml"
            to = f"to: ['{text}', '{second.addresses[0]}'], peer: '{keys.server.public}'"
            config.write_text(
                f"identity: client.key\ntunnels:\n  out: {{mode: connect, bind: 127.0.0.1:0, {to},"
                " health: {interval: 200ms, timeout: 500ms}}\n"
            )
            with Proxy(["run", str(config)], log=tmp_path / "connect.log").ready() as proxy:
                proxy.wait_log("endpoint marked unhealthy", target=text, reason="handshake_timeout")
                assert ask(proxy) == b"second"
                assert not proxy.log("connection failed over")
