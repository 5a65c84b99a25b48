"""From flags or a YAML file to a frozen plan of what to run.

Both ways go through the same pydantic models, which refuse what they do not know, and then through the same checks of sense.
Every mistake that can be found is listed at once, with file, line and key path, and nothing starts before there is none.

- ``plan``     the result: frozen dataclasses, and every default
- ``source``   YAML text to plain data that knows its lines; flags to the same data; findings
- ``models``   the shape: keys, types and ranges
- ``admin``    where a running proxy can be looked into, and its ``token``
- ``load``     the two ways in: a file, or flags
- ``build``    the sense: models to a plan, key files read, contradictions found
- ``inbound``  the same for what a listen tunnel offers, and for who its clients are said to be
- ``original``  the same for `to: original` and what it may lead to
- ``intercept``  the same for interception, without keys
- ``diff``     what a reload would change: the difference between two plans
- ``reader_process``  reads a file in a process of its own, which sends the plan as ``plan_bytes``
- ``show``     a plan in words, for `stcp-proxy check`
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any, Final

from stcp_proxy.config.plan import (
    AcceptProxy,
    AdminPlan,
    Balance,
    EngineChoice,
    HandOn,
    HealthPlan,
    KeyAuth,
    LogFormat,
    LogPlan,
    Mode,
    Plan,
    PskAuth,
    ServicePlan,
    TunnelPlan,
)
from stcp_proxy.config.token import Token
from stcp_proxy.errors import LogClass

if TYPE_CHECKING:
    from stcp_proxy.config.load import load_plan, plan_from_flags
    from stcp_proxy.config.show import describe_plan
    from stcp_proxy.config.source import ConfigProblems, Finding

_READING: Final = {
    "ConfigProblems": "source",
    "Finding": "source",
    "describe_plan": "show",
    "load_plan": "load",
    "plan_from_flags": "load",
}
"""What reads a configuration, and its module. It is imported at its first use: a process that serves does without."""


def __getattr__(name: str) -> Any:
    if name not in _READING:
        raise AttributeError(name)
    return getattr(importlib.import_module(f"{__name__}.{_READING[name]}"), name)


__all__ = [
    "AcceptProxy",
    "AdminPlan",
    "Balance",
    "ConfigProblems",
    "EngineChoice",
    "Finding",
    "HandOn",
    "HealthPlan",
    "KeyAuth",
    "LogClass",
    "LogFormat",
    "LogPlan",
    "Mode",
    "Plan",
    "PskAuth",
    "ServicePlan",
    "Token",
    "TunnelPlan",
    "describe_plan",
    "load_plan",
    "plan_from_flags",
]
