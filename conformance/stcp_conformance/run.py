"""Run cases: start the implementation once for each role and suite, and give each case a clean bench."""

from __future__ import annotations

import contextlib
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

from stcp_conformance.bench import Bench
from stcp_conformance.config import Implementation
from stcp_conformance.program import Running, Secrets
from stcp_conformance.registry import Case
from stcp_conformance.report import FAILED, NOT_OFFERED, PASSED, Result
from stcp_conformance.sockets import Deviation, Server, free_port

Group = tuple[str, int]
"""A role and the number of a suite."""


class Setting:
    """The implementation in one role with one suite, and the bench around it."""

    def __init__(self, implementation: Implementation, group: Group, folder: Path) -> None:
        role, suite = group
        self.stopped = False
        self.server = Server(implementation.seconds, "target" if role == "responder" else "wire leg")
        port, secrets = free_port(), Secrets()
        folder.mkdir()
        self.running = Running(implementation, role, suite, secrets, folder, listen_port=port, target_port=self.server.port)
        self.bench = Bench(role, suite, secrets, self.server, port, implementation.seconds)

    def wait(self) -> None:
        """Wait until it listens. An initiator dials for the connection that shows it; take it away before the first case."""
        with self.running.wait():
            if not self.bench.is_responder:
                with contextlib.suppress(Deviation):
                    self.server.accept().close()

    def stop(self) -> None:
        """Stop the implementation. A second call has no effect."""
        if self.stopped:
            return
        self.stopped = True
        self.bench.clear()
        self.running.stop()
        self.server.close()


def why_not(implementation: Implementation, case: Case) -> str:
    """Why the implementation cannot run a case; empty when it can."""
    if case.role not in implementation.programs:
        return f"no command for the role {case.role}"
    if case.suite is not None and case.suite not in implementation.suites:
        return f"suite {case.suite} is not among its suites"
    if missing := case.needs - implementation.offers:
        return f"it does not offer: {', '.join(sorted(missing))}"
    return ""


def run_case(bench: Bench, case: Case) -> Result:
    start = time.monotonic()
    bench.clear()
    result = FAILED
    try:
        seen = str(case.run(bench) or "as the law says")
        result = PASSED
    except Deviation as exc:
        seen = str(exc)
    except Exception:  # the kit did not expect this: the implementation, or the kit itself
        seen = traceback.format_exc()
    return Result(case.id, case.law, result, seen, round(time.monotonic() - start, 3))


def run(implementation: Implementation, cases: list[Case], tell: Callable[[Result], None]) -> list[Result]:
    """Run the cases.

    Args:
        implementation: what to run them against.
        cases: the cases, in any order.
        tell: gets each result at once.
    """
    results = []

    def note(result: Result) -> None:
        results.append(result)
        tell(result)

    groups: dict[Group, list[Case]] = {}
    for case in cases:
        if reason := why_not(implementation, case):
            note(Result(case.id, case.law, NOT_OFFERED, reason, 0.0))
        else:
            groups.setdefault((case.role, case.suite or implementation.suites[0]), []).append(case)
    with settings(implementation, list(groups)) as started:
        for group, members in groups.items():
            setting = started[group]
            try:
                setting.wait()
            except RuntimeError as exc:
                for case in members:
                    note(Result(case.id, case.law, FAILED, str(exc), 0.0))
                continue
            for case in members:
                note(run_case(setting.bench, case))
            setting.stop()
    return results


@contextlib.contextmanager
def settings(implementation: Implementation, groups: list[Group]) -> Iterator[dict[Group, Setting]]:
    """Start all at once, so that one starts while the cases of another run. Stop all at the end."""
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="stcp-conformance-")))
        started = {}
        for group in groups:
            started[group] = Setting(implementation, group, folder / f"{group[0]}-suite-{group[1]}")
            stack.callback(started[group].stop)
        yield started
