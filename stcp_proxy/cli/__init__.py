"""The command line: parse, call, print.

One small file for each command, with `register(app)` in it; ``commands`` brings them together. Options that commands share are in
``options``. Import whatever a command needs beyond typer when it runs, so that `--help` and completion answer at once.

A command that serves is read by a child process, and this process serves: see ``start``.

Exit status: 0 done, 1 failed while running, 2 wrong usage or configuration.
"""

from __future__ import annotations

import contextlib
import errno
import os
import sys
from collections.abc import Callable

FAILED = 1
WRONG_USAGE = 2
_STREAMS = ("stdin", "stdout", "stderr")
_OUTPUT = (errno.EPIPE, errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EFBIG)
"""What a write to the standard output fails with, for reasons that are not this program's."""
_SERVING = ("run", "listen", "connect", "agent")


def main() -> None:
    """Run the command line of this process; an expected failure is one sentence on stderr, not a traceback."""
    _open_standard_streams()
    arguments = sys.argv[1:]
    if arguments[:1] and arguments[0] in _SERVING and "_STCP_PROXY_COMPLETE" not in os.environ:
        from stcp_proxy.cli import start

        in_a_sentence(lambda: start.serve(arguments))
    else:
        from stcp_proxy.cli import commands
        from stcp_proxy.process import signals

        signals.unblock()  # the image's entry point blocks them for a process that serves

        in_a_sentence(commands.call)


def in_a_sentence(work: Callable[[], None]) -> None:
    """Do `work`; print an expected failure of it as one sentence, and end with its exit status."""
    from stcp_proxy.errors import ConfigError, StcpError

    try:
        try:
            work()
        finally:
            sys.stdout.flush()
    except StcpError as exc:
        _say(str(exc))
        sys.exit(WRONG_USAGE if isinstance(exc, ConfigError) else FAILED)
    except OSError as exc:
        if exc.errno not in _OUTPUT or exc.filename is not None:
            raise
        _discard_output()
        if exc.errno != errno.EPIPE:  # whoever closed the pipe has read enough
            _say(f"cannot write the output: {(exc.strerror or str(exc)).lower()}; free space there, or write it elsewhere")
        sys.exit(FAILED)


def _say(words: str) -> None:
    """One sentence on stderr; nobody can be told where that fails, too."""
    with contextlib.suppress(OSError):
        print(f"stcp-proxy: {words}", file=sys.stderr, flush=True)


def _discard_output() -> None:
    """Let what is still buffered go nowhere: the interpreter would fail on it once more at its end."""
    with contextlib.suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)


def _open_standard_streams() -> None:
    """Open /dev/null for each standard stream that is closed; else the next socket would get its number, and the output."""
    for number, mode in ((0, "r"), (1, "w"), (2, "w")):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free number
        name = _STREAMS[number]
        if getattr(sys, name) is None:
            setattr(sys, name, open(number, mode, closefd=False))  # noqa: SIM115
