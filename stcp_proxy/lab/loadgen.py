"""The load generator in C: compiled into the user's cache at first use, then driven as a child process."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from stcp_proxy.errors import StcpError

FOLDER: Final = Path(__file__).with_name("load")
FLAGS: Final = ("-O2", "-std=gnu11", "-Wall", "-Wextra")
GRACE: Final = 60.0
"""Seconds between the end of a generator's running time and its kill. It stops by itself after 20 seconds without progress."""


class LabError(StcpError):
    """A tool of the lab failed."""

    label = "lab"


@dataclass(frozen=True, slots=True)
class Load:
    """The results of one run of the generator.

    Attributes:
        rate: round trips, connections or bytes (bulk) a second, without the warm-up.
        total: round trips, connections or bytes of the whole run with the warm-up, for comparison with its CPU time.
        mean, p50, p90, p99, p999, max: latency in microseconds; None for bulk.
        errors: connections that failed.
    """

    rate: float
    total: int
    errors: int = 0
    mean: float | None = None
    p50: float | None = None
    p90: float | None = None
    p99: float | None = None
    p999: float | None = None
    max: float | None = None


def cache_folder() -> Path:
    """The folder of compiled tools: $XDG_CACHE_HOME/stcp-proxy."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "stcp-proxy"


def binary() -> Path:
    """Return the path of the compiled generator. Compile it when its present source has not been compiled yet.

    Raises:
        LabError: no C compiler is found, or it fails.
    """
    text = b"".join(path.read_bytes() for path in sorted(FOLDER.glob("*.[ch]")))
    digest = hashlib.sha256(text + " ".join(FLAGS).encode()).hexdigest()[:16]
    target = cache_folder() / f"loadgen-{digest}"
    if not target.exists():
        _compile(target)
    return target


def _compile(target: Path) -> None:
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        raise LabError("the load generator needs a C compiler, and none is installed", remedy="install gcc or clang")
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as folder:
        built = Path(folder) / "loadgen"
        done = subprocess.run(
            [compiler, *FLAGS, "-o", built, *sorted(FOLDER.glob("*.c"))], capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise LabError(f"the load generator does not compile: {done.stderr.strip()[-400:]}")
        built.replace(target)


def parse(line: str) -> Load:
    """Read the generator's line of JSON.

    Raises:
        LabError: the line is something else.
    """
    try:
        fields = json.loads(line)
        return Load(**{name: fields[name] for name in Load.__dataclass_fields__ if name in fields})
    except (ValueError, TypeError, AttributeError) as exc:
        raise LabError(f"the load generator printed {line[:200]!r}") from exc


def _run(arguments: Sequence[object], seconds: float, fds: Sequence[int] = ()) -> Load:
    command = [str(binary()), *map(str, arguments)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=seconds + GRACE, pass_fds=fds)
    except subprocess.TimeoutExpired as exc:
        raise LabError(f"the load generator hung: {' '.join(command[1:])}") from exc
    if done.returncode:
        raise LabError(done.stderr.strip() or f"the load generator ended with status {done.returncode}")
    return parse(done.stdout)


def _target(where: int | Sequence[int]) -> tuple[object, Sequence[int]]:
    if isinstance(where, int):
        return where, ()
    return "fds:" + ",".join(map(str, where)), where


def round_trips(where: int | Sequence[int], *, connections: int, size: int, seconds: float) -> Load:
    """Keep one message of `size` bytes in flight on each of `connections`, and compare every answer.

    Args:
        where: a port on 127.0.0.1, or the descriptors of connected sockets.
        connections: how many.
        size: bytes of a message.
        seconds: running time.

    Raises:
        LabError: the generator failed.
    """
    target, fds = _target(where)
    return _run(["rt", target, connections, size, seconds], seconds, fds)


def bulk(where: int | Sequence[int], *, connections: int, seconds: float) -> Load:
    """Send in one direction at full speed. The rate counts bytes that arrived. Args and Raises: as for `round_trips`."""
    target, fds = _target(where)
    return _run(["bulk", target, connections, seconds], seconds, fds)


def new_connections(port: int, *, clients: int, seconds: float) -> Load:
    """Each client repeats: connect, send 256 bytes, receive them back, close. Args and Raises: as for `round_trips`."""
    return _run(["conns", port, clients, seconds], seconds)


@contextmanager
def idle(port: int, connections: int) -> Iterator[None]:
    """Hold connections open after one round trip on each, without further bytes.

    Raises:
        LabError: a connection failed.
    """
    with subprocess.Popen(
        [binary(), "idle", str(port), str(connections)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        assert child.stderr is not None
        try:
            if not child.stdout.readline():
                raise LabError(child.stderr.read().decode().strip())
            yield
        finally:
            child.stdin.close()
            try:
                child.wait(GRACE)
            except subprocess.TimeoutExpired:
                child.kill()


@contextmanager
def echo_server(port: int = 0) -> Iterator[int]:
    """The echo and sink server in C on 127.0.0.1. Yields its port.

    Args:
        port: 0 takes a free port.

    Raises:
        LabError: it cannot listen.
    """
    with subprocess.Popen([binary(), "serve", str(port)], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as child:
        assert child.stdout is not None
        assert child.stderr is not None
        try:
            line = child.stdout.readline()
            if not line:
                raise LabError(child.stderr.read().decode().strip())
            yield int(json.loads(line)["port"])
        finally:
            child.kill()
