"""Every pair of docs/MIGRATION.md carries bytes: ours, and those of the other programs that Debian has.

The files are taken from the page. Addresses and file names are replaced by those of the test.
"""

from __future__ import annotations

import contextlib
import re
import shlex
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding
from harness.certificates import TestAuthority
from harness.process import wait_for
from harness.proxies import Keys, Proxy
from harness.sockets import Target, connect, free_port, read_exactly
from harness.software import Server, require

from stcp_proxy.keys import format_private_key, format_psk, write_secret_file
from stcp_proxy.lab.bench.certs import SERVER_NAME, write_certificates

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "MIGRATION.md").read_text(encoding="utf-8")
PEERS = ("stunnel", "ghostunnel", "spiped", "HAProxy")
DATABASES = 2


def blocks(heading: str) -> dict[str, str]:
    """The code blocks of a section by the name in their first line, like ``stcp-proxy: server.yaml``."""
    section = PAGE.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    found = {}
    for text in re.findall(r"^```\w+\n(.*?)^```", section, re.MULTILINE | re.DOTALL):
        if name := re.match(r"[#;] (\S+: .*)\n", text):
            found[name[1].partition(",")[0]] = text
    return found


class Hosts:
    """The addresses of two database hosts and of an application host, all on this machine.

    Args:
        folder: the folder for files.
        target: the address of the server behind the tunnel.
    """

    def __init__(self, folder: Path, target: str) -> None:
        self.folder = folder
        self._target = target
        self.wires = [free_port() for _ in range(DATABASES)]
        self.plain = free_port()

    def server(self, text: str, number: int) -> str:
        """A text for one of the database hosts."""
        wire = self.wires[number]
        text = text.replace("[127.0.0.1]:6379", "[127.0.0.1]:" + self._target.rpartition(":")[2])
        text = re.sub(r"127\.0\.0\.1:6379", self._target, text)
        text = re.sub(r"\[0\.0\.0\.0\]:744\d", f"[127.0.0.1]:{wire}", text)
        text = re.sub(r"(\"?)(?:0\.0\.0\.0)?:744\d\1", f"127.0.0.1:{wire}", text)
        text = text.replace("127.0.0.1:9901", "127.0.0.1:0")
        return self._files(re.sub(r"= 744\d", f"= 127.0.0.1:{wire}", text), "listen")

    def client(self, text: str) -> str:
        """A text for the application host."""
        text = text.replace("[127.0.0.1]:6379", f"[127.0.0.1]:{self.plain}").replace("127.0.0.1:6379", f"127.0.0.1:{self.plain}")
        for name, wire in (("db", self.wires[0]), ("db1", self.wires[0]), ("db2", self.wires[1])):
            text = re.sub(rf"\b{name}\.example:744\d", f"127.0.0.1:{wire}", text)
        return self._files(re.sub(r"(verifyhost|checkHost =) db\d?\.example", rf"\1 {SERVER_NAME}", text), "connect")

    def _files(self, text: str, side: str) -> str:
        text = re.sub(r"/etc/\w+/ca\.pem", str(self.folder / "ca.pem"), text)
        text = re.sub(r"/etc/\w+/(?:server|client)\.pem", str(self.folder / f"{side}.pem"), text)
        return text.replace("spiped.key", str(self.folder / "spiped.key"))

    def answers(self) -> bool:
        """Whether a byte comes back through the tunnel."""
        try:
            with connect(("127.0.0.1", self.plain)) as sock:
                sock.sendall(b"?")
                return read_exactly(sock, 1) == b"?"
        except OSError:
            return False


@pytest.fixture
def hosts(tmp_path: Path) -> Iterator[Hosts]:
    with Target() as target:
        yield Hosts(tmp_path, target.to)


def carries(hosts: Hosts) -> None:
    """A megabyte goes there and back."""
    wait_for(hosts.answers, words="a byte comes back through the tunnel", timeout=60)
    data = bytes(range(256)) * 256
    with connect(("127.0.0.1", hosts.plain)) as sock:
        for _ in range(16):
            sock.sendall(data)
            assert read_exactly(sock, len(data)) == data


def test_every_section_has_both_files_of_both_sides() -> None:
    for peer in PEERS:
        names = set(blocks(f"From {peer}"))
        assert {"stcp-proxy: server.yaml", "stcp-proxy: client.yaml"} <= names
        assert len(names) == 4
    assert set(re.findall(r"^## From (\w+)$", PAGE, re.MULTILINE)) == set(PEERS)


@pytest.mark.parametrize("peer", PEERS)
def test_ours(peer: str, hosts: Hosts) -> None:
    files = blocks(f"From {peer}")
    keys = Keys(hosts.folder)
    second = keys.add("second")
    with contextlib.ExitStack() as stack:
        for number, own in enumerate((keys.server, second)):
            folder = hosts.folder / f"db{number}"
            folder.mkdir()
            write_secret_file(folder / "host.key", format_private_key(own))
            write_secret_file(folder / "shared.psk", format_psk(keys.secret))
            text = hosts.server(files["stcp-proxy: server.yaml"], number)
            (folder / "server.yaml").write_text(re.sub(r"stcp-pub:[\w+/]+=", str(keys.client.public), text))
            stack.enter_context(Proxy(["run", str(folder / "server.yaml")], log=folder / "log")).ready()  # type: ignore[attr-defined]
        folder = hosts.folder / "app"
        folder.mkdir()
        write_secret_file(folder / "host.key", format_private_key(keys.client))
        write_secret_file(folder / "shared.psk", format_psk(keys.secret))
        text = hosts.client(files["stcp-proxy: client.yaml"])
        for public in (keys.server.public, second.public):
            text = re.sub(r"stcp-pub:[\w+/]+=(?=\"\s+# replace)", str(public), text, count=1).replace("# replace", "#", 1)
        (folder / "client.yaml").write_text(text)
        stack.enter_context(Proxy(["run", str(folder / "client.yaml")], log=folder / "log")).ready()  # type: ignore[attr-defined]
        carries(hosts)


def _stunnel(folder: Path, name: str, text: str) -> list[str]:
    (folder / name).write_text(text)
    return ["stunnel", str(folder / name)]


def _haproxy(folder: Path, name: str, text: str) -> list[str]:
    (folder / name).write_text(text)
    return ["haproxy", "-db", "-f", str(folder / name)]


def _spiped(folder: Path, _: str, text: str) -> list[str]:
    (folder / "spiped.key").write_bytes(bytes(range(32)))
    return shlex.split(text, comments=True)


OTHERS: dict[str, tuple[str, Callable[[Path, str, str], list[str]], str, str]] = {
    "stunnel": ("stunnel", _stunnel, "stunnel: server.conf", "stunnel: client.conf"),
    "spiped": ("spiped", _spiped, "spiped: on the database host", "spiped: on the application host"),
    "HAProxy": ("haproxy", _haproxy, "haproxy: server.cfg", "haproxy: client.cfg"),
}


@pytest.mark.parametrize("peer", OTHERS)
def test_theirs(peer: str, hosts: Hosts) -> None:
    program, command, server, client = OTHERS[peer]
    require(program)
    files = blocks(f"From {peer}")
    write_certificates(hosts.folder)
    with contextlib.ExitStack() as stack:
        for number in range(DATABASES):
            line = command(hosts.folder, f"server-{number}", hosts.server(files[server], number))
            stack.enter_context(Server(line, port=hosts.wires[number], output=hosts.folder / f"server-{number}.log"))
        line = command(hosts.folder, "client", hosts.client(files[client]))
        stack.enter_context(Server(line, port=hosts.plain, output=hosts.folder / "client.log"))
        carries(hosts)


def test_ours_with_certificates(hosts: Hosts) -> None:
    """Certificates of an authority as the other programs use them: ECDSA, key and certificate in one file, taken apart."""
    require("openssl")
    (apart,) = re.findall(r"^```sh\n(openssl x509 .*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    files = blocks("Keep your certificates")
    authority = TestAuthority("p256")
    authority.bundle(hosts.folder / "ca.pem")
    with contextlib.ExitStack() as stack:
        for side, name in (("server", "dns:db.example"), ("client", "dns:app.example")):
            leaf = authority.issue(name, kind="p256")
            (hosts.folder / f"{side}.pem").write_bytes(leaf.key_pem() + leaf.certificate.public_bytes(Encoding.PEM))
            subprocess.run(["sh", "-ec", apart.replace("server", side)], cwd=hosts.folder, check=True)
            text = files[f"stcp-proxy: {side}.yaml"]
            path = hosts.folder / f"{side}.yaml"
            path.write_text(hosts.server(text, 0) if side == "server" else hosts.client(text))
            stack.enter_context(Proxy(["run", str(path)], log=hosts.folder / f"{side}.log")).ready()  # type: ignore[attr-defined]
        carries(hosts)
