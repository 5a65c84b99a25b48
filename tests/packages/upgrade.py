"""The Debian package stcp-proxy in a root of its own: installed, upgraded under a live connection, removed and purged.

    python3 upgrade.py PACKAGE LATER_PACKAGE

Runs as root where nothing else does, with Debian's Python alone. Fails with the first thing that is wrong.
"""

from __future__ import annotations

import pwd
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

PROGRAM = "/usr/bin/stcp-proxy"
FOLDER = Path("/etc/stcp-proxy")
USER = "stcp-proxy"
DEADLINE = 60.0
"""Seconds for anything to happen."""


def main(package: str, later: str) -> None:
    """All of it, in order."""
    dpkg("--install", package)
    first = said(PROGRAM, "--version")
    check_installed()
    echo = socket.create_server(("127.0.0.1", 6379))
    threading.Thread(target=serve_echo, args=(echo,), daemon=True).start()
    proxies = [start(name) for name in configure()]
    with connected() as before:
        exchange(before, b"before the upgrade")
        dpkg("--install", later)
        assert said(PROGRAM, "--version") != first, "the later version is not installed"
        exchange(before, b"the same connection after the upgrade")
        with connected() as after:
            exchange(after, b"a new connection after the upgrade")
        assert all(proxy.poll() is None for proxy in proxies), "the upgrade ended a proxy"
    for proxy in proxies:
        proxy.terminate()
        assert proxy.wait(DEADLINE) == 0, "a proxy did not stop in order"
    proxies = [start(name) for name in ("server", "client")]
    with connected() as restarted:
        exchange(restarted, b"through the later version")
    for proxy in proxies:
        proxy.terminate()
        proxy.wait(DEADLINE)
    dpkg("--remove", "stcp-proxy")
    assert not Path(PROGRAM).exists(), "the program is left"
    assert not Path("/usr/lib/stcp-proxy").exists(), "the libraries are left"
    assert (FOLDER / "server.key").exists(), "the administrator's key is gone"
    dpkg("--purge", "stcp-proxy")
    assert (FOLDER / "server.key").exists(), "the purge removed a key that the package did not make"
    assert USER not in {entry.pw_name for entry in pwd.getpwall()}, "the user is left"
    print("installed, upgraded, removed and purged")


def check_installed() -> None:
    """What the package has besides the program."""
    pwd.getpwnam(USER)
    for file in (
        "/usr/lib/systemd/system/stcp-proxy.service",
        "/usr/share/bash-completion/completions/stcp-proxy",
        "/usr/share/zsh/vendor-completions/_stcp-proxy",
        "/usr/share/fish/vendor_completions.d/stcp-proxy.fish",
    ):
        assert Path(file).exists(), f"{file} is missing"
    compiled = "from stcp_proxy.relay.fast_path import compiled; print(compiled())"
    assert said("/usr/lib/stcp-proxy/bin/python3", "-c", compiled) == "True", "the fast path is missing"
    paths = list(Path("/usr/lib/stcp-proxy").rglob("stcp_proxy/__pycache__/__init__*.pyc"))
    assert paths, "the modules are not compiled"


def configure() -> tuple[str, str]:
    """Write keys and files of both sides.

    Returns:
        The names of the files, without suffix, the server's first.
    """
    public = {}
    for side in ("server", "client"):
        key = FOLDER / f"{side}.key"
        public[side] = re.findall(r"stcp-pub:\S+", said(PROGRAM, "keygen", "--out", str(key)))[0]
        subprocess.run(["chown", USER, key], check=True)
    files = {
        "server": f"""identity: {FOLDER}/server.key
peers: {{client: "{public["client"]}"}}
tunnels:
  redis: {{mode: listen, bind: "127.0.0.1:7379", to: "127.0.0.1:6379", allow: client}}
""",
        "client": f"""identity: {FOLDER}/client.key
peers: {{server: "{public["server"]}"}}
tunnels:
  redis: {{mode: connect, bind: "127.0.0.1:6380", to: "127.0.0.1:7379", peer: server}}
""",
    }
    for side, text in files.items():
        (FOLDER / f"{side}.yaml").write_text(text, encoding="utf-8")
    return "server", "client"


def start(name: str) -> subprocess.Popen[bytes]:
    """Start a proxy as its user; return it when its log says that it is ready."""
    log = Path(f"/tmp/{name}.log")
    with log.open("wb") as stream:
        proxy = subprocess.Popen([PROGRAM, "run", f"{FOLDER}/{name}.yaml"], user=USER, group=USER, stderr=stream, cwd="/")
    until(lambda: b'"ready"' in log.read_bytes() or proxy.poll() is not None, f"{name} is not ready")
    assert proxy.poll() is None, log.read_text(encoding="utf-8")
    return proxy


def connected() -> socket.socket:
    """A connection to the client's proxy."""
    return socket.create_connection(("127.0.0.1", 6380), timeout=DEADLINE)


def exchange(connection: socket.socket, message: bytes) -> None:
    """Send a message and read it back."""
    connection.sendall(message)
    answer = b""
    while len(answer) < len(message):
        answer += (received := connection.recv(65536))
        assert received, f"cut while waiting for {message!r}"
    assert answer == message, f"{answer!r} in place of {message!r}"


def serve_echo(listener: socket.socket) -> None:
    """Echo what comes, one thread for each connection."""

    def echo(connection: socket.socket) -> None:
        with connection:
            while data := connection.recv(65536):
                connection.sendall(data)

    while True:
        threading.Thread(target=echo, args=(listener.accept()[0],), daemon=True).start()


def until(condition: Callable[[], bool], otherwise: str) -> None:
    """Wait for a condition."""
    end = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < end, otherwise
        time.sleep(0.05)


def dpkg(*arguments: str) -> None:
    """Run dpkg; fail with what it printed."""
    done = subprocess.run(["dpkg", *arguments], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert done.returncode == 0, done.stdout


def said(*command: str) -> str:
    """What a program printed."""
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.strip()


if __name__ == "__main__":
    main(*sys.argv[1:])
