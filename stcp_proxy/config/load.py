"""Make a plan from a YAML file."""

from __future__ import annotations

import os
from pathlib import Path

from stcp_proxy.config.plan import Plan
from stcp_proxy.config.plan_builder import build
from stcp_proxy.config.yaml_file import file_source


def load_plan(path: str | Path, *, admin: str | None = None, admin_token: str | Path | None = None) -> Plan:
    """The plan in a YAML file.

    Args:
        path: the file.
        admin, admin_token: replace the values of the file, where given.

    Raises:
        ConfigError: lists every mistake with file, line and key path.
    """
    source = file_source(path)
    if admin is not None:
        source.data["admin"] = admin
    if admin_token is not None:
        source.data["admin_token"] = os.path.abspath(admin_token)
    return build(source)
