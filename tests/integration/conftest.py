"""Pairs that the tests of one file share."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest
from harness.browser import chromium
from harness.leaks import no_secret_in_any_log  # noqa: F401
from harness.proxies import Keys, Pair, Proxy
from harness.sockets import Target

if TYPE_CHECKING:
    from harness.collector import Collector
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


@pytest.fixture(scope="module")
def dashboard_url(tmp_path_factory: pytest.TempPathFactory, echo: Target) -> Iterator[str]:
    """The dashboard of a proxy with one tunnel."""
    folder = tmp_path_factory.mktemp("proxy")
    arguments = ["listen", "--bind", "127.0.0.1:0", "--to", echo.to, *Keys(folder).listen(), "--admin", "127.0.0.1:0"]
    with Proxy(arguments, log=folder / "listen.log").ready() as proxy:
        yield f"http://{proxy.wait_log('admin address')[0]['addresses'][0]}/"


@pytest.fixture(scope="module")
def real_status(dashboard_url: str) -> dict[str, Any]:
    """An answer of this proxy, so that its shape is true."""
    with urllib.request.urlopen(f"{dashboard_url}status", timeout=20) as answer:
        found: dict[str, Any] = json.load(answer)
    assert len(found["tunnels"]) == 1
    assert len(found["keys"]) == 2
    return found


@pytest.fixture
def collector() -> Iterator[Collector]:
    """A collector of spans."""
    from harness.collector import collecting  # few tests need the library for spans

    with collecting() as found:
        yield found
