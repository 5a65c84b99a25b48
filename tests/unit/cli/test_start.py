"""A process that serves: what it has not imported, and that the child that reads its command line goes unnoticed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from stcp_proxy import keys

NEVER = {"pydantic", "pydantic_core", "yaml", "typer", "click", "rich"}
UNUSED = {"ssl", "asyncio", "idna", "uuid", "greenlet", "structlog.stdlib", "concurrent.futures"}
"""What libraries of a proxy import for other programs, or only a proxy with certain settings uses."""
ADMIN = {"starlette", "hypercorn", "prometheus_client"}

_LIST = """\
import sys
from stcp_proxy import process
def run(*args, **more):
    from stcp_proxy.process.deferred_imports import deferred
    with open("/proc/self/maps") as maps:
        print(*sys.modules.keys() - set(deferred()), "libcrypto" if "libcrypto" in maps.read() else "")
    return 3
process.run = run
from stcp_proxy.cli import main
main()
"""


def main(*arguments: object, program: str = "from stcp_proxy.cli import main; main()") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", program, *map(str, arguments)], capture_output=True, text=True, timeout=60, check=False
    )


@pytest.fixture
def flags(tmp_path: Path) -> list[str]:
    keys.write_secret_file(tmp_path / "a.psk", keys.format_psk(keys.generate_psk()))
    return ["listen", "--bind", "127.0.0.1:0", "--to", "127.0.0.1:9", "--psk", str(tmp_path / "a.psk")]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    keys.write_secret_file(tmp_path / "b.psk", keys.format_psk(keys.generate_psk()))
    path = tmp_path / "c.yaml"
    path.write_text("psk: b.psk\ntunnels: {a: {mode: listen, bind: 127.0.0.1:0, to: 127.0.0.1:9}}\n")
    return path


@pytest.mark.usefixtures("not_measured")
def test_what_serves_has_imported_nothing_that_only_reads(flags: list[str], file: Path) -> None:
    for arguments in (flags, ["run", file]):
        served = main(*arguments, program=_LIST)
        assert served.returncode == 3, served.stderr
        loaded = set(served.stdout.split())
        assert "stcp_proxy.process.supervisor" in loaded
        assert loaded & (NEVER | ADMIN | UNUSED | {"libcrypto"}) == set()


@pytest.mark.usefixtures("not_measured")
def test_the_web_server_is_imported_for_an_admin_address_alone(flags: list[str]) -> None:
    loaded = set(main(*flags, "--admin", "127.0.0.1:0", program=_LIST).stdout.split())
    assert loaded & (NEVER | ADMIN) == ADMIN


@pytest.mark.parametrize("command", ["run", "listen"])
def test_the_child_builds_the_command_that_is_called_alone(command: str) -> None:
    """The other commands take a tenth of its time."""
    program = "import sys\nfrom stcp_proxy.cli import start\nstart._flush = lambda: print(*sys.modules, flush=True)\n"
    loaded = set(main(command, "--help", program=f"{program}from stcp_proxy.cli import main; main()").stdout.split())
    assert f"stcp_proxy.cli.{'run' if command == 'run' else 'tunnel_commands'}" in loaded
    assert loaded & {f"stcp_proxy.cli.{other}" for other in ("commands", "ca", "check", "running_proxy", "lab")} == set()


@pytest.mark.parametrize(
    ("arguments", "status", "says"),
    [
        (["listen", "--bind", ":1"], 2, "--to: 'to' is missing"),
        (["connect", "--turbo"], 2, "No such option"),
        (["run", "no.yaml"], 2, "stcp-proxy: no.yaml does not exist"),
        (["run", "no.yaml", "--", "true"], 2, "stcp-proxy: no.yaml does not exist"),
        (["run", "--help"], 0, "Usage: stcp-proxy run"),
    ],
)
def test_the_childs_words_and_status_are_those_of_the_command(arguments: list[str], status: int, says: str) -> None:
    done = main(*arguments)
    assert done.returncode == status
    assert says in done.stdout + done.stderr
    assert (done.stdout + done.stderr).count(says) == 1
    assert "Traceback" not in done.stderr


def test_a_child_that_is_killed(flags: list[str]) -> None:
    program = "import os, signal\nfrom stcp_proxy.cli import start\n"
    program += "start._read = lambda writer: os.kill(os.getpid(), signal.SIGKILL)\nfrom stcp_proxy.cli import main; main()"
    done = main(*flags, program=program)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        "stcp-proxy: the process that reads the command line was ended; see whether memory ran out, and start again\n"
    )


def test_no_secret_is_in_an_argument_or_a_file(flags: list[str]) -> None:
    """What the child hands over travels through a pipe."""
    program = (
        "import os\nfrom stcp_proxy.cli import start\nreal = start._next\n"
        "def told(orders):\n"
        "    print(os.readlink(f'/proc/self/fd/{orders.fileno()}').split(':')[0])\n"
        "    return real(orders)\n"
        "start._next = told\n" + _LIST
    )
    assert main(*flags, program=program).stdout.split()[:2] == ["pipe", "pipe"]
