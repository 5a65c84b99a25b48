"""Where the records of this process go: a channel to the exporter, or nowhere."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from stcp_proxy.spans.counts import Counts


class Sink(Protocol):
    """Takes records of connections that have ended. `Channel` is one."""

    @property
    def dropped(self) -> int:
        """Records of this process that found no room."""

    @property
    def results(self) -> Counts:
        """What became of the records of all processes that share the sink."""

    def wants(self, channel: str) -> bool:
        """Whether a connection makes a span, by its channel id; empty before a handshake."""

    def offer(self, record: dict[str, Any]) -> None:
        """Take a record, or drop and count it. Never waits."""


_current: Sink | None = None


def use(sink: Sink | None) -> None:
    """Give the records of this process to `sink` from now on; None for no spans."""
    global _current
    _current = sink


def current() -> Sink | None:
    """Where the records go; None where no spans are wanted."""
    return _current
