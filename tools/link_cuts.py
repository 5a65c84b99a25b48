"""Which connections survive a path that is lost for some seconds: direct ones beside connections through a pair of proxies. Root.

    .venv/bin/python tools/link_cuts.py [--seconds 5,10,20,29] [--loss link,...] [--before S]

Two network namespaces. For each kind of loss (the link; a firewall on either host that drops all output) and each time, all kinds
of traffic run at once: none, one word, up, down, both, and both directions with a receiver that does not read (a closed window).
Printed is each connection that did not survive. The exit status is 1 if a direct connection survived and its counterpart did not.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from harness.hosts import Net
from harness.link_cuts import LOSSES, TRAFFIC, Connections


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", default="5,10,20,29")
    parser.add_argument("--loss", default=",".join(LOSSES))
    parser.add_argument(
        "--before", type=float, default=0.3, help="seconds of traffic, or of a closed window, before the path is lost"
    )
    options = parser.parse_args()
    worse = 0
    with tempfile.TemporaryDirectory() as folder, Net() as net, Connections(net, Path(folder)) as connections:
        for how in options.loss.split(","):
            for seconds in map(float, options.seconds.split(",")):
                started = time.monotonic()
                errors = connections.outlive(how, seconds, before=options.before)
                took = time.monotonic() - started
                print(
                    f"{how} lost for {seconds:g} s: {len(errors)} of {2 * len(TRAFFIC)} ended early; all over after {took:.0f} s"
                )
                for name, error in sorted(errors.items()):
                    print(f"    {name}: {error}")
                worse += sum(1 for kind in TRAFFIC if f"proxied: {kind}" in errors and f"direct: {kind}" not in errors)
    print(f"{worse} connections ended whose direct counterparts survived")
    return 1 if worse else 0


if __name__ == "__main__":
    sys.exit(main())
