"""Processes and a folder for the length of a demo, and not a moment longer."""

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
"""Seconds within which a process does what is expected of it: far more than that takes, for machines with other things to do."""
_FAREWELL: Final = 1.0
"""Seconds between a polite request to end and the other kind."""


class DemoFailed(Exception):
    """Something did not behave as promised; the text is a sentence."""


class Program:
    """A running process whose output is JSON lines.

    Args:
        name: for sentences about it.
        command: the command line, as a person would write it.
        process: the process, its output a pipe.
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
        """Read what it says until its end."""
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
        """The first line with these fields, now or soon.

        Raises:
            DemoFailed: it did not come.
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
        """The end of what it said."""
        said = [json.dumps(line) for line in self.lines[-2:]] + self._text[-6:]
        return " | ".join(said) or "none"

    async def finished(self) -> tuple[int, str]:
        """Exit status and text of a process that ends by itself.

        Raises:
            DemoFailed: it did not end.
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
        root = str(Path(stcp_proxy.__file__).parents[1])  # so that a checkout runs without being installed
        path = os.environ.get("PYTHONPATH")
        self._env = {**os.environ, "PYTHONPATH": f"{root}{os.pathsep}{path}" if path else root, "PYTHONUNBUFFERED": "1"}

    async def start(self, name: str, *command: str) -> Program:
        """Start a process, `stcp-proxy` or a script of this folder, and listen to what it says."""
        process = await trio.lowlevel.open_process(
            [sys.executable, *_python_arguments(command)],
            cwd=self._folder,
            env=self._env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            process_group=0,  # a terminal's Ctrl-C is the demo's alone: it ends them in its own time
        )
        program = Program(name, " ".join(command), process)
        self._programs.append(program)
        self._nursery.start_soon(program.listen_to_it)
        return program

    async def run(self, *command: str) -> str:
        """Run a process to its end; returns what it printed.

        Raises:
            DemoFailed: its exit status is not 0.
        """
        program = await self.start(" ".join(command[:2]), *command)
        status, text = await program.finished()
        if status != 0:
            raise DemoFailed(f"'{program.command}' ended with status {status}: {program.last_words()}")
        return text

    async def close(self) -> None:
        """End everything that still runs."""
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
    """A stage; on the way out, whatever the reason, its processes are ended and its folder is removed."""
    with tempfile.TemporaryDirectory(prefix="stcp-demo-") as folder:
        async with trio.open_nursery() as nursery:
            stage = Stage(Path(folder), nursery)
            try:
                yield stage
            finally:
                with trio.CancelScope(shield=True):
                    await stage.close()
                nursery.cancel_scope.cancel()
