"""The process that reads files for reloads, kept for the next one: what it keeps, what it does not keep, and its end."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from harness.process import wait_for

from stcp_proxy import keys
from stcp_proxy.config import plan_bytes, warm_reader
from stcp_proxy.config.plan import Plan
from stcp_proxy.config.warm_reader import Readers, Reading

SLOW = 4000
"""Tunnels of a file that takes seconds to read."""


@pytest.fixture(autouse=True)
def same_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """pytest changes PYTEST_CURRENT_TEST within a test, and a changed environment takes a new process."""
    real = warm_reader._world

    def world() -> tuple[object, ...]:
        program, environment, *rest = real()
        assert isinstance(environment, dict)
        return program, {**environment, "PYTEST_CURRENT_TEST": ""}, *rest

    monkeypatch.setattr(warm_reader, "_world", world)


@pytest.fixture
def readers() -> Iterator[Readers]:
    made = Readers()
    yield made
    close(made)


def close(readers: Readers) -> None:
    if (waiting := readers._waiting) is not None:
        waiting.close()
        wait_for(lambda: waiting.has_ended, words="the process ends")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    secret(tmp_path)
    path = tmp_path / "c.yaml"
    path.write_text("psk: a.psk\ntunnels: {a: {mode: listen, bind: 127.0.0.1:1, to: 127.0.0.1:2}}\n")
    return path


def secret(folder: Path) -> str:
    """Write a new secret. Returns its text."""
    (folder / "a.psk").unlink(missing_ok=True)
    text = keys.format_psk(keys.generate_psk())
    keys.write_secret_file(folder / "a.psk", text)
    return text


def slow(file: Path) -> None:
    """Make the file one that takes seconds to read."""
    tunnels = "".join(f"  t{n}: {{mode: listen, bind: 'unix:/run/{n}', to: 127.0.0.1:2}}\n" for n in range(SLOW))
    file.write_text(f"psk: a.psk\ntunnels:\n{tunnels}")


def begin(readers: Readers, file: Path) -> Reading:
    return readers.begin({"path": str(file)})


def pid_of(reading: Reading) -> int:
    return reading._reader.pid


def plan_of(reading: Reading) -> Plan:
    answer, words = reading.finish()
    assert answer[:1] == b"P", (answer, words)
    return plan_bytes.load(answer[9:])


def child_of(pid: int) -> int:
    """The child of a process, once it has one."""
    children = Path(f"/proc/{pid}/task/{pid}/children")
    return int(wait_for(lambda: children.read_text().split(), words="the process has a child")[0])


def runs(pid: int) -> bool:
    """Whether a process runs; one that has ended and that nobody has waited for does not."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


# -- the next reading ----------------------------------------------------------------------------------------------------------


def test_the_next_reading_has_the_same_process_and_the_new_files(readers: Readers, file: Path) -> None:
    first = begin(readers, file)
    old = plan_of(first)
    file.write_text(file.read_text().replace("127.0.0.1:2", "127.0.0.1:3"))
    secret(file.parent)
    second = begin(readers, file)
    new = plan_of(second)
    assert pid_of(second) == pid_of(first)
    assert str(new.tunnels[0].to[0]) == "127.0.0.1:3"
    assert new.tunnels[0].auth != old.tunnels[0].auth
    assert new.inputs != old.inputs


def test_two_at_a_time_have_a_process_each_and_one_stays(readers: Readers, file: Path) -> None:
    first, second = begin(readers, file), begin(readers, file)
    assert pid_of(first) != pid_of(second)
    assert plan_of(first) == plan_of(second)
    wait_for(lambda: not runs(pid_of(second)), words="the second one ends")
    assert runs(pid_of(first))


def test_mistakes_cost_no_process(readers: Readers, file: Path) -> None:
    good = file.read_text()
    file.write_text("tunnels: 5\n")
    first = begin(readers, file)
    assert first.finish()[0][:1] == b"E"
    file.write_text(good)
    second = begin(readers, file)
    plan_of(second)
    assert pid_of(second) == pid_of(first)


@pytest.mark.parametrize("what", ["environment", "folder", "path", "upgrade"])
def test_another_world_takes_a_new_process(
    readers: Readers, file: Path, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory, what: str
) -> None:
    """A warm process would resolve credentials and relative paths as the older one did."""
    program = file.parent / "program"
    program.touch()
    monkeypatch.setattr(warm_reader, "__file__", str(program))
    first = begin(readers, file)
    plan_of(first)
    if what == "environment":
        monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(file.parent))
    elif what == "folder":
        monkeypatch.chdir(tmp_path_factory.mktemp("other"))
    elif what == "path":
        monkeypatch.syspath_prepend(str(file.parent))
    else:
        program.unlink()
        program.touch()
    second = begin(readers, file)
    plan_of(second)
    assert pid_of(second) != pid_of(first)
    wait_for(lambda: not runs(pid_of(first)), words="the first one ends")


def test_a_user_that_has_changed_takes_a_new_process(readers: Readers, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = begin(readers, file)
    plan_of(first)
    monkeypatch.setattr(os, "getresuid", lambda: (7, 7, 7))
    second = begin(readers, file)
    plan_of(second)
    assert pid_of(second) != pid_of(first)


# -- what it has ---------------------------------------------------------------------------------------------------------------


def test_it_keeps_no_secret_and_no_content(readers: Readers, file: Path) -> None:
    text = secret(file.parent)
    raw = keys.parse_psk(text).reveal()
    file.write_text(file.read_text() + "# a comment that no other file has\n")
    reading = begin(readers, file)
    plan_of(reading)
    held = memory(pid_of(reading))
    assert b"stcp_proxy.config.load" in held
    for each in (text.encode(), raw, b"that no other file has"):
        assert each not in held


def memory(pid: int) -> bytes:
    """Everything that a process may write to."""
    found = []
    with open(f"/proc/{pid}/mem", "rb", buffering=0) as content:
        for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
            addresses, permissions, *_, name = [*line.split(), ""]
            if "rw" in permissions and not name.startswith("[v"):
                first, end = (int(number, 16) for number in addresses.split("-"))
                content.seek(first)
                found.append(content.read(end - first))
    return b"".join(found)


def test_it_has_no_descriptor_of_the_serving_process(readers: Readers, file: Path) -> None:
    with open(file) as other:
        os.set_inheritable(other.fileno(), True)
        reading = begin(readers, file)
        plan_of(reading)
        folder = f"/proc/{pid_of(reading)}/fd"
        wait_for(lambda: sorted(os.listdir(folder)) == ["0", "1", "2"], words="it has closed the pipes of the reading")
        links = [os.readlink(f"{folder}/{number}") for number in range(3)]
    assert links[0].startswith("socket:")
    assert links[1:] == [os.devnull, os.devnull]


# -- its end -------------------------------------------------------------------------------------------------------------------


def test_it_ends_after_a_while_and_leaves_nothing(file: Path) -> None:
    readers = Readers(linger=0.01)
    before = len(os.listdir("/proc/self/fd"))
    reading = begin(readers, file)
    plan_of(reading)
    wait_for(lambda: readers._waiting is None, words="it is given up")
    assert not Path(f"/proc/{pid_of(reading)}").exists()
    del reading
    assert len(os.listdir("/proc/self/fd")) == before
    wait_for(lambda: "stcp-reader" not in {each.name for each in threading.enumerate()}, words="the thread ends")


@pytest.mark.slow
def test_a_request_that_meets_its_end_is_answered(file: Path) -> None:
    readers = Readers(linger=0.0)
    for _ in range(20):
        plan_of(begin(readers, file))
    close(readers)


def test_one_that_was_killed_while_it_waited(readers: Readers, file: Path) -> None:
    first = begin(readers, file)
    plan_of(first)
    os.kill(pid_of(first), signal.SIGKILL)
    second = begin(readers, file)  # at once: nobody has seen the end yet
    answer, _ = second.finish()
    third = begin(readers, file)
    plan_of(third)
    assert pid_of(third) != pid_of(first)
    assert answer[:1] in (b"P", b"")


def test_a_crash_while_it_reads_is_one_failure(readers: Readers, file: Path) -> None:
    good = file.read_text()
    slow(file)
    first = begin(readers, file)
    os.kill(child_of(pid_of(first)), signal.SIGSEGV)
    assert first.finish() == (b"", "signal 11 ended it\n")
    file.write_text(good)
    second = begin(readers, file)
    plan_of(second)
    assert pid_of(second) == pid_of(first)


def test_the_death_of_the_process_ends_what_reads(readers: Readers, file: Path) -> None:
    good = file.read_text()
    slow(file)
    first = begin(readers, file)
    child = child_of(pid_of(first))
    os.kill(pid_of(first), signal.SIGKILL)
    assert first.finish()[0] == b""
    wait_for(lambda: not runs(child), words="the child ends, too")
    file.write_text(good)
    plan_of(begin(readers, file))


def test_the_death_of_the_process_before_its_child_knows_of_it(
    readers: Readers, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The child of a process that dies at once never learns of its death from the kernel."""
    late = file.parent / "late"
    late.mkdir()
    (late / "sitecustomize.py").write_text(
        "import os, signal\nreal = os.fork\n"
        "def fork():\n"
        "    parent, child = os.getpid(), real()\n"
        "    if child == 0:\n"
        "        os.kill(parent, signal.SIGKILL)\n"
        "        while os.getppid() == parent: pass\n"
        "    return child\n"
        "os.fork = fork\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(late))
    slow(file)
    assert begin(readers, file).finish()[0] == b""


def test_the_end_of_the_serving_process_ends_both(readers: Readers, file: Path) -> None:
    slow(file)
    reading = begin(readers, file)
    child = child_of(pid_of(reading))
    reading._reader.close()  # as the kernel closes it
    wait_for(lambda: not runs(child) and not runs(pid_of(reading)), words="both end")
    assert reading.finish()[0] == b""
