"""From flags or a YAML file to a frozen plan of what to run.

Both ways go through the same pydantic models, which refuse unknown keys, and then through the same checks for contradictions. All
mistakes are listed at once, with file, line and key path. Nothing starts until the list is empty.

- ``plan``            the result: frozen dataclasses, and every default; ``auth_plan`` is its part for keys, peers and secrets
- ``agent_plan``      its part for the agent of kernel sockets; ``agent`` makes it, ``agent_models`` has its settings
- ``models``          every setting: key, type, range, default, text, option; ``setting`` describes one field
- ``tunnel_models``   the settings of a tunnel, its services and routes
- ``certificate_models``  the settings of certificates; ``certificates`` makes their part of a plan, ``certificate_plan``
- ``certificate_files``   certificates, authorities, revocation lists and revoked keys as files
- ``audit``           audit mode of an access rule; ``audited_rules`` warns of it
- ``lifetimes``       which certificates of a plan a person has to renew
- ``value_types``     the types of values; ``duration`` and ``token`` two of them
- ``source``          plain data, the place of each part, and the mistakes in it
- ``yaml_file``       a YAML file as plain data; ``load`` makes a plan from it
- ``flags``           the options of `listen`, `connect` and `agent`, and the plan made from them
- ``model_errors``    data to models, with each mistake in our own words
- ``peers``           the peers of a file and of peer directories, and their groups
- ``inputs``          the files that a plan was made of, by the digest of their content
- ``plan_builder``    models to a plan: reads key files, finds contradictions
- ``hand_on``         the part of ``plan_builder`` for offers of a listen tunnel and requests of a connect tunnel
- ``keep``            the part for kept wire legs
- ``original``        the part for `to: original` and its allowed targets
- ``intercept``       the part for interception, which needs no keys
- ``otlp``            the part for spans and OpenTelemetry's variables; ``otlp_models`` its settings, ``otlp_plan`` the result
- ``admin_address``   the admin address, and how to find it in a file that has mistakes elsewhere
- ``unix_folder``     the folder of a unix socket, which has to exist
- ``diff``            what a reload would change: the difference between two plans
- ``exposure``        plain legs of a tunnel that are reachable from the network
- ``file_access``     which other users may change a file
- ``reader_process``  reads a file in a separate process, which sends the plan as ``plan_bytes``
- ``warm_reader``     keeps that process for the next reload; ``reader_loop`` is its side
- ``example_keys``    the public keys of the documentation, which `stcp-proxy check` refuses
- ``plan_text``       a plan in words, for `stcp-proxy check`
- ``reference``       docs/SETTINGS.md and the JSON schema, generated from the models
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any, Final

from stcp_proxy.config.auth_plan import KeyAuth, PskAuth
from stcp_proxy.config.otlp_plan import OtlpPlan
from stcp_proxy.config.plan import (
    AcceptProxy,
    AdminPlan,
    Balance,
    EngineChoice,
    HandOn,
    HealthPlan,
    LogFormat,
    LogPlan,
    Mode,
    Plan,
    ServicePlan,
    TunnelPlan,
)
from stcp_proxy.config.token import Token
from stcp_proxy.errors import LogClass

if TYPE_CHECKING:
    from stcp_proxy.config.flags import plan_from_flags
    from stcp_proxy.config.load import load_plan
    from stcp_proxy.config.plan_text import describe_plan
    from stcp_proxy.config.source import ConfigProblems, Finding

_READING: Final = {
    "ConfigProblems": "source",
    "Finding": "source",
    "describe_plan": "plan_text",
    "load_plan": "load",
    "plan_from_flags": "flags",
}
"""The names that read a configuration, with their modules. They are imported at first use: a serving process never needs them."""


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
    "OtlpPlan",
    "Plan",
    "PskAuth",
    "ServicePlan",
    "Token",
    "TunnelPlan",
    "describe_plan",
    "load_plan",
    "plan_from_flags",
]
