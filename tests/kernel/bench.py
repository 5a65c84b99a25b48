"""The module against HAProxy with TLS and against the user-space engine, in one run: the figures of docs/KERNEL.md.

    python -m tests.kernel.bench             inside the virtual machine: one boot's samples, a line of JSON
    python -m tests.kernel.bench medians N   outside: boot N times, print the medians and what they are to each other
                                             (further options are those of tests/kernel/run: --kernel VERSION, say)

The processor of the virtual machine is emulated: only ratios mean anything. CPU is the whole machine's, by /proc/stat, for the
module works in kernel threads that belong to no process; load generator and server are in it, the same for all.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

from stcp_proxy.lab import loadgen
from stcp_proxy.lab.bench import pair as pairs
from stcp_proxy.lab.bench import peers, rows
from stcp_proxy.lab.bench.measure import start_pair
from stcp_proxy.lab.bench.peer import Peer
from stcp_proxy.lab.bench.rows import Kind, Row

ROWS: Final = ("rt-256x50", "rt-4kx20", "rt-16kx10", "rt-64kx5", "bulk-1", "bulk-4")
GOALS: Final = {"rt-256x50": 4.0, "rt-4kx20": 2.0, "rt-16kx10": 1.3, "rt-64kx5": 1.1, "bulk-1": 1.1, "bulk-4": 1.1}
MARK: Final = "BENCH "
CLOCK: Final = "clocksource=tsc tsc=reliable"
"""What a real machine reads. Without KVM Linux takes the emulated HPET, twice as dear, and TCP asks at every segment."""
HERE: Final = Path(__file__).parent
NOT_COMPILED: Final = ("/usr/bin/env", "STCP_COMPILED=0")
NULL: Final = bool(os.environ.get("STCP_BENCH_NULL"))
"""With a module and a user-space engine that do not encrypt, beside HAProxy that does not either."""
ROOT: Final = os.environ.get("STCP_BENCH_ROOT", "")
"""A root file system with a newer HAProxy, which is measured too, with kTLS and without."""
NEWER: Final = "newer"


def contestants() -> list[Peer]:
    if NULL:
        command = (sys.executable, str(HERE / "without_cipher.py"))
        return [
            peers.product("kernel", "stcp.ko, no cipher", engine="kernel", command=command),
            peers.product("python", "user-space engine, no cipher", engine="python", command=command),
            peers.product("uncompiled", "the same, not compiled, no cipher", engine="python", command=(*NOT_COMPILED, *command)),
            *(peer for peer in peers.choose(["plain"], [])),
        ]
    return [
        peers.product("kernel", "stcp.ko", engine="kernel"),
        peers.product("python", "user-space engine", engine="python"),
        peers.product(
            "uncompiled", "the same, not compiled", engine="python", command=(*NOT_COMPILED, sys.executable, "-m", "stcp_proxy")
        ),
        *(peer for peer in peers.choose(["haproxy"], [])),
        *(
            peer
            for peer in peers.of_roots([f"{NEWER}={ROOT}"] if ROOT else [])
            if peer.name in (f"haproxy-{NEWER}", f"haproxy-ktls-{NEWER}")
        ),
    ]


def encrypted_by_kernel() -> bool:
    """Whether connections with kTLS have been made in both directions."""
    found = dict(line.split() for line in Path("/proc/net/tls_stat").read_text().splitlines())
    return int(found["TlsTxSw"]) > 0 and int(found["TlsRxSw"]) > 0


def busy() -> float:
    """CPU seconds of the whole machine so far."""
    fields = [int(word) for word in Path("/proc/stat").read_text().splitlines()[0].split()[1:]]
    idle = fields[3] + fields[4]
    return (sum(fields[:8]) - idle) / os.sysconf("SC_CLK_TCK")


def sample(row: Row, pair: pairs.Pair, seconds: float) -> dict[str, Any]:
    before = busy()
    if row.kind is Kind.BULK:
        # Progress is told in steps of 4 MiB, and an emulated processor makes some 10 MB/s.
        load = loadgen.bulk(pair.port, connections=row.connections, seconds=3 * seconds)
    else:
        load = loadgen.round_trips(pair.port, connections=row.connections, size=row.size, seconds=seconds)
    assert not load.errors
    cpu = busy() - before
    per_unit = cpu / max(1, load.total)
    return {"row": row.name, "pair": pair.name, "rate": load.rate, "p50": load.p50, "p99": load.p99, "cpu": per_unit}


def inside(names: Sequence[str], seconds: float, rounds: int) -> None:
    """All samples of one boot."""
    pairs.START_DEADLINE = 120.0  # type: ignore[misc]  # an emulated processor takes its time to import a program
    pairs.raise_descriptor_limit()
    if ROOT:  # the virtual machine does not write to the file systems of its host
        subprocess.run(["mount", "-t", "tmpfs", "none", f"{ROOT}/tmp"], check=True)
    with ExitStack() as stack:
        target = stack.enter_context(loadgen.echo_server())
        running = [stack.enter_context(start_pair(peer, target)) for peer in contestants()]
        for number in range(rounds):
            for row in rows.choose(names):
                for pair in (*running[number % len(running) :], *running[: number % len(running)]):
                    found = sample(row, pair, seconds)
                    print(MARK + json.dumps(found), flush=True)
                    assert "ktls" not in pair.name or encrypted_by_kernel(), "HAProxy did not hand its keys to the kernel"


def boot(command: Sequence[str], forwarded: str) -> tuple[list[dict[str, Any]], str]:
    """Boot once, and print each sample as soon as it is there.

    Args:
        command: tests/kernel/run with its options.
        forwarded: `NAME=value` words for the environment inside.

    Returns:
        The samples, and the whole output of the boot if it failed, else "".
    """
    samples, said = [], []
    environment = {**os.environ, "STCP_KERNEL_ENV": forwarded}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as run:
        assert run.stdout
        for line in run.stdout:
            said.append(line)
            if MARK in line and line.endswith("}\n"):  # a boot that is stopped may leave half a line
                samples.append(json.loads(line.split(MARK, 1)[1]))
                print(line.strip(), file=sys.stderr, flush=True)
    return samples, "".join(said) if run.returncode or not samples else ""


def medians(boots: int, arguments: Sequence[str]) -> None:
    """Boot several times, and put the medians side by side.

    After a boot that fails, print the table of what was measured, and exit with 1.
    """
    samples: list[dict[str, Any]] = []
    failed = ""
    command = [str(HERE / "run"), "--append", CLOCK, *(["--null-cipher"] if NULL else []), *arguments, "bench"]
    forwarded = " ".join(f"{name}={value}" for name, value in os.environ.items() if name.startswith("STCP_BENCH"))
    for number in range(boots):
        print(f"boot {number + 1} of {boots}", file=sys.stderr, flush=True)
        found, failed = boot(command, forwarded)
        samples += found
        if failed:
            break
    if samples:
        print(table(samples))
    if failed:
        sys.exit(f"boot {number + 1} failed after {len(found)} samples:\n{failed}")


def table(samples: list[dict[str, Any]]) -> str:
    names = list(dict.fromkeys(sample["pair"] for sample in samples))
    others = [name for name in names if name != "kernel"]

    def middle(row: str, pair: str, what: str) -> float:
        values = [each[what] or 0 for each in samples if each["row"] == row and each["pair"] == pair]
        return statistics.median(values) if values else math.nan  # a boot that failed may lack samples

    head = ["row", *names, *(f"kernel / {name}" for name in others), "goal", *(f"p99 ms {name}" for name in names)]
    head += [f"CPU {name}" for name in names]
    lines = [head, ["---"] * len(head)]
    for row in rows.choose(dict.fromkeys(sample["row"] for sample in samples)):
        bulk = row.kind is Kind.BULK
        unit = 1e6 if bulk else 1
        rates = {name: middle(row.name, name, "rate") / unit for name in names}
        cells = [row.title, *(f"{rates[name]:.{1 if bulk else 0}f}" for name in names)]
        cells += [f"{rates['kernel'] / rates[name]:.2f}" for name in others]
        cells += [f"{GOALS[row.name]}"]
        cells += ["" if bulk else f"{middle(row.name, name, 'p99') / 1000:.2f}" for name in names]
        # CPU seconds for 100,000 round trips, or for a GB
        cells += [f"{middle(row.name, name, 'cpu') * (1e9 if bulk else 1e5):.1f}" for name in names]
        lines.append(cells)
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def main() -> None:
    parser = argparse.ArgumentParser(prog="tests.kernel.bench")
    parser.add_argument("what", nargs="?", choices=["inside", "medians"], default="inside")
    parser.add_argument("boots", nargs="?", type=int, default=3)
    options, rest = parser.parse_known_args()
    if options.what == "medians":
        medians(options.boots, rest)
        return
    chosen = os.environ.get("STCP_BENCH_ROWS", ",".join(ROWS)).split(",")
    inside(chosen, float(os.environ.get("STCP_BENCH_SECONDS", "4")), int(os.environ.get("STCP_BENCH_ROUNDS", "1")))


if __name__ == "__main__":
    main()
