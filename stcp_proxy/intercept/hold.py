"""The second guard, in a table that other programs cannot delete.

`nft flush ruleset`, which every restart of a firewall runs, deletes the tables of all programs, except tables with an owner. Only
the socket that made such a table can change it, and the kernel deletes the table when that socket is closed. A running `nft`
process owns the second guard. So a program that deletes the rules cannot delete this guard. When this process ends, only the
second guard is deleted.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import time
from collections.abc import Iterator
from typing import Final

from stcp_proxy.errors import RulesRefused
from stcp_proxy.intercept.install import listing, served_elements
from stcp_proxy.intercept.programs import program
from stcp_proxy.intercept.rules import HOLD, Rules

_DEADLINE: Final = 5.0
"""Seconds that `nft` has to install the table."""


class Hold:
    """The second guard. It exists as long as this object is open; a context manager.

    Args:
        rules: the rules with the text of the guard.

    Raises:
        RulesRefused: the kernel or `nft` does not support tables with an owner.
    """

    def __init__(self, rules: Rules) -> None:
        self._table: Final = f"{rules.table}{HOLD}"
        self._version = 0
        self._nft = subprocess.Popen(  # noqa: S603  (no shell, and no argument from outside)
            [program("nft"), "-i"], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        try:
            self.replace(rules)
        except BaseException:
            self.close()
            raise

    @property
    def ended(self) -> bool:
        """Whether `nft` has ended. Its table ends with it."""
        return self._nft.poll() is not None

    def replace(self, rules: Rules) -> None:
        """Replace the guard by the guard of new rules, in one transaction.

        Raises:
            RulesRefused: the guard is not installed in time.
        """
        self._version += 1
        with self._file(self._text(rules)) as path:
            assert self._nft.stdin is not None  # noqa: S101
            with contextlib.suppress(BrokenPipeError):
                self._nft.stdin.write(f'include "{path}"\n'.encode())
                self._nft.stdin.flush()
            self._wait()

    def _text(self, rules: Rules) -> str:
        head = f"table inet {self._table} {{\n\tflags owner\n"
        version = f"\tchain version_{self._version} {{\n\t}}\n"
        return f"{head}}}\ndelete table inet {self._table}\n{head}{version}{rules.hold}{served_elements(self._table)}"

    @contextlib.contextmanager
    def _file(self, text: str) -> Iterator[str]:
        """A file in memory for `nft`. Its input lines have a length limit, and the file system may be read-only."""
        with open(os.memfd_create("stcp-proxy-rules"), "w") as file:
            file.write(text)
            file.flush()
            yield f"/proc/{os.getpid()}/fd/{file.fileno()}"

    def _wait(self) -> None:
        until = time.monotonic() + _DEADLINE
        while time.monotonic() < until and not self.ended:
            if f"chain version_{self._version} " in (listing(self._table) or ""):
                return
            time.sleep(0.02)
        remedy = "use Linux 5.12 and nftables 0.9.9 or later, and one --watch for each table"
        raise RulesRefused("the second guard, which survives 'nft flush ruleset', cannot be installed", remedy=remedy)

    def close(self) -> None:
        """End `nft`, which also deletes its table."""
        self._nft.kill()
        self._nft.wait()
        if self._nft.stdin is not None:
            with contextlib.suppress(BrokenPipeError):
                self._nft.stdin.close()

    def __enter__(self) -> Hold:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()
