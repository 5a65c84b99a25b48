"""The first version and today's work together, in both roles, and today's reads the first version's files.

The first version is a commit of this repository. A clone without its history skips these tests.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import random
import shutil
import socket
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import pytest
from harness.files import FileProxy
from harness.proxies import Keys, Proxy
from harness.sockets import Target, connect, end_of, read_all, read_exactly, reset

from stcp_proxy.config.model_errors import validate
from stcp_proxy.config.models import ConfigModel
from stcp_proxy.config.yaml_file import file_source

ROOT = Path(__file__).resolve().parents[2]
FIRST = "21b20cdf02e39106f6cf8ca0f4e7f6d60d55978e"
"""The version that every later one works with. No tag names it yet."""
ROLES = ("old listens", "old connects")


def git(*arguments: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(["git", "-C", ROOT, *arguments], capture_output=True)


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the package and the examples of the first version."""
    if shutil.which("git") is None or git("cat-file", "-e", f"{FIRST}^{{commit}}").returncode != 0:
        pytest.skip(f"the commit {FIRST[:12]} is not here: it takes git and a clone with the whole history")
    folder = tmp_path_factory.mktemp("first")
    archive = git("archive", FIRST, "stcp_proxy", "configs")
    assert archive.returncode == 0, archive.stderr
    with tarfile.open(fileobj=io.BytesIO(archive.stdout)) as tar:
        tar.extractall(folder, filter="data")
    return folder


def run_from(first: Path) -> dict[str, Any]:
    """Arguments of `Proxy` that run the first version."""
    return {"prefix": ("env", "-u", "STCP_COMPILED", "-C", str(first)), "env": {"PYTHONPATH": str(first)}}


class Two:
    """A pair of which one side is the first version; a context manager.

    Args:
        first: the folder of the first version.
        role: which side it is.
        folder: for keys and logs.
        to: the target, or the flags of the targets.
        psk: whether both sides use a shared secret.
        both: flags of both sides.
        connect: flags of the connecting side.
    """

    def __init__(
        self,
        first: Path,
        role: str,
        folder: Path,
        to: list[str],
        *,
        psk: bool = False,
        both: tuple[str, ...] = (),
        connect: tuple[str, ...] = (),
    ) -> None:
        sides = {True: run_from(first), False: {}}
        self.keys = Keys(folder, psk)
        with contextlib.ExitStack() as stack:
            self.listen = stack.enter_context(
                Proxy(
                    ["listen", "--bind", "127.0.0.1:0", *to, *self.keys.listen(), *both],
                    log=folder / "listen.log",
                    **sides[role == "old listens"],
                )
            )
            self.listen.ready()
            wire = self.listen.addresses[0]
            self.connect = stack.enter_context(
                Proxy(
                    ["connect", "--bind", "127.0.0.1:0", "--to", wire, *self.keys.connect(), *both, *connect],
                    log=folder / "connect.log",
                    **sides[role == "old connects"],
                )
            )
            self.connect.ready()
            self._stack = stack.pop_all()

    def open(self) -> socket.socket:
        return connect(self.connect.address)

    def __enter__(self) -> Two:
        return self

    def __exit__(self, *exc: object) -> None:
        self._stack.close()


@pytest.fixture(params=ROLES)
def role(request: pytest.FixtureRequest) -> str:
    found: str = request.param
    return found


def test_the_old_side_is_old(first: Path) -> None:
    """The harness runs the code of the folder, not that of this tree."""
    program = "import stcp_proxy; print(stcp_proxy.__file__)"
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=first, env={"PYTHONPATH": str(first)}, capture_output=True, text=True
    )
    assert done.stdout.strip() == str(first / "stcp_proxy/__init__.py")


@pytest.mark.parametrize("psk", [False, True], ids=["keys", "shared secret"])
@pytest.mark.parametrize("suite", ["hybrid", "classic"])
def test_bytes_both_ways(first: Path, role: str, tmp_path: Path, echo: Target, psk: bool, suite: str) -> None:
    """Three megabytes there and back, then the end of the stream; the same channel in both logs."""
    data = random.Random(17).randbytes(3 << 20)
    with Two(first, role, tmp_path, ["--to", echo.to], psk=psk, both=("--suite", suite)) as two, two.open() as sock:
        back = hashlib.sha256()
        for start in range(0, len(data), 1 << 16):
            part = data[start : start + (1 << 16)]
            sock.sendall(part)
            back.update(read_exactly(sock, len(part)))
        sock.shutdown(socket.SHUT_WR)
        assert read_all(sock) == b""
        assert back.digest() == hashlib.sha256(data).digest()
        (there,), (here,) = two.listen.ended(), two.connect.ended()
        assert there["reason"] == here["reason"] == "finished"
        assert there["channel"] == here["channel"]


def test_a_reset_stays_a_reset(first: Path, role: str, tmp_path: Path) -> None:
    """From the client to the server, and from the server to the client."""
    ends: list[str] = []

    def serve(sock: socket.socket) -> None:
        if read_exactly(sock, 4) == b"wait":
            sock.sendall(b"1")
            ends.append(end_of(sock)[0])
        else:
            sock.sendall(b"2")
            read_exactly(sock, 1)
            reset(sock)

    with Target(serve) as target, Two(first, role, tmp_path, ["--to", target.to]) as two:
        sock = two.open()
        sock.sendall(b"wait")
        assert read_exactly(sock, 1) == b"1"
        reset(sock)
        two.listen.ended(1)
        with two.open() as sock:
            sock.sendall(b"also")
            assert read_exactly(sock, 1) == b"2"
            sock.sendall(b"x")
            assert end_of(sock) == ("reset", b"")
        two.listen.ended(2)
        two.connect.ended(2)
    assert ends == ["reset"]


def test_a_service_by_name_and_one_that_is_not_there(first: Path, role: str, tmp_path: Path, echo: Target) -> None:
    """OPEN with a name, and REJECT with its reason."""
    for name, found in (("web", True), ("mail", False)):
        folder = tmp_path / name
        folder.mkdir()
        with Two(first, role, folder, ["--service", f"web={echo.to}"], connect=("--service", name)) as two, two.open() as sock:
            if found:
                sock.sendall(b"hello")
                assert read_exactly(sock, 5) == b"hello"
                continue
            assert end_of(sock)[0] == "reset"
            two.listen.refused(reason="unknown_service")
            assert "unknown service" in two.connect.refused()[0]["why"]


def test_a_stranger_is_refused(first: Path, role: str, tmp_path: Path, echo: Target) -> None:
    with Two(first, role, tmp_path, ["--to", echo.to], connect=("--key", str(tmp_path / "stranger.key"))) as two:
        with two.open() as sock:
            assert end_of(sock)[0] == "reset"
        two.listen.refused(reason="unknown_peer", key=str(two.keys.stranger.public))


def test_the_first_version_passes_the_conformance_kit(first: Path, tmp_path: Path) -> None:
    """A part of its cases; `make conformance` runs all. What the first version does not have is "not offered", not a failure."""
    report = tmp_path / "report.json"
    words = ["--word", f"python={sys.executable}", "--word", f"first={first}"]
    cases = ["--case", "*/suite-[156]/complete", "--case", "*/unknown-attribute-*", "--case", "*/reset-*"]
    command = [
        sys.executable,
        "-m",
        "stcp_conformance",
        "implementations/stcp-proxy-first.toml",
        *words,
        *cases,
        "--json",
        str(report),
    ]
    environment = {
        name: value for name, value in os.environ.items() if name != "STCP_COMPILED"
    }  # nobody compiles the first version
    done = subprocess.run(command, cwd=ROOT / "conformance", env=environment, capture_output=True, text=True, timeout=100)
    assert report.exists(), done.stdout + done.stderr
    results = json.loads(report.read_text(encoding="utf-8"))["cases"]
    assert [result for result in results if result["result"] == "FAILED"] == []
    left = {result["seen"] for result in results if result["result"] == "not offered"}
    assert left == {"suite 5 is not among its suites", "suite 6 is not among its suites", "it does not offer: keep"}


def test_todays_program_reads_the_first_versions_files(first: Path) -> None:
    """Every configuration among the examples of the first version is valid."""
    paths = [path for path in sorted((first / "configs").rglob("*.yaml")) if "\ntunnels:" in path.read_text(encoding="utf-8")]
    assert len(paths) >= 8
    for path in paths:
        validate(file_source(path), ConfigModel)


def test_old_listener_that_is_asked_for_ready_legs(first: Path, tmp_path: Path, echo: Target) -> None:
    """It answers as to any unknown service, and dials nothing for it. Connections are served."""
    keys, before = Keys(tmp_path), echo.dials
    flags = ["listen", "--bind", "127.0.0.1:0", "--to", echo.to, *keys.listen()]
    with Proxy(flags, log=tmp_path / "listen.log", **run_from(first)) as listener:
        listener.ready()
        tunnel = {"mode": "connect", "bind": "127.0.0.1:0", "to": listener.addresses[0], "peer": "db", "keep": {"ready": 2}}
        config = {"identity": "client.key", "peers": {"db": str(keys.server.public)}, "tunnels": {"out": tunnel}}
        with FileProxy(tmp_path, "app", config) as connector:
            connector.wait_log("no wire legs are made ahead")
            assert listener.refused(reason="unknown_service")
            with connect(connector.address_of("out")) as sock:
                sock.sendall(b"word")
                assert read_exactly(sock, 4) == b"word"
            listener.ended()
    assert echo.dials == before + 1
