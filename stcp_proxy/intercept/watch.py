"""`intercept --watch`: keep the rules installed, restore deleted ones, and report it.

The kernel announces every change of a table, and this process checks the rules then. It also checks every five seconds, because a
change of policy routing or of the egress filter is not announced here. While rules are missing, the second guard (`hold`) refuses
captured destinations.
"""

from __future__ import annotations

import contextlib
import select
import socket
from collections.abc import Callable, Iterator
from typing import Final

from stcp_proxy.errors import RulesRefused, StcpError
from stcp_proxy.intercept.egress_filter import Attached, attach
from stcp_proxy.intercept.guard import COUNTERS
from stcp_proxy.intercept.hold import Hold
from stcp_proxy.intercept.install import OPEN, apply, chains_of, counted, installed, listing
from stcp_proxy.intercept.policy_routing import add_routing
from stcp_proxy.intercept.rules import Rules
from stcp_proxy.net.netlink_messages import NETLINK_ADD_MEMBERSHIP, NETLINK_NETFILTER, SOL_NETLINK

_GROUP_NFTABLES: Final = 7
_PERIOD: Final = 5.0
_RETRY: Final = 0.5
"""Seconds before the next attempt after a failure."""


class Watcher:
    """Keeps the rules of a file installed.

    Args:
        make: reads the file and returns its rules.
        say: takes one line for each event.

    Raises:
        StcpError: the rules cannot be installed.
    """

    def __init__(self, make: Callable[[], Rules], say: Callable[[str], None]) -> None:
        self._make = make
        self._say = say
        self._rules = make()
        self._hold: Hold | None = None
        self._no_filter: set[str] = set()
        self._say(apply(self._rules))
        self._seen = self._whole()
        self._counted = counted(self._rules.table)
        self._open_hold()

    def close(self) -> None:
        """End the second guard. The rules stay."""
        if self._hold is not None:
            self._hold.close()

    def run(self) -> None:
        """Watch until an exception ends it."""
        with _changes() as changes:
            while True:
                well = self._well() and self._seen is not None
                select.select([changes], [], [], _PERIOD if well else _RETRY)
                _drain(changes)

    def _well(self) -> bool:
        try:
            self.look()
        except StcpError as exc:
            self._say(f"cannot restore the rules, trying again: {exc}")
            return False
        return True

    def look(self) -> None:
        """Restore deleted rules and routes, and the second guard.

        Raises:
            StcpError: they cannot be restored now.
        """
        if add_routing(self._rules):
            self._say("policy routing was missing: restored")
        if self._seen is None or listing(self._rules.table) != self._seen:
            self._restore()
        self._look_at_filter()
        if self._hold is not None and self._hold.ended:
            self._say("the second guard was missing: restored")
            self._open_hold()
        self._report_refused()

    def _look_at_filter(self) -> None:
        """Attach the egress filter where it is missing, also to a new interface. Report each failure once."""
        if self._rules.egress is None:
            return
        try:
            found = attach(self._rules.egress)
        except RulesRefused as exc:
            found = Attached((), (), {"": str(exc)})
        if found.added:
            self._say(f"the egress filter was missing on {', '.join(found.added)}: attached")
        for reason in found.warnings():
            if reason not in self._no_filter:
                self._say(f"WARNING: {reason}; {OPEN}")
        self._no_filter = set(found.warnings())

    def _report_refused(self) -> None:
        """Say what the guard has refused since the last call. New rules count from zero."""
        now = counted(self._rules.table)
        for name, what in COUNTERS.items():
            before, count = self._counted.get(name, 0), now.get(name, 0)
            if more := count - before if count >= before else count:
                self._say(f"the guard refused {more} packet{'s' * (more > 1)} that {what}")
        self._counted = now

    def _restore(self) -> None:
        """Install the rules of the current file, which may be newer than the rules that were changed."""
        gone = installed(self._rules.table) is None
        with contextlib.suppress(StcpError):  # with a mistake in the file, the rules stay as they were
            self._rules = self._make()
        done = apply(self._rules)
        self._say(f"the rules were {'missing' if gone else 'changed'}: {done}")
        if self._hold is not None:
            self._hold.replace(self._rules)
        self._seen = self._whole()  # last, so that a failed replacement of the second guard is tried again

    def _whole(self) -> str | None:
        """The text of the installed rules; None where a chain has been deleted since."""
        text = listing(self._rules.table) or ""
        return text if chains_of(text) == chains_of(self._rules.nft) else None

    def _open_hold(self) -> None:
        self.close()
        try:
            self._hold = Hold(self._rules)
        except StcpError as exc:
            self._hold = None
            self._say(f"WARNING: {exc}; until the rules are restored, connections leave unencrypted")


@contextlib.contextmanager
def _changes() -> Iterator[socket.socket]:
    """A socket that is readable after every change of a table."""
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK, NETLINK_NETFILTER) as sock:
        sock.bind((0, 0))
        sock.setsockopt(SOL_NETLINK, NETLINK_ADD_MEMBERSHIP, _GROUP_NFTABLES)
        yield sock


def _drain(sock: socket.socket) -> None:
    """Read all announcements. An error leaves the rest for the next call."""
    with contextlib.suppress(OSError):
        while True:
            sock.recv(1 << 16)
