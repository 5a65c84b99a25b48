"""A proxy that is taken over reaches nothing outside of the directories of its configuration, and a reload still works.

A start-up file of Python stands for the attacker. Its code runs in the proxy, in the thread that serves and in another thread,
and in a program that the proxy starts.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from harness.files import FileProxy
from harness.proxies import Keys, Proxy
from harness.sockets import Target, connect, talk

from stcp_proxy.process import landlock

pytestmark = pytest.mark.skipif(landlock.abi() == 0, reason="this kernel has no Landlock")

ATTACKER = """\
import json, os, subprocess, sys
TARGETS = json.loads(os.environ["ATTACK"])
done = set()

def outcome(call):
    try:
        call()
        return "done"
    except OSError as exc:
        return exc.strerror

def attack():
    return {
        "read": outcome(lambda: open(TARGETS["secret"]).read()),
        "list": outcome(lambda: os.listdir(os.path.dirname(TARGETS["secret"]))),
        "write": outcome(lambda: open(TARGETS["new"], "w")),
        "write beside its configuration": outcome(lambda: open(TARGETS["beside"], "w")),
        "read another process": outcome(lambda: open(f"/proc/{TARGETS['pid']}/mem")),
        "have a program read": subprocess.run(["cat", TARGETS["secret"]], capture_output=True, text=True).stderr.strip()[-17:],
        "read its configuration": outcome(lambda: open(TARGETS["own"]).read()),
    }

def hook(event, arguments):
    where = {"socket.bind": "serving", "socket.getaddrinfo": "thread"}.get(event)
    if where and where not in done:
        done.add(where)
        os.write(2, json.dumps({"event": "attack", "where": where, "found": attack()}).encode() + b"\\n")

if "run" in sys.orig_argv:
    sys.addaudithook(hook)
"""
DENIED = "Permission denied"


class Rig:
    """A pair; the attacker's code is in the connecting proxy, and strikes when it binds a socket and when it looks up a name.

    Args:
        folder: for all files.
        to: the target.
        settings: settings of the connecting proxy.
    """

    def __init__(self, folder: Path, to: str, settings: dict[str, Any]) -> None:
        self.keys, self.own, self.elsewhere = Keys(folder), folder / "own", folder / "elsewhere"
        for each in (self.own, self.elsewhere, folder / "start"):
            each.mkdir()
        (folder / "client.key").rename(self.own / "client.key")
        (folder / "stranger.key").rename(self.elsewhere / "stranger.key")
        (self.elsewhere / "secret").write_text("of another program")
        (folder / "start" / "sitecustomize.py").write_text(ATTACKER)
        self.listen = Proxy(
            ["listen", "--bind", "127.0.0.1:0", "--to", to, *self.keys.listen()], log=folder / "listen.log"
        ).ready()
        targets = {
            "secret": self.elsewhere / "secret",
            "new": self.elsewhere / "new",
            "beside": self.own / "new",
            "pid": self.listen.pid,
            "own": self.own / "connect.yaml",
        }
        env = {"PYTHONPATH": str(folder / "start"), "ATTACK": json.dumps(targets, default=str)}
        tunnel = {
            "mode": "connect",
            "bind": "127.0.0.1:0",
            "to": f"localhost:{self.listen.port}",
            "peer": str(self.keys.server.public),
        }
        config = {"identity": "client.key", "tunnels": {"out": tunnel}} | settings
        self.proxy = FileProxy(self.own, "connect", config, env=env)

    def exchange(self) -> None:
        with connect(self.proxy.address_of("out")) as sock:
            talk(sock)

    def attack(self, where: str) -> dict[str, str]:
        """What the attacker's code found out, in the thread that serves or in another `thread`."""
        found: dict[str, str] = self.proxy.wait_log("attack", where=where)[0]["found"]
        return found

    def stop(self) -> None:
        self.proxy.stop()
        self.listen.stop()


@pytest.fixture
def rig(tmp_path: Path, echo: Target, request: pytest.FixtureRequest) -> Iterator[Rig]:
    found = Rig(tmp_path, echo.to, request.param)
    yield found
    found.stop()


@pytest.mark.parametrize(
    "rig", [{}, {"workers": 2}, {"sandbox": "required"}], indirect=True, ids=["default", "workers", "required"]
)
def test_a_process_that_is_taken_over(rig: Rig) -> None:
    rig.exchange()
    (line,) = rig.proxy.log("files restricted")
    assert line["readable"] == [str(rig.own)]
    for where in ("serving", "thread"):
        found = rig.attack(where)
        assert found.pop("read its configuration") == "done"
        assert found == dict.fromkeys(found, DENIED)


@pytest.mark.parametrize("rig", [{"sandbox": "off"}], indirect=True)
def test_without_a_sandbox(rig: Rig) -> None:
    """What shows that the attacks of the other test can succeed."""
    rig.exchange()
    for where in ("serving", "thread"):
        assert set(rig.attack(where).values()) == {"done", ""}
    assert rig.proxy.log("files restricted") == []


@pytest.mark.parametrize("rig", [{}, {"workers": 2}], indirect=True, ids=["one process", "workers"])
def test_reload(rig: Rig) -> None:
    """A file that is new in a directory of the configuration is read; one of another directory takes a restart."""
    rig.keys.add("new")
    (rig.listen.output.parent / "new.key").rename(rig.own / "new.key")
    assert rig.proxy.reload(rig.proxy.config | {"identity": ["new.key", "client.key"]})
    rig.exchange()
    refused = rig.proxy.reload_refused(rig.proxy.config | {"identity": str(rig.elsewhere / "stranger.key")})
    assert "takes a restart" in refused["remedy"]
    rig.exchange()


@pytest.mark.parametrize("rig", [{}], indirect=True)
def test_only_a_restart_changes_it(rig: Rig) -> None:
    assert "only a new start" in rig.proxy.reload_refused(rig.proxy.config | {"sandbox": "off"})["why"]
