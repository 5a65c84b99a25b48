"""Only inside the virtual machine: outside there is no module to test, and its abuse belongs on no real kernel."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from .netlink_agent import Agent, Link

collect_ignore_glob = [] if os.environ.get("STCP_KERNEL_TESTS") else ["test_*.py"]


@pytest.fixture
def link() -> Iterator[Link]:
    one = Link()
    one.register()
    yield one
    one.close()


@pytest.fixture
def agent() -> Iterator[Agent]:
    """An agent to which every peer is welcome."""
    with Agent() as one:
        yield one
