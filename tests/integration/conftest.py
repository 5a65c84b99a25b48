"""Pairs that the tests of one file share."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest
from harness.browser import chromium
from harness.leaks import no_secret_in_any_log  # noqa: F401
from harness.proxies import Pair
from harness.sockets import Target

if TYPE_CHECKING:
    from playwright.sync_api import Browser


@pytest.fixture(scope="module")
def echo() -> Iterator[Target]:
    """An application server that sends everything back, up to EOF."""
    with Target() as target:
        yield target


@pytest.fixture(scope="module")
def echo_pair(tmp_path_factory: pytest.TempPathFactory, echo: Target) -> Iterator[Pair]:
    """A pair in front of `echo`."""
    with Pair(tmp_path_factory.mktemp("pair"), echo.to) as pair:
        yield pair


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """A headless Chromium."""
    with chromium() as found:
        yield found
