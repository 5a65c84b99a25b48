"""The shape of the verdict in `/status`: what is wrong, since when, and what to do."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

Level = Literal["ok", "note", "warn", "bad"]
Kind = Literal[
    "no_target",
    "target_down",
    "not_listening",
    "socket_lost",
    "rules",
    "egress_filter",
    "full",
    "nearly_full",
    "handshakes",
    "audit",
    "refused",
    "stranger",
    "bug",
    "silent_worker",
    "descriptors",
    "reload",
    "certificate",
    "starting",
    "draining",
]


@dataclass(slots=True, kw_only=True)
class Fault:
    """Something that is wrong, or was wrong until a short time ago.

    Attributes:
        key: the same for the same fault in every answer.
        kind: what kind of fault it is.
        tunnels: the tunnels that have it; empty where it is one of the process.
        level: ``bad`` when something does not work, ``warn`` for something to look at, ``note`` for something to know.
        what: the sentence in parts: words of this program and foreign text (names, addresses, reasons) in turn.
        remedy: what to do; foreign text does not occur in it.
        public_key: the key that the remedy speaks of; empty without one.
        since: when it began.
        last: when it happened last; None for a state.
        until: when it was over; None while it lasts.
        times: how often it has begun since the start of the proxy.
    """

    key: str
    kind: Kind
    level: Level
    what: list[str]
    tunnels: list[str] = field(default_factory=list)
    remedy: str = ""
    public_key: str = ""
    since: float | None = None
    last: float | None = None
    until: float | None = None
    times: int = 1


@dataclass(slots=True, kw_only=True)
class Verdict:
    """The answer to: does it work, and if not, what is to be done?

    Attributes:
        level: the worst level of the faults that last, ``ok`` without any.
        headline: the answer in a few words.
        faults: the worst first, those that are over last.
        more: faults that are not listed.
    """

    level: Level = "ok"
    headline: str = ""
    faults: list[Fault] = field(default_factory=list)
    more: int = 0
