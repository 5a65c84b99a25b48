"""Read a file for a reload by fork, in a proxy that the fork server has started.

A proxy starts a new interpreter for its first reload, which spends half a second of processor time on imports. A proxy of the
fork server has imported all of it, so a fork of it is enough. The reader has the same input, messages and end. Proxies with
`fresh` have the reader of the product, and so have all where STCP_TEST_READER is `program` (test_warm_reader.py).
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    from stcp_proxy.config.plan import Plan
    from stcp_proxy.config.reader_process import FileReading


def install() -> None:
    """Let this process read files by fork from now on. It has imported the product."""
    from stcp_proxy.config.reader_process import FileReading

    of_product = FileReading.begin

    def begin(reading: FileReading) -> Callable[[], Plan]:
        return of_product(reading) if os.environ.get("STCP_TEST_READER") == "program" else _begin(reading)

    FileReading.begin = begin


def _begin(reading: FileReading) -> Callable[[], Plan]:
    """See `FileReading.begin`."""
    from stcp_proxy.config.reader_process import _plan_in

    answer, child_answer = os.pipe()
    words, child_words = os.pipe()
    closed, child_closed = os.pipe()
    child = os.fork()
    if not child:
        _read(reading, child_answer, child_words)
    for number in (child_answer, child_words, child_closed):
        os.close(number)
    os.read(closed, 1)  # EOF: the child has closed its copies of all descriptors
    os.close(closed)

    def finish() -> Plan:
        with open(answer, "rb") as message, open(words, "rb") as errors:
            content = message.read(), errors.read().decode("utf-8", "replace")
        with suppress(ChildProcessError):  # the parent of worker processes waits for every child
            os.waitpid(child, 0)
        return _plan_in(*content)

    return finish


def _read(reading: FileReading, answer: int, words: int) -> NoReturn:
    """In the child: take the state of a new program, and answer."""
    from stcp_proxy.config import reader_process

    status = 1
    try:
        os.setpgid(0, 0)
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        nothing = os.open(os.devnull, os.O_RDONLY)
        for number, stream in enumerate((nothing, answer, words)):
            os.dup2(stream, number)
        os.closerange(3, os.sysconf("SC_OPEN_MAX"))
        sys.stderr = open(2, "w", closefd=False)  # noqa: SIM115
        with open(1, "wb", closefd=False) as file:
            reader_process.answer(asdict(reading), file)
        status = 0
    finally:
        with suppress(OSError, ValueError):
            sys.stderr.flush()
        os._exit(status)
