"""Fixtures of the tests that load a file: a folder with keys, and a loader."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from stcp_proxy import keys
from stcp_proxy.config import Plan, load_plan

from .plan_files import APP, DB, OURS, PSK


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with our key and a shared secret in it."""
    keys.write_secret_file(tmp_path / "host.key", keys.format_private_key(OURS) + "\n")
    keys.write_secret_file(tmp_path / "shared.psk", keys.format_psk(PSK) + "\n")
    return tmp_path


@pytest.fixture
def load(folder: Path) -> Callable[[str], Plan]:
    def load_text(text: str) -> Plan:
        path = folder / "c.yaml"
        for name, key in [("$DB", DB), ("$APP", APP), ("$OURS", OURS.public)]:
            text = text.replace(name, f'"{key}"')
        path.write_text(re.sub(r"(?<=[ \[])(:\d+)", r'"\1"', text))  # a flow mapping takes :7443 in quotes only
        return load_plan(path)

    return load_text
