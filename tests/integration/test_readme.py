"""Every command that the README shows is run here, as it stands there but for addresses and keys."""

from __future__ import annotations

import fnmatch
import json
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from harness.sockets import Target, free_port
from harness.software import require

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
HOSTS = {
    "# on the database host": "db",
    "# on the application host": "app",
    "# on the application host, in another terminal": "app",
}
PROXIES = ("listen", "connect", "run")


def blocks(section: str, language: str = "sh") -> list[list[str]]:
    """The lines of the code blocks under a heading, up to the next one."""
    text = re.split(rf"^##+ {re.escape(section)}$", README, flags=re.MULTILINE)[1]
    text = re.split(r"^##", text, maxsplit=1, flags=re.MULTILINE)[0]
    return [match[1].splitlines() for match in re.finditer(rf"```{language}\n(.*?)```", text, re.DOTALL)]


@pytest.fixture
def redis() -> Iterator[Target]:
    """Something that answers PONG to whatever it is told, as Redis does to a ping."""

    def serve(sock: socket.socket) -> None:
        while sock.recv(4096):
            sock.sendall(b"+PONG\r\n")

    with Target(serve) as target:
        yield target


class Hosts:
    """Two hosts, which are two folders here.

    Args:
        folder: where they are.
        redis: address of what the database host runs.
    """

    def __init__(self, folder: Path, redis: str) -> None:
        self._folders = {name: folder / name for name in ("db", "app")}
        for path in self._folders.values():
            path.mkdir()
        wire, plain = free_port(), free_port()
        self._addresses = {
            "db.example:7443": f"127.0.0.1:{wire}",
            " :7443": f" 127.0.0.1:{wire}",
            "redis.internal:7379": f"127.0.0.1:{wire}",
            " :7379": f" 127.0.0.1:{wire}",
            "127.0.0.1:6379": redis,
            "127.0.0.1:6380": f"127.0.0.1:{plain}",
            "-p 6380": f"-p {plain}",
            "127.0.0.1:9901": f"127.0.0.1:{free_port()}",
        }
        self.plain = plain
        self.keys: dict[str, str] = {}
        self.running: list[subprocess.Popen[str]] = []

    def folder(self, host: str) -> Path:
        return self._folders[host]

    def here(self, text: str) -> str:
        """`text` of the README with the addresses and keys of this run."""
        for written, meant in {**self._addresses, **self.keys}.items():
            text = text.replace(written, meant)
        return text

    def follow(self, block: list[str]) -> str:
        """Do what a block says, on the host that its first line names; what the last command printed."""
        host, output = HOSTS[block[0]], ""
        for line in block[1:]:
            words = shlex.split(self.here(line), comments=True)
            if words[0] == "stcp-proxy":
                words = [sys.executable, "-m", "stcp_proxy", *words[1:]]
            if words[3:4] and words[3] in PROXIES:
                self._start(host, words)
                continue
            output = subprocess.run(
                words, cwd=self.folder(host), env=environment(), capture_output=True, text=True, check=True
            ).stdout
            if "--psk" not in words and ("keygen" in words or "pubkey" in words):
                name = f"{host.upper()}_PUBLIC_KEY"
                assert self.keys.setdefault(name, output.strip()) == output.strip()
        return output

    def _start(self, host: str, words: list[str]) -> None:
        process = subprocess.Popen(
            words, cwd=self.folder(host), env=environment(), stderr=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True
        )
        self.running.append(process)
        assert process.stderr is not None
        said = []
        for line in process.stderr:
            said.append(line)
            if line.startswith("{") and json.loads(line)["event"] == "ready":
                return
        pytest.fail(f"it did not start: {''.join(said)}")

    def stop(self) -> list[int]:
        """End the proxies as an operator does; their exit statuses."""
        statuses = []
        for process in self.running:
            process.send_signal(signal.SIGTERM)
            process.communicate(timeout=20)
            statuses.append(process.returncode)
        self.running = []
        return statuses


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT)}


@pytest.fixture
def hosts(tmp_path: Path, redis: Target) -> Iterator[Hosts]:
    hosts = Hosts(tmp_path, redis.to)
    yield hosts
    for process in hosts.running:
        process.kill()
        process.communicate()


def ping(hosts: Hosts) -> str:
    """What Redis says to the application."""
    with socket.create_connection(("127.0.0.1", hosts.plain), timeout=10) as sock:
        sock.sendall(b"PING\r\n")
        return sock.recv(100).decode()


def test_two_hosts(hosts: Hosts) -> None:
    require("redis-cli")
    *others, last = blocks("Two hosts in five minutes")
    for block in others:
        hosts.follow(block)
    assert hosts.follow(last) == "PONG\n"
    assert hosts.stop() == [0, 0]


def test_a_shared_secret(hosts: Hosts) -> None:
    database, application = blocks("A shared secret instead of keys")
    hosts.follow(database)
    shutil.copy2(hosts.folder("db") / "shared.psk", hosts.folder("app"))
    hosts.follow(application)
    assert ping(hosts) == "+PONG\r\n"
    assert hosts.stop() == [0, 0]


def test_from_a_file(hosts: Hosts) -> None:
    """The file shown, and its counterpart on the other host."""
    ((*shown,),) = blocks("From a file", "yaml")
    assert shown == (ROOT / "configs/redis/client.yaml").read_text(encoding="utf-8").splitlines()
    commands, status = blocks("From a file")
    for host in ("db", "app"):
        out = subprocess.run(
            [sys.executable, "-m", "stcp_proxy", "keygen", "--out", hosts.folder(host) / "host.key"],
            env=environment(), capture_output=True, text=True, check=True,
        )  # fmt: skip
        hosts.keys[host] = out.stdout.strip()
    for host, other, name in (("db", "app", "server.yaml"), ("app", "db", "client.yaml")):
        text = (ROOT / "configs/redis" / name).read_text(encoding="utf-8")
        if host == "app":
            text = text.replace("bind: 127.0.0.1:6379", "bind: 127.0.0.1:6380")
        text = re.sub(r"stcp-pub:[\w+/=]+", hosts.keys.pop(other), text)
        (hosts.folder(host) / name).write_text(hosts.here(text))
    hosts.follow([line.replace("client", "server").replace("application", "database") for line in commands])
    hosts.follow(commands)
    assert ping(hosts) == "+PONG\r\n"
    assert " ready " in hosts.follow(status)
    assert hosts.stop() == [0, 0]


def test_the_commands_of_the_installation() -> None:
    """`test_install` runs the one from a clone, `make test-packages` and `make test-engine` those for what is released."""
    check = "gpg --verify SHA256SUMS.asc SHA256SUMS && sha256sum --check --ignore-missing SHA256SUMS"
    assert blocks("Install") == [[check], ["pip install ."]]


def test_the_files_that_are_installed() -> None:
    """Each pattern means one of the files that docs/RELEASE.md lists."""
    page = (ROOT / "docs" / "RELEASE.md").read_text(encoding="utf-8")
    names = [name.replace("V", "0.2.0") for name in re.findall(r"`(stcp[-_]\S+V\S*)`", page)]
    patterns = re.findall(r"(stcp-proxy[-_]\S*\*\S*?)[` ]", README)
    assert len(patterns) == 3
    for pattern in patterns:
        assert len(set(fnmatch.filter(names, pattern))) == 1, (pattern, names)


@pytest.mark.parametrize("target", sorted(set(re.findall(r"(?:^|`)make ([a-z-]+)", README, re.MULTILINE))))
def test_make_knows(target: str) -> None:
    require("make")
    dry = subprocess.run(
        ["make", "--dry-run", target], cwd=ROOT, capture_output=True, text=True, env={**os.environ, "MAKEFLAGS": ""}
    )
    assert dry.returncode == 0, dry.stderr


def test_no_block_is_left_out() -> None:
    """A block under a heading that no test here follows would go stale unseen."""
    known = [
        ["make demo", "make test"], *blocks("Install"), *blocks("Two hosts in five minutes"),
        *blocks("A shared secret instead of keys"), *blocks("From a file"),
    ]  # fmt: skip
    every = [match[1].splitlines() for match in re.finditer(r"```sh\n(.*?)```", README, re.DOTALL)]
    assert [[line.split("  ")[0] for line in block] for block in every] == [
        [line.split("  ")[0] for line in block] for block in known
    ]
