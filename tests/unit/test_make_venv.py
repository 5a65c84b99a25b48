"""The set-up tool, where Python came without pip: what it takes from the package index, and what it refuses."""

from __future__ import annotations

import hashlib
import http.server
import importlib.util
import json
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
WHEEL = b"what would be a wheel"
SUM = hashlib.sha256(WHEEL).hexdigest()


def load() -> Any:
    spec = importlib.util.spec_from_file_location("make_venv", ROOT / "tools/make_venv.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def entry(version: str, *, checksum: str = SUM, **more: object) -> dict[str, object]:
    name = f"pip-{version}-py3-none-any.whl"
    return {"filename": name, "url": f"../../files/{name}", "hashes": {"sha256": checksum}, **more}


class Index:
    """A package index that knows only pip."""

    def __init__(self, server: http.server.ThreadingHTTPServer) -> None:
        self.url = f"http://127.0.0.1:{server.server_port}/simple"
        self.files: list[dict[str, object]] = []
        self.asked: list[str] = []


@pytest.fixture
def index() -> Iterator[Index]:
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            index.asked.append(self.path)
            body = json.dumps({"files": index.files}).encode() if self.path == "/simple/pip/" else WHEEL
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        index = Index(server)
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        yield index
        server.shutdown()
        thread.join()


def test_the_newest_release_installs_itself(index: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    index.files = [
        entry("9.0.1"),
        entry("25.10"),
        entry("25.9"),
        entry("99.0", yanked="broken"),
        entry("26.0b1"),
        {**entry("98.0"), "filename": "pip-98.0.tar.gz"},
    ]
    ran: list[list[Any]] = []

    def run(command: list[Any], *, check: bool) -> None:
        assert check
        assert Path(command[-1]).read_bytes() == WHEEL
        ran.append(command)

    module = load()
    monkeypatch.setattr(module, "INDEX", index.url)
    monkeypatch.setattr(subprocess, "run", run)
    module.fetch_pip(Path("venv/bin/python"))
    assert index.asked == ["/simple/pip/", "/files/pip-25.10-py3-none-any.whl"]
    assert [str(command[0]) for command in ran] == ["venv/bin/python"]


def test_a_wheel_with_another_checksum_is_not_run(index: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    index.files = [entry("25.0", checksum="0" * 64)]
    module = load()
    monkeypatch.setattr(module, "INDEX", index.url)
    monkeypatch.setattr(subprocess, "run", lambda *args, **kwargs: pytest.fail("it was run"))
    with pytest.raises(ValueError, match="not what the index says"):
        module.fetch_pip(Path("venv/bin/python"))


def test_without_an_index_there_is_a_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = load()
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "ensurepip" else found(name))
    monkeypatch.setattr(module, "INDEX", "http://127.0.0.1:9/simple")
    with pytest.raises(SystemExit, match="apt install python3-venv"):
        module.main(tmp_path / "venv")
