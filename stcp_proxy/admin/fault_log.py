"""The memory of faults: when each began, when it was over, and how often it came. It makes the verdict of `/status`.

Bounded: at most `_REMEMBERED` faults that are over are kept, each for `OVER` seconds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from stcp_proxy.admin.faults import OVER
from stcp_proxy.admin.verdict_schema import Fault, Kind, Level, Verdict

LISTED: Final = 8
"""Faults that a verdict lists."""
_REMEMBERED: Final = 50
_RANK: Final[dict[Level, int]] = {"bad": 0, "warn": 1, "note": 2, "ok": 3}
_OF_TUNNELS: Final[dict[Kind, tuple[str, str]]] = {
    "no_target": ("has no target", "have no target"),
    "not_listening": ("does not listen", "do not listen"),
    "socket_lost": ("has lost its socket file", "have lost their socket files"),
    "rules": ("lacks its interception rules", "lack their interception rules"),
    "egress_filter": ("lacks its egress filter", "lack their egress filters"),
    "full": ("is full", "are full"),
    "bug": ("failed by a bug of this program", "failed by a bug of this program"),
    "target_down": ("has a target that is down", "have a target that is down"),
    "nearly_full": ("is nearly full", "are nearly full"),
    "handshakes": ("has as many handshakes as it allows", "have as many handshakes as they allow"),
    "audit": ("only audits its access rule", "only audit their access rules"),
    "refused": ("refuses connections", "refuse connections"),
}
_STATE: Final[dict[Kind, str]] = {
    "not_listening": "not listening",
    "socket_lost": "socket lost",
    "rules": "no rules",
    "egress_filter": "no egress filter",
    "no_target": "no target",
    "full": "full",
    "target_down": "target down",
    "nearly_full": "nearly full",
    "handshakes": "handshakes full",
    "audit": "audit",
}
_OF_PROCESS: Final[dict[Kind, str]] = {
    "silent_worker": "a worker process does not answer",
    "descriptors": "file descriptors are nearly used up",
    "reload": "the last reload was refused",
    "certificate": "a certificate should have been renewed",
    "starting": "the proxy is starting",
    "draining": "the proxy is stopping",
}
_STATES: Final[frozenset[Kind]] = frozenset({"starting", "draining"})
"""Kinds whose end is no news."""
_PHRASES: Final = 2


class FaultLog:
    """Remembers faults between reports."""

    def __init__(self) -> None:
        self._lasting: dict[str, Fault] = {}
        self._over: dict[str, Fault] = {}
        self._times: dict[str, int] = {}
        self._at = 0.0

    def update(self, found: Sequence[Fault], now: float) -> None:
        """Take the faults of a report.

        Args:
            found: from `find_faults`.
            now: the time of the report. A report that is older than the last one changes nothing.
        """
        if now < self._at:
            return
        self._at = now
        present = {fault.key: self._known(fault, now) for fault in found if fault.until is None}
        for key, fault in self._lasting.items():
            if key not in present and fault.last is None and fault.kind not in _STATES:  # a refusal says itself when it is over
                self._over[key] = replace(fault, until=now)
        self._over |= {fault.key: fault for fault in found if fault.until is not None}
        self._lasting = present
        over = [fault for key, fault in self._over.items() if key not in present and now - (fault.until or 0.0) <= OVER]
        self._over = {fault.key: fault for fault in over[-_REMEMBERED:]}
        self._times = {key: count for key, count in self._times.items() if key in present or key in self._over}

    def _known(self, fault: Fault, now: float) -> Fault:
        before = self._lasting.get(fault.key)
        if before is None:
            self._times[fault.key] = self._times.get(fault.key, 0) + 1
        since = fault.since or (before.since if before is not None else now)
        return replace(fault, since=since, times=self._times[fault.key])

    def states(self) -> dict[str, tuple[Level, str]]:
        """The states of the tunnels with a fault, by name: how bad the worst is, and a word or two for it."""
        found: dict[str, tuple[Level, str]] = {}
        for fault in sorted(self._lasting.values(), key=lambda fault: _RANK[fault.level]):
            if fault.kind in _STATE:
                for tunnel in fault.tunnels:
                    found.setdefault(tunnel, (fault.level, _STATE[fault.kind]))
        return found

    def verdict(self, tunnels: int) -> Verdict:
        """The verdict of the last report.

        Args:
            tunnels: the number of tunnels.
        """
        lasting = sorted(self._lasting.values(), key=lambda fault: (_RANK[fault.level], fault.since or 0.0))
        over = sorted(self._over.values(), key=lambda fault: fault.until or 0.0, reverse=True)
        level = lasting[0].level if lasting and lasting[0].level != "note" else "ok"
        worst = [fault for fault in lasting if fault.level == level]
        faults = [*lasting, *over]
        return Verdict(
            level=level,
            headline=_headline(worst, tunnels) if worst else "All is well again" if over else "All is well",
            faults=faults[:LISTED],
            more=max(0, len(faults) - LISTED),
        )


def _headline(worst: list[Fault], tunnels: int) -> str:
    """What is wrong, in a few words: the two kinds of faults that most tunnels have."""
    of_kind: dict[Kind, set[str]] = {}
    for fault in worst:
        of_kind.setdefault(fault.kind, set()).update(fault.tunnels)
    phrases = []
    for kind, names in sorted(of_kind.items(), key=lambda entry: (entry[0] in _OF_TUNNELS, -len(entry[1]))):
        if kind in _OF_PROCESS:
            phrases.append(_OF_PROCESS[kind])
        else:
            one, many = _OF_TUNNELS[kind]
            who = "the tunnel" if tunnels == 1 else f"{len(names):,} of {tunnels:,} tunnels"
            phrases.append(f"{who} {many if len(names) > 1 else one}")
    text = ", ".join(phrases[:_PHRASES]) + (", and more" if len(phrases) > _PHRASES else "")
    return text[0].upper() + text[1:]
