"""The base of every expected failure."""

from __future__ import annotations

import enum
from typing import ClassVar

from stcp_proxy.errors.codes import Code
from stcp_proxy.errors.judgement import BUG, Judgement


class Cause(enum.StrEnum):
    """Who can do something about a failure."""

    CONFIG = "config"
    PEER = "peer"
    CLIENT = "client"
    TARGET = "target"
    LIMIT = "limit"
    NETWORK = "network"
    OURS = "ours"


class StcpError(Exception):
    """An expected failure.

    Each kind declares its `judgement` itself, so that whoever adds a kind has answered every question about it.

    Args:
        what: what happened, and why where that is known.
        remedy: what the reader can do about it, an imperative clause. [default: the usual remedy of the kind]
    """

    cause: ClassVar[Cause] = Cause.OURS
    code: ClassVar[Code] = Code.INTERNAL_ERROR
    label: ClassVar[str] = "internal_error"
    judgement: Judgement = BUG
    usual_remedy: ClassVar[str | None] = None
    """The remedy where the caller knows no better one; None where the caller always has to give one."""

    def __init__(self, what: str, *, remedy: str | None = None) -> None:
        super().__init__(what)
        self.what = what
        self.remedy = remedy or self.usual_remedy

    def __str__(self) -> str:
        return f"{self.what}; {self.remedy}" if self.remedy else self.what


def code_for(exc: BaseException) -> Code:
    """The wire code that tells the other side about `exc`."""
    return exc.code if isinstance(exc, StcpError) else Code.INTERNAL_ERROR
