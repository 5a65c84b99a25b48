"""The processes and the temporary folder of a demo. They exist only while the demo runs."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any, Final

import trio

import stcp_proxy

PATIENCE: Final = 20.0
"""Deadline of each step of a process, in seconds. It is far longer than a step takes, for loaded machines."""
_FAREWELL: Final = 1.0
"""Seconds between SIGTERM and SIGKILL."""


class DemoFailed(Exception):
    """A check of the demo failed; the text is a sentence."""


class Program:
    """A running process whose output is JSON lines.

    Args:
        name: its name in messages.
        command: the command line as a user would write it.
        process: the process, with a pipe for its output.
    """

    def __init__(self, name: str, command: str, process: trio.Process) -> None:
        self.name = name
        self.command = command
        self.process = process
        self.lines: list[dict[str, Any]] = []
        self._text: list[str] = []
        self._grew = trio.Event()
        self._ended = False

    async def listen_to_it(self) -> None:
        """Read its output until the end."""
        assert self.process.stdout is not None
        rest = b""
        async for chunk in self.process.stdout:
            *whole, rest = (rest + chunk).split(b"\n")
            for line in whole:
                self._take(line.decode("utf-8", "replace"))
            self._wake()
        self._ended = True
        self._wake()

    async def line(self, **wanted: Any) -> dict[str, Any]:
        """The first line with these fields; waits until it is there.

        Raises:
            DemoFailed: the line did not appear in time.
        """
        with trio.move_on_after(PATIENCE):
            while True:
                for line in self.lines:
                    if wanted.items() <= line.items():
                        return line
                if self._ended:
                    break
                await self._grew.wait()
        raise DemoFailed(f"{self.name} did not say {wanted}; its last words: {self.last_words()}")

    def last_words(self) -> str:
        """The end of its output."""
        said = [json.dumps(line) for line in self.lines[-2:]] + self._text[-6:]
        return " | ".join(said) or "none"

    async def finished(self) -> tuple[int, str]:
        """Wait for the end of a process that ends by itself. Returns its exit status and output.

        Raises:
            DemoFailed: it did not end in time.
        """
        with trio.move_on_after(PATIENCE):
            while not self._ended:
                await self._grew.wait()
            return await self.process.wait(), "\n".join(self._text)
        raise DemoFailed(f"{self.name} did not end within {PATIENCE:g} s")

    async def stop(self) -> int:
        """Ask it to end, and return its exit status."""
        self.process.terminate()
        with trio.move_on_after(PATIENCE):
            return await self.process.wait()
        raise DemoFailed(f"{self.name} did not stop within {PATIENCE:g} s of SIGTERM")

    def _take(self, line: str) -> None:
        try:
            fields = json.loads(line)
        except ValueError:
            fields = None
        if isinstance(fields, dict):
            self.lines.append(fields)
        elif line.strip():
            self._text.append(line)

    def _wake(self) -> None:
        self._grew.set()
        self._grew = trio.Event()


class Stage:
    """Starts processes in a temporary folder; see `open_stage`."""

    def __init__(self, folder: Path, nursery: trio.Nursery) -> None:
        self._folder = folder
        self._nursery = nursery
        self._programs: list[Program] = []
        root = str(Path(stcp_proxy.__file__).parents[1])  # a checkout must run without an installation
        path = os.environ.get("PYTHONPATH")
        self._env = {**os.environ, "PYTHONPATH": f"{root}{os.pathsep}{path}" if path else root, "PYTHONUNBUFFERED": "1"}

    async def start(self, name: str, *command: str) -> Program:
        """Start a process, either `stcp-proxy` or a script of this folder, and read its output."""
        process = await trio.lowlevel.open_process(
            [sys.executable, *_python_arguments(command)],
            cwd=self._folder,
            env=self._env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            process_group=0,  # a terminal's Ctrl-C must reach only the demo, which ends the processes itself
        )
        program = Program(name, " ".join(command), process)
        self._programs.append(program)
        self._nursery.start_soon(program.listen_to_it)
        return program

    async def run(self, *command: str) -> str:
        """Run a process to its end. Returns its output.

        Raises:
            DemoFailed: its exit status is not 0.
        """
        program = await self.start(" ".join(command[:2]), *command)
        status, text = await program.finished()
        if status != 0:
            raise DemoFailed(f"'{program.command}' ended with status {status}: {program.last_words()}")
        return text

    async def close(self) -> None:
        """End all running processes."""
        running = [program.process for program in self._programs if program.process.poll() is None]
        for process in running:
            process.terminate()
        with trio.move_on_after(_FAREWELL):
            for process in running:
                await process.wait()
        for process in running:
            if process.poll() is None:
                process.kill()
                await process.wait()


def _python_arguments(command: Sequence[str]) -> list[str]:
    if command[0] == "stcp-proxy":
        return ["-m", "stcp_proxy", *command[1:]]
    return ["-I", str(Path(__file__).with_name(command[0])), *command[1:]]


@contextlib.asynccontextmanager
async def open_stage() -> AsyncIterator[Stage]:
    """Open a stage. Every exit from the context ends its processes and removes its folder."""
    with tempfile.TemporaryDirectory(prefix="stcp-demo-") as folder:
        async with trio.open_nursery() as nursery:
            stage = Stage(Path(folder), nursery)
            try:
                yield stage
            finally:
                with trio.CancelScope(shield=True):
                    await stage.close()
                nursery.cancel_scope.cancel()
