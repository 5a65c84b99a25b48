"""Run the files of configs/ for Compose and Kubernetes on Podman, with an unmodified Redis and its client.

    python3 inside.py [compose] [kubernetes] [pods]

Root, in a root file system and a network of its own, as tests/engine/run makes them. Fails with the first thing that is wrong.
"""

from __future__ import annotations

import sys
import time

import compose
import kubernetes
import pods
from engine import HealthChecks, prepare

PARTS = {"compose": compose.check, "kubernetes": kubernetes.check, "pods": pods.check}


def main(*names: str) -> None:
    """Every part that is named, or all."""
    prepare()
    with HealthChecks():
        for name in names or PARTS:
            began = time.monotonic()
            PARTS[name]()
            print(f"{name}: passed ({time.monotonic() - began:.0f} s)", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
