"""The command line: parse, call, print.

One small file for each command, with `register(app)` in it; ``commands`` brings them together. Options that commands share are in
``options``. Import whatever a command needs beyond typer when it runs, so that `--help` and completion answer at once.

A command that serves is read by a child process, and this process serves: see ``start``.

Exit status: 0 done, 1 failed while running, 2 wrong usage or configuration.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable

FAILED = 1
WRONG_USAGE = 2
_SERVING = ("run", "listen", "connect")


def main() -> None:
    """Run the command line of this process; an expected failure is one sentence on stderr, not a traceback."""
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
        work()
    except StcpError as exc:
        print(f"stcp-proxy: {exc}", file=sys.stderr)
        sys.exit(WRONG_USAGE if isinstance(exc, ConfigError) else FAILED)
