"""The four reference runs over sockets of the protocol, beside the same over plain TCP: the table of docs/KERNEL.md.

    tests/kernel/run socket-bench            inside the virtual machine; STCP_BENCH_SECONDS is the length of a run [default: 70]

Both programs have kernel sockets, without a proxy. The processor of the virtual machine is emulated: only ratios mean anything.
"""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import Any, Final

from stcp_proxy.agent.netlink_abi import PROTOCOL
from stcp_proxy.lab.reference import RUNS, Reference

from .two_hosts import FAR, PRODUCT, TwoHosts, two_hosts

SECONDS: Final = float(os.environ.get("STCP_BENCH_SECONDS", "70"))
KINDS: Final = {"plain TCP": 0, "socket": PROTOCOL}
PORTS: Final = {0: 7500, PROTOCOL: 7501}


def run(hosts: TwoHosts, reference: Reference, protocol: int) -> dict[str, Any]:
    """One run of the stress client. Returns its summary."""
    words = reference.arguments(PORTS[protocol], SECONDS)
    words[words.index("--timeout") + 1] = "60"  # an emulated processor is slow
    command = hosts.command("near", *PRODUCT, "stress", "--host", FAR, "--socket", str(protocol), *words)
    done = hosts.run(command, timeout=SECONDS + 300)
    summary: dict[str, Any] = json.loads(done.stdout)
    assert not any(summary[name] for name in ("operation_errors", "connection_errors", "timeouts")), summary
    return summary


def main() -> None:
    with tempfile.TemporaryDirectory() as folder, two_hosts(Path(folder)) as hosts, hosts.agents():
        names = [f"echo-{protocol}" for protocol in PORTS]
        servers = [
            hosts.command("far", *PRODUCT, "echo", "--host", FAR, "--port", str(port), "--socket", str(protocol))
            for protocol, port in PORTS.items()
        ]
        with hosts.running(servers[0], names[0]), hosts.running(servers[1], names[1]):
            for name in names:
                hosts.wait_log(name, "listening on")
            print(
                "| run | requests/s: plain TCP | socket | ratio | p99 ms: plain TCP | socket |\n|---|---|---|---|---|---|",
                flush=True,
            )
            for reference in RUNS:
                plain, sealed = (run(hosts, reference, protocol) for protocol in KINDS.values())
                rates = plain["requests_per_second"], sealed["requests_per_second"]
                late = f"{plain['p99_ms']:.1f} | {sealed['p99_ms']:.1f}"
                figures = f"{rates[0]:.0f} | {rates[1]:.0f} | {rates[1] / rates[0]:.2f} | {late}"
                print(f"| {reference.title} × {reference.clients} | {figures} |", flush=True)


if __name__ == "__main__":
    main()
