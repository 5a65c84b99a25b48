"""Fixtures of the agent's tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from .fake_kernel import FakeKernel


@pytest.fixture
def kernel() -> Iterator[FakeKernel]:
    found = FakeKernel()
    yield found
    found.close()
