"""The log lines of a test."""

from __future__ import annotations

from typing import Any

import pytest
import structlog


@pytest.fixture
def logs() -> Any:
    with structlog.testing.capture_logs() as lines:
        yield lines
