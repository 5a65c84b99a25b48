"""The command line in this process: what a command prints, and its exit status."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass

import pytest

from stcp_proxy import cli
from stcp_proxy.cli import commands


@dataclass
class Result:
    status: object
    out: str
    err: str


Run = Callable[..., Result]


def command_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Returns a function that runs the command line with its arguments."""

    def run(*args: object) -> Result:
        monkeypatch.setattr(sys, "argv", ["stcp-proxy", *map(str, args)])
        with pytest.raises(SystemExit) as caught:
            cli.in_a_sentence(commands.call)
        out, err = capsys.readouterr()
        return Result(caught.value.code or 0, out, err)

    return run
