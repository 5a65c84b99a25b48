"""Start a process that serves, without the libraries that only reading a command line and a file needs.

Parsing and checking take pydantic, PyYAML, typer and rich, a third of the memory of a proxy at rest. So this process forks at
once. The child does what the command line says up to the plan, sends the plan through a pipe, and ends. Meanwhile this process
imports what serves; then it serves, under the process id that it was started with. Mistakes are the child's to print, and its
exit status becomes that of this process.
"""

from __future__ import annotations

import gc
import json
import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, BinaryIO, Final, NoReturn

from stcp_proxy.errors import StcpError
from stcp_proxy.process import detach, signals

if TYPE_CHECKING:
    from stcp_proxy.config.reader_process import FileReading


_COLLECT_AFTER: Final = 20_000
"""Objects, net, between two collections during the start: nearly everything that is made then stays."""


def serve(arguments: Sequence[str]) -> NoReturn:
    """Serve what the command line says; ends in SystemExit.

    Args:
        arguments: of the command line, the command among them.

    Raises:
        StcpError: the proxy could not start.
    """
    signals.begin()
    detach.detach()
    gc.set_threshold(_COLLECT_AFTER, 50, 1_000)
    reader, writer = os.pipe2(os.O_CLOEXEC)
    child = os.fork()
    if child == 0:
        os.close(reader)
        _read(writer)
    os.close(writer)
    with open(reader, "rb") as orders:
        sys.exit(_serve(orders, child, alone="--" not in arguments and not {"-h", "--help"} & {*arguments}))


# -- the child -----------------------------------------------------------------------------------------------------------------


def _read(writer: int) -> NoReturn:
    """Do what the command line says, and write to the pipe what is to be served, or else the exit status."""
    signals.let_stop()
    status = 1
    try:
        from stcp_proxy.cli import command_line, in_a_sentence, run, tunnel_commands
        from stcp_proxy.cli.serve import hand_over_to
        from stcp_proxy.config.reader_process import STATUS, send

        with open(writer, "wb") as server:
            hand_over_to(server)
            try:
                command = run if sys.argv[1] == "run" else tunnel_commands  # the others take a tenth of this process's time
                in_a_sentence(lambda: command_line.call(command_line.build([command])))
            except SystemExit as exc:
                status = _number(exc.code)
            _flush()
            send(server, STATUS, json.dumps(status).encode())
    except BrokenPipeError:
        pass  # the other process has been ended
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        os._exit(status)  # the rest of the start is waiting


def _number(code: object) -> int:
    return code if isinstance(code, int) else 0 if code is None else 1


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            stream.flush()


# -- this process --------------------------------------------------------------------------------------------------------------


def _serve(orders: BinaryIO, child: int, *, alone: bool) -> int:
    """Serve what comes through the pipe. Returns the exit status."""
    if alone:
        load()
    from stcp_proxy.cli.serve import beside
    from stcp_proxy.config.reader_process import HEAD, FileReading

    kind, content = _next(orders)
    if kind != HEAD:
        return _ended(content, child)
    head = json.loads(content)
    again = None if head["again"] is None else FileReading(**head["again"])
    application = head["application"]
    return beside(application, lambda: _serve_plan(orders, again, None if application else child, replace=head["replace"]))


def _serve_plan(orders: BinaryIO, again: FileReading | None, child: int | None, *, replace: bool) -> int:
    """Serve the plan that comes next; a child that is not this process' own is reaped by its parent."""
    load()
    from stcp_proxy.cli.serve import serve
    from stcp_proxy.config import plan_bytes
    from stcp_proxy.config.reader_process import PLAN
    from stcp_proxy.process import sandbox

    kind, content = _next(orders)
    if kind != PLAN:
        return _ended(content, child)
    plan = plan_bytes.load(content)
    del content
    if child is not None:
        os.waitpid(child, 0)
    sandbox.enter(plan)
    return serve(plan, again, replace=replace)


def _next(orders: BinaryIO) -> tuple[bytes, bytes]:
    from stcp_proxy.config.reader_process import receive

    message = receive(orders)
    if message is None:
        raise StcpError("the process that reads the command line was ended", remedy="see whether memory ran out, and start again")
    return message


def _ended(status: bytes, child: int | None) -> int:
    """The exit status of a child that had nothing to serve."""
    if child is not None:
        os.waitpid(child, 0)
    number = json.loads(status)
    assert isinstance(number, int)  # noqa: S101
    return number


_ABSENT: Final = ("better_exceptions", "greenlet", "rich")
"""Modules that structlog imports where they are installed: to draw tracebacks that a log of this program never shows (8 MiB), and
for programs that use greenlets."""
_UNUSED: Final = ("asyncio", "idna", "ssl", "structlog.stdlib", "structlog.threadlocal")
"""Modules that structlog and Trio import, and that a proxy does not use."""


def load() -> None:
    """Import what serves, and nothing that Trio and structlog would import for other programs."""
    from stcp_proxy.process import deferred_imports

    deferred_imports.import_hashlib()
    if "structlog" not in sys.modules:
        deferred_imports.defer(_UNUSED)
        with deferred_imports.without(_ABSENT):
            import structlog  # noqa: F401
    from stcp_proxy.process import supervisor  # noqa: F401
