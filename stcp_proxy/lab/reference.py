"""The four runs of the report that was the starting point of this project, through a pair of proxies, beside its figures.

The report measured STCP inside a kernel, with the predecessors of `echo` and `stress`. Its throughput counts the message and its
4-byte length in both directions, as ours does: 10,647 requests a second of 256 bytes are 5.54 MB/s. In the report, "messages per
connection" means that a new connection is opened after this number of messages; our `churn` does the same.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

from stcp_proxy.lab import loadgen
from stcp_proxy.lab.bench import pair as pairs
from stcp_proxy.lab.bench import peers
from stcp_proxy.lab.bench.cells import Table, number
from stcp_proxy.lab.bench.measure import start_pair
from stcp_proxy.lab.bench.peer import Peer
from stcp_proxy.lab.loadgen import LabError

DURATION: Final = 70.0
"""Seconds of a run, as in the report."""


@dataclass(frozen=True, slots=True)
class Reference:
    """One run, with the report's figures for it.

    Attributes:
        title: its name in tables.
        size: bytes of a message.
        clients: connections at a time.
        messages: messages on a connection before a new one is opened.
        timeout: seconds that a request may take.
        throughput_mb_s, requests_per_second, average_ms, p99_ms: the report's figures.
    """

    title: str
    size: int
    clients: int
    messages: int
    timeout: int
    throughput_mb_s: float
    requests_per_second: float
    average_ms: float
    p99_ms: float

    def arguments(self, port: int, duration: float) -> list[str]:
        """The arguments of the stress client."""
        options = {
            "port": port, "mode": "churn", "clients": self.clients, "duration": duration, "msg-size": self.size,
            "messages-per-conn": self.messages, "timeout": self.timeout, "json": "-",
        }  # fmt: skip
        return [word for name, value in options.items() for word in (f"--{name}", str(value))]


RUNS: Final = (
    Reference("256 B", 256, 50, 500, 10, 5.54, 10_647, 4.10, 8.78),
    Reference("4 KB", 4096, 20, 500, 10, 80.39, 9_804, 1.77, 4.24),
    Reference("16 KB", 16384, 10, 200, 15, 159.00, 4_851, 1.75, 1.97),
    Reference("64 KB", 65536, 5, 100, 20, 244.66, 1_867, 2.12, 2.41),
)


@dataclass(frozen=True, slots=True)
class Outcome:
    """A run and the result of the stress client.

    Attributes:
        reference: the run.
        engine: the peer's name.
        summary: the fields of `tally.Summary`.
    """

    reference: Reference
    engine: str
    summary: dict[str, Any]

    def as_dict(self) -> dict[str, Any]:
        """The report's figures and ours."""
        return {"engine": self.engine, "report": asdict(self.reference), "here": self.summary}

    @property
    def clean(self) -> bool:
        """Whether the run had no failure."""
        return not any(self.summary[name] for name in ("operation_errors", "connection_errors", "timeouts"))


def run(engines: Sequence[Peer], *, duration: float, progress: Callable[[str], None]) -> list[Outcome]:
    """Make the four runs through each engine.

    Raises:
        LabError: a process does not start.
    """
    pairs.raise_descriptor_limit()
    outcomes = []
    with _echo_server() as target:
        for engine in engines:
            with start_pair(engine, target) as pair:
                for reference in RUNS:
                    progress(f"{engine.name}: {reference.title} × {reference.clients}, {duration:g} s")
                    outcomes.append(Outcome(reference, engine.name, _stress(reference, pair.port, duration)))
    return outcomes


@contextlib.contextmanager
def _echo_server() -> Iterator[int]:
    """The product's own echo command, started as users start it."""
    with subprocess.Popen([*peers.PRODUCT, "echo", "--port", "0"], stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        try:
            line = child.stdout.readline()
            if not line:
                raise LabError("the echo server does not start")
            yield int(line.rpartition(":")[2])
        finally:
            child.terminate()


def _stress(reference: Reference, port: int, duration: float) -> dict[str, Any]:
    command = [*peers.PRODUCT, "stress", *reference.arguments(port, duration)]
    limit = duration + reference.timeout + loadgen.GRACE
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=limit)
    try:
        summary: dict[str, Any] = json.loads(done.stdout)
    except ValueError:
        raise LabError(f"the stress client failed: {(done.stderr or done.stdout).strip()[-400:]}") from None
    return summary


def table(outcomes: Sequence[Outcome]) -> Table:
    """A table with the report's figures and ours."""
    head = ["", "engine", "MB/s: report", "here", "requests/s: report", "here", "average ms: report", "here", "p99 ms: report",
            "here", "errors", "timeouts"]  # fmt: skip
    lines = []
    for outcome in outcomes:
        then, now = outcome.reference, outcome.summary
        figures = []
        for name in ("throughput_mb_s", "requests_per_second", "average_ms", "p99_ms"):
            figures += [number(getattr(then, name)), number(now[name])]
        errors = now["operation_errors"] + now["connection_errors"]
        lines.append([f"{then.title} × {then.clients}", outcome.engine, *figures, str(errors), str(now["timeouts"])])
    return Table("The reference runs: the report's figures beside this machine's", head, lines)
