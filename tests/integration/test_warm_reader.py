"""Reloads that follow each other: one process reads the files for all of them, in the sandbox, and never outlives the proxy."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from harness import takeover
from harness.files import FileProxy
from harness.process import wait_for
from harness.proxies import Keys, Proxy
from harness.sockets import Target

BOTH = pytest.mark.parametrize("workers", [1, 2])


def readers_of(pid: int) -> set[int]:
    """The processes that read files for a proxy."""
    found = set()
    for children in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in children.read_text().split():
            with contextlib.suppress(OSError):
                if b"reader_loop" in Path(f"/proc/{child}/cmdline").read_bytes():
                    found.add(int(child))
    return found


def reader_of(proxy: Proxy) -> int:
    (found,) = readers_of(proxy.pid)
    return found


def pipes(proxy: Proxy) -> int:
    """The pipes that a proxy has open."""
    folder = Path(f"/proc/{proxy.pid}/fd")
    return sum(os.readlink(each).startswith("pipe:") for each in folder.iterdir())


@pytest.fixture(autouse=True)
def reader_of_the_product(monkeypatch: pytest.MonkeyPatch) -> None:
    """The proxies of other tests read by fork: `harness.forked_reader`."""
    monkeypatch.setenv("STCP_TEST_READER", "program")


@pytest.fixture
def proxy(tmp_path: Path, workers: int) -> Iterator[FileProxy]:
    own = tmp_path / "own"
    own.mkdir()
    Keys(own)
    tunnel = {"mode": "listen", "bind": "127.0.0.1:0", "to": "127.0.0.1:9"}
    with FileProxy(own, "listen", {"psk": "shared.psk", "workers": workers, "tunnels": {"in": tunnel}}) as found:
        yield found


def with_name(config: dict[str, Any], name: str) -> dict[str, Any]:
    return config | {"tunnels": {name: config["tunnels"]["in"]}}


@BOTH
def test_one_process_for_all_and_none_at_rest(proxy: FileProxy) -> None:
    assert readers_of(proxy.pid) == set()
    config = proxy.config
    proxy.reload(with_name(config, "second"))
    reader = reader_of(proxy)
    for name in ("third", "in"):
        proxy.reload(with_name(config, name))
        assert reader_of(proxy) == reader


@BOTH
def test_the_sandbox_holds_for_every_reading(proxy: FileProxy, tmp_path: Path) -> None:
    """The same file is refused to a process that has begun to read, and to one that has read before."""
    (tmp_path / "own" / "shared.psk").rename(tmp_path / "elsewhere.psk")
    refused = [proxy.reload_refused(proxy.config | {"psk": str(tmp_path / "elsewhere.psk")}) for _ in range(2)]
    assert refused[0]["why"] == refused[1]["why"]
    assert "takes a restart" in refused[1]["remedy"]


@BOTH
def test_a_killed_proxy_leaves_none(proxy: FileProxy) -> None:
    proxy.reload()
    reader = reader_of(proxy)
    proxy.signal(signal.SIGKILL)
    proxy.wait()
    wait_for(lambda: not os.path.exists(f"/proc/{reader}") or "Z" in Path(f"/proc/{reader}/stat").read_text(), words="its end")


@BOTH
def test_a_crash_costs_one_reload(proxy: FileProxy) -> None:
    proxy.reload()
    reader = reader_of(proxy)
    os.kill(reader, signal.SIGSTOP)
    at_rest = pipes(proxy)
    proxy.signal(signal.SIGHUP)
    wait_for(lambda: pipes(proxy) == at_rest + 2, words="the pipes of a request")
    os.kill(reader, signal.SIGKILL)
    before = len(proxy.log("reloaded"))
    proxy.wait_log("reload refused: everything goes on as before")
    proxy.signal(signal.SIGHUP)
    proxy.wait_log("reloaded", count=before + 1)
    assert reader_of(proxy) != reader


@pytest.mark.parametrize("workers", [1, 2])
def test_a_replaced_process_hands_none_on(tmp_path: Path, echo: Target, workers: int) -> None:
    rig = takeover.Rig(tmp_path, echo.to, workers=workers)
    try:
        old = rig.old
        old.signal(signal.SIGHUP)
        old.wait_log("reloaded")
        reader = reader_of(old)
        new = rig.replace(workers=workers)
        assert old.wait() == 0
        wait_for(lambda: not os.path.exists(f"/proc/{reader}"), words="its process ends with it")
        new.signal(signal.SIGHUP)
        new.wait_log("reloaded")
        assert reader_of(new) != reader
        rig.exchange()
    finally:
        rig.stop()
