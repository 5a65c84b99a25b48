"""The settings of an exporter, as it reads them at its start: JSON in memory, reached by a descriptor alone.

They contain secrets (the values of headers), so they are in no argument, file or environment variable. An exporter keeps its
settings for its life: for other settings, another one follows it.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from typing import Final

from stcp_proxy.config import LogFormat, LogPlan, OtlpPlan

FOLLOWED: Final = b"n"
"""Written to the standard input of an exporter before its end: another one takes what is in the channel."""


@dataclass(frozen=True, slots=True)
class Orders:
    """Everything that an exporter needs.

    Attributes:
        endpoint, headers, ca, timeout: see `OtlpPlan`.
        resource: names and values that every span shares.
        level, format: of log lines.
    """

    endpoint: str
    headers: dict[str, str]
    ca: str | None
    timeout: float
    resource: dict[str, str]
    level: str = "info"
    format: LogFormat | None = None

    def __repr__(self) -> str:
        return f"Orders({self.endpoint})"


def orders_for(plan: OtlpPlan, log: LogPlan, own: dict[str, str]) -> Orders:
    """The orders of a plan.

    Args:
        plan: the settings of spans.
        log: the settings of log lines.
        own: attributes of this process; those of the plan win.
    """
    headers = {name: value.reveal() for name, value in plan.headers}
    resource = own | {"service.name": plan.service_name} | dict(plan.attributes)
    return Orders(plan.endpoint, headers, plan.ca, plan.timeout, resource, log.level, log.format)


def write(orders: Orders) -> int:
    """Write orders into memory. Returns its descriptor."""
    fd = os.memfd_create("stcp-orders", os.MFD_CLOEXEC)
    with open(fd, "wb", closefd=False) as file:
        file.write(json.dumps(asdict(orders)).encode())
    return fd


def read(fd: int) -> Orders:
    """Read orders, and close their descriptor. The position is that of the writer, so the file is read from its start."""
    with open(fd, "rb") as file:
        file.seek(0)
        return Orders(**json.loads(file.read()))
