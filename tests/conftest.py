"""What holds for all tests.

Test files run side by side in several processes (`make test`). The tests of one file run in one process, in their order. The
files that take longest start first, so that no process works alone at the end.

A test that needs what the machine lacks skips itself with the reason. Where STCP_NO_SKIP is set, as in CI, a skip is a failure:
everything has been installed there, and a test that does not run shows nothing.
"""

from __future__ import annotations

import collections
import os
from collections.abc import Generator

import pytest
from hypothesis import HealthCheck, settings

# A busy machine must not fail a property, and a run finds the same as the run before.
settings.register_profile("stcp", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("stcp")

_NO_SKIP = bool(os.environ.get("STCP_NO_SKIP"))
_PATIENCE = float(os.environ.get("STCP_TEST_PATIENCE", "1"))
"""By how much the deadlines that tests have of their own are multiplied: under the kernel's checkers everything is slow."""


@pytest.fixture
def not_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    """`make coverage` does not measure the processes that a test starts: to measure one, it imports modules in it."""
    for name in [name for name in os.environ if name.startswith("COVERAGE_")]:
        monkeypatch.delenv(name)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if not hasattr(report, "wasxfail"):
        _refuse_skip(report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(collector: pytest.Collector) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    report = yield
    _refuse_skip(report)
    return report


LONGEST_FILES = ("test_install", "test_interception", "test_guard", "test_4_idle", "test_takeover")
"""Files that take half a minute or more. They start first."""
LONGEST_FOLDERS = ("netns", "real", "integration", "lab", "contract")
"""Folders of tests in the order in which they start; the rest follows."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put long files first: those of the list, then by folder, then by their number of slow tests."""
    slow = collections.Counter(item.path for item in items if item.get_closest_marker("slow"))
    items.sort(
        key=lambda item: (_rank(item.path.stem, LONGEST_FILES), _rank(item.path.parent.name, LONGEST_FOLDERS), -slow[item.path])
    )
    for item in items:
        own = item.get_closest_marker("timeout")
        if own is not None and _PATIENCE != 1:
            item.add_marker(pytest.mark.timeout(own.args[0] * _PATIENCE), append=False)


def _rank(name: str, order: tuple[str, ...]) -> int:
    return order.index(name) if name in order else len(order)


def _refuse_skip(report: pytest.TestReport | pytest.CollectReport) -> None:
    if _NO_SKIP and report.skipped:
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr
        report.outcome = "failed"
        report.longrepr = f"nothing may be skipped here (STCP_NO_SKIP), but: {reason}"
