"""Silencing of log lines by class: `log.quiet`.

Each line carries the class of its failure as `log_class`, which `stcp_proxy.errors` declares. Lines without a class are never
silenced: bugs of this program, limits, and lines about the process as a whole.
"""

from __future__ import annotations

from collections.abc import Collection

import structlog

from stcp_proxy.config import LogClass


def processor(quiet: Collection[LogClass]) -> structlog.typing.Processor:
    """The step of structlog's chain that drops the lines of some classes, and removes the field `log_class` from all other lines.

    Args:
        quiet: the classes to drop.
    """

    def drop(_logger: object, _method: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
        if event.pop("log_class", None) in quiet:
            raise structlog.DropEvent
        return event

    return drop
