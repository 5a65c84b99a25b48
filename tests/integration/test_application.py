"""`stcp-proxy run CONFIG -- app`: one life for an application and the proxy beside it."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import re
import shlex
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from harness.process import wait_for
from harness.proxies import COMMAND, Keys, Proxy
from harness.sockets import Target, connect, free_port
from harness.software import require

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="a PID namespace needs root")

CONFIG = """\
identity: client.key
drain: 1s
workers: {workers}
tunnels:
  out: {{mode: connect, bind: "127.0.0.1:{port}", to: "{to}", peer: "{peer}"}}
"""


class Beside:
    """A listening proxy in front of an echo server, and the file of a connecting one, in a folder."""

    def __init__(self, folder: Path, listen: Proxy, keys: Keys) -> None:
        self.folder = folder
        self.port = free_port()
        self._listen, self._keys = listen, keys
        self.config = folder / "config.yaml"
        self.write()

    def write(self, *, workers: int = 1) -> None:
        text = CONFIG.format(workers=workers, port=self.port, to=self._listen.addresses[0], peer=self._keys.server.public)
        self.config.write_text(text)

    def run(self, *application: str, prefix: tuple[str, ...] = ()) -> Proxy:
        """What `stcp-proxy run` runs, the application's words in the same log."""
        return Proxy(["run", str(self.config), "--", *application], log=self.folder / "run.log", prefix=prefix)

    def shell(self, script: str, prefix: tuple[str, ...] = ()) -> Proxy:
        return self.run("sh", "-c", script, prefix=prefix)

    def python(self, script: str, prefix: tuple[str, ...] = ()) -> Proxy:
        """`word()` is one exchange through the tunnel, `say` prints a line."""
        head = f"""
import os, signal, socket, sys, time
def say(*words): print(*words, flush=True)
def word():
    with socket.create_connection(("127.0.0.1", {self.port}), timeout=20) as s:
        s.sendall(b"word")
        return s.recv(4, socket.MSG_WAITALL)
"""
        return self.run(sys.executable, "-c", head + script, prefix=prefix)


def says(proxy: Proxy, words: str) -> None:
    """Wait until the application has printed a line."""

    def heard() -> bool:
        assert proxy.status is None or f"\n{words}\n" in proxy.text(), proxy.text()
        return f"\n{words}\n" in proxy.text()

    wait_for(heard, words=words)


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Keys:
    return Keys(tmp_path_factory.mktemp("keys"))


@pytest.fixture(scope="module")
def listen(keys: Keys, echo: Target) -> Iterator[Proxy]:
    with Proxy(["listen", "--bind", "127.0.0.1:0", "--to", echo.to, *keys.listen()], log=keys.folder / "listen.log") as proxy:
        yield proxy.ready()


@pytest.fixture
def beside(tmp_path: Path, listen: Proxy, keys: Keys) -> Beside:
    (tmp_path / "client.key").symlink_to(keys.folder / "client.key")
    return Beside(tmp_path, listen, keys)


# -- start and end -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("workers", [1, 2])
def test_its_tunnel_is_there_from_the_first_moment_to_the_last(beside: Beside, workers: int) -> None:
    """SIGTERM is the application's alone: while it shuts down it opens new connections, for longer than `drain`."""
    beside.write(workers=workers)
    script = """
def bye(*_):
    say("asked")
    time.sleep(1.5)
    say("last", word())
    sys.exit(7)
signal.signal(signal.SIGTERM, bye)
say("first", word())
while True: signal.pause()
"""
    with beside.python(script) as run:
        says(run, "first b'word'")
        run.signal(signal.SIGTERM)
        says(run, "asked")
        assert run.log("stopping") == []
        assert run.wait() == 7
        says(run, "last b'word'")
        assert len(run.log("stopped", cut_off=0)) == workers
    wait_for(lambda: not answers(beside.port), words="nobody listens any more")


def answers(port: int) -> bool:
    try:
        connect(("127.0.0.1", port)).close()
    except ConnectionRefusedError:
        return False
    return True


@pytest.mark.parametrize(
    ("script", "status"), [("exit 0", 0), ("exit 42", 42), ("kill -KILL $$", 128 + 9), ("kill -SEGV $$", 128 + 11)]
)
def test_the_status_is_the_applications(beside: Beside, script: str, status: int) -> None:
    with beside.shell(script) as run:
        assert run.wait() == status
        assert run.log("stopped")


@pytest.mark.parametrize(
    ("application", "status", "says"),
    [
        ("no-such-program", 127, "the application 'no-such-program' was not found; install it, or give its path"),
        ("{folder}/plain", 126, "cannot be executed: Permission denied; 'chmod +x' it"),
        ("{folder}/orphan", 127, "the interpreter that it names was not found"),
        ("{folder}/garbage", 126, "cannot be executed: Exec format error"),
    ],
)
def test_an_application_that_cannot_be_started(beside: Beside, application: str, status: int, says: str) -> None:
    (beside.folder / "plain").write_text("#!/bin/sh\n")
    for name, content in (("orphan", b"#!/no/such/interpreter\n"), ("garbage", b"\0\1\2\3")):
        (beside.folder / name).write_bytes(content)
        (beside.folder / name).chmod(0o755)
    with beside.run(application.format(folder=beside.folder)) as run:
        assert run.wait() == status
        (line,) = [line for line in run.text().splitlines() if line.startswith("stcp-proxy:")]
        assert says in line


def test_a_proxy_that_cannot_start_never_starts_the_application(beside: Beside) -> None:
    mark = beside.folder / "started"
    beside.config.write_text(beside.config.read_text().replace("identity: client.key", "identity: missing.key"))
    with beside.run("touch", str(mark)) as run:
        assert run.wait() == 2
        assert "missing.key does not exist" in run.text()
    beside.write()
    with Target() as taken:
        beside.config.write_text(beside.config.read_text().replace(f"127.0.0.1:{beside.port}", taken.to))
        with beside.run("touch", str(mark)) as run:
            assert run.wait() == 2
            assert "another program is listening there" in run.text()
    assert not mark.exists()


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


@pytest.mark.parametrize("workers", [1, 2])
def test_a_proxy_that_dies_takes_the_application_with_it(beside: Beside, workers: int) -> None:
    beside.write(workers=workers)
    with beside.shell("trap 'echo asked; exit 5' TERM; echo; echo here; while :; do sleep 0.1; done") as run:
        says(run, "here")
        os.kill(children(run.pid)[0], signal.SIGKILL)
        assert run.wait() == 1
        assert "the proxy was ended by SIGKILL: the application has 30 s to end, too" in run.text()
        says(run, "asked")


def test_the_proxy_goes_when_its_parent_is_killed(beside: Beside) -> None:
    with beside.shell("echo; echo here; exec sleep 60") as run:
        says(run, "here")
        _, application = children(run.pid)
        try:
            run.signal(signal.SIGKILL)
            wait_for(lambda: run.log("stopped"), words="the proxy has stopped")
        finally:
            os.kill(application, signal.SIGKILL)
    wait_for(lambda: not answers(beside.port), words="nobody listens any more")


# -- signals -----------------------------------------------------------------------------------------------------------------

LISTENER = """
numbers = signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP, signal.SIGCHLD, signal.SIGTSTP}
count = {}
def heard(number, _):
    count[number] = count.get(number, 0) + 1
    say("heard", int(number), count[number])
    if number == signal.SIGTERM: sys.exit(0)
for number in numbers: signal.signal(number, heard)
say(""); say("here")
while True: signal.pause()
"""
HANDED_ON = [
    signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2, signal.SIGALRM, signal.SIGIO, signal.SIGWINCH,
    signal.SIGCONT, signal.SIGPWR, signal.SIGURG, signal.SIGRTMIN + 3, signal.SIGTERM,
]  # fmt: skip


def each_is_heard_once(run: Proxy, pid: int) -> None:
    for number in HANDED_ON:
        os.kill(pid, number)
        says(run, f"heard {int(number)} 1")
    assert run.wait() == 0
    assert " 2\n" not in run.text().partition("\nhere\n")[2]


def test_every_signal_is_handed_on(beside: Beside) -> None:
    with beside.python(LISTENER) as run:
        says(run, "here")
        each_is_heard_once(run, run.pid)


@needs_root
def test_as_pid_1_every_signal_is_handed_on(beside: Beside) -> None:
    """For which the kernel drops a signal that has neither handler nor mask."""
    require("unshare")
    with beside.python(LISTENER, prefix=("unshare", "--pid", "--fork", "--kill-child")) as run:
        says(run, "here")
        (init,) = children(run.pid)
        each_is_heard_once(run, init)


def test_the_application_starts_with_no_signal_blocked_or_ignored(beside: Beside) -> None:
    with beside.shell("grep -E '^Sig(Blk|Ign)' /proc/self/status") as run:
        assert run.wait() == 0
        blocked, ignored = (int(line.split()[1], 16) for line in run.text().splitlines() if line.startswith("Sig"))
        assert blocked == 0
        assert ignored & (1 << signal.SIGPIPE - 1) == 0  # which Python ignores


def test_a_terminals_ctrl_c_is_heard_once(beside: Beside) -> None:
    master, slave = pty.openpty()

    def take_terminal() -> None:
        fcntl.ioctl(slave, termios.TIOCSCTTY, 0)

    words = b""

    def heard() -> bytes:
        nonlocal words
        with contextlib.suppress(BlockingIOError):
            words += os.read(master, 65536)
        return words

    script = LISTENER.replace("sys.exit(0)", "time.sleep(0.5); sys.exit(9)")
    head = "import signal, sys, time\ndef say(*words): print(*words, flush=True)\n"
    command = [*COMMAND, "run", str(beside.config), "--", sys.executable, "-c", head + script]
    os.set_blocking(master, False)
    with subprocess.Popen(
        command, stdin=slave, stdout=slave, stderr=slave, start_new_session=True, preexec_fn=take_terminal
    ) as run:  # fmt: skip
        os.close(slave)
        wait_for(lambda: b"here" in heard(), words="here")
        os.write(master, b"\x03")
        wait_for(lambda: b"heard 2 1" in heard(), words="heard 2")
        os.write(master, b"\x1c")
        wait_for(lambda: b"heard 3 1" in heard(), words="heard 3")
        run.send_signal(signal.SIGTERM)
        assert run.wait(30) == 9
        with contextlib.suppress(OSError):
            heard()
    os.close(master)
    assert b"heard 2 2" not in words
    assert b"heard 3 2" not in words


# -- PID 1 -------------------------------------------------------------------------------------------------------------------


@needs_root
def test_as_pid_1_orphans_are_reaped(beside: Beside) -> None:
    """Each child of the application leaves one behind; none stays a zombie."""
    require("unshare")
    orphan = shlex.quote("sleep 0.1 & exit 0")
    script = f"for i in 1 2 3 4 5; do sh -c {orphan}; done; sleep 1; ps -e -o ppid= -o stat=; echo; echo done; exit 3"
    with beside.shell(script, prefix=("unshare", "--pid", "--fork", "--mount-proc", "--kill-child")) as run:
        assert run.wait() == 3
        says(run, "done")
        states = [line.split() for line in run.text().splitlines() if re.fullmatch(r" *[0-9]+ [A-Z].*", line)]
        assert ["0", "S"] in [[ppid, stat[0]] for ppid, stat in states]
        assert not [stat for _, stat in states if stat.startswith("Z")]


def test_it_is_done_when_the_application_is_though_an_orphan_lives_on(beside: Beside) -> None:
    with beside.shell("sleep 60 & echo; echo $! > orphan; exit 4".replace("orphan", str(beside.folder / "orphan"))) as run:
        start = time.monotonic()
        assert run.wait() == 4
        assert time.monotonic() - start < 30
        os.kill(int((beside.folder / "orphan").read_text()), signal.SIGKILL)


def test_what_it_reads_and_writes_is_the_applications(beside: Beside) -> None:
    """Standard input is not the proxy's to eat, and standard output has nothing of its own."""
    done = subprocess.run(
        [*COMMAND, "run", str(beside.config), "--", "cat"], input=b"word\n", capture_output=True, timeout=60, check=True
    )
    assert done.stdout == b"word\n"
