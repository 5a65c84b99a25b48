"""Tests with real software: full size when STCP_FULL_SIZE is set, otherwise a short version for the suite.

STCP_FULL_SIZE=1 pytest -q -s --timeout=900 tests/real/test_1_redis.py       the whole trial with its figures printed
"""

from __future__ import annotations

import os


def full_size() -> bool:
    return bool(os.environ.get("STCP_FULL_SIZE"))


def say(line: str) -> None:
    """Print a figure; pytest shows it with -s."""
    print(f"  {line}", flush=True)
