"""Read a configuration file in a separate process, and receive the plan from it.

The libraries that read files (pydantic, PyYAML) take memory for the whole life of a process. So a serving process never imports
them: a child reads, checks, sends the plan through a pipe, and ends. Only these two processes have the pipe. Secrets are in no
file, argument or environment variable.

A message is one byte for its kind, 8 bytes for its length, and its content:

    H  JSON: the options that the command line needs beside a plan; see `stcp_proxy.cli.serve`
    P  a plan; see ``plan_bytes``
    E  JSON: cause and remedy of a failure
    S  JSON: an exit status, when there is nothing to serve and all messages have been printed
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, BinaryIO, Final

from stcp_proxy.config import plan_bytes
from stcp_proxy.config.plan import Plan
from stcp_proxy.config.warm_reader import Readers
from stcp_proxy.errors import ConfigError, StcpError

HEAD: Final = b"H"
PLAN: Final = b"P"
ERROR: Final = b"E"
STATUS: Final = b"S"
_LENGTH: Final = 8

_readers: Final = Readers()


@dataclass(frozen=True, slots=True)
class FileReading:
    """The file to read, and the values of the command line that replace its settings.

    Attributes:
        path: the path of the file.
        admin: the admin address instead of the file's.
        admin_token: the name of a token file instead of the file's.
    """

    path: str
    admin: str | None = None
    admin_token: str | None = None

    def here(self) -> Plan:
        """Read the file in this process.

        Raises:
            ConfigError: lists every mistake.
        """
        from stcp_proxy.config.load import load_plan

        return load_plan(self.path, admin=self.admin, admin_token=self.admin_token)

    def begin(self) -> Callable[[], Plan]:
        """Start a process that reads the file. Call this in the thread that closes connections.

        Between fork and exec, the child has a copy of every descriptor. The calling thread waits until exec. Otherwise it could
        close a socket whose copy stays open in the child.

        Returns:
            A function that waits for the plan. It raises ConfigError with every mistake that was found.
        """
        try:
            reading = _readers.begin(asdict(self))
        except OSError as exc:
            raise _unread(f"{sys.executable}: {exc.strerror}") from None

        def finish() -> Plan:
            return _plan_in(*reading.finish())

        return finish


def answer(request: dict[str, Any], file: BinaryIO) -> None:
    """In the process that reads: read the file, and send the plan or the failure."""
    try:
        message = PLAN, plan_bytes.dump(FileReading(**request).here())
    except StcpError as exc:
        message = ERROR, json.dumps({"what": exc.what, "remedy": exc.remedy}).encode()
    send(file, *message)


def send(file: BinaryIO, kind: bytes, content: bytes) -> None:
    """Write one message."""
    file.write(kind + len(content).to_bytes(_LENGTH, "big") + content)


def receive(file: BinaryIO) -> tuple[bytes, bytes] | None:
    """The kind and the content of the next message; None when the other process ended before it was complete."""
    head = file.read(1 + _LENGTH)
    if len(head) < 1 + _LENGTH:
        return None
    length = int.from_bytes(head[1:], "big")
    content = file.read(length)
    return (head[:1], content) if len(content) == length else None


def _plan_in(message: bytes, words: str) -> Plan:
    """The plan of one message.

    Args:
        message: the message of the child.
        words: the text of the child on standard error.

    Raises:
        ConfigError: the child found mistakes, or failed.
    """
    kind, content = message[:1], message[1 + _LENGTH :]
    if kind == ERROR:
        error = json.loads(content)
        raise ConfigError(error["what"], remedy=error["remedy"])
    if kind != PLAN or len(content) != int.from_bytes(message[1 : 1 + _LENGTH], "big"):
        last = words.strip().splitlines()[-1:] or ["it ended without a message"]
        raise _unread(last[0])
    try:
        return plan_bytes.load(content)
    except ConfigError:
        raise
    except Exception as exc:  # a different version on disk may write objects that are unknown here
        raise _unread(f"{type(exc).__name__}: {exc}") from None


def _unread(why: str) -> ConfigError:
    what = f"the process that reads the configuration failed: {why}"
    return ConfigError(what, remedy="restart the proxy if its program was updated; else make room in memory and on disk")
