"""A process that leaves the one that started it: the first half ends with status 0, and the second goes on."""

from __future__ import annotations

import subprocess
import sys

from stcp_proxy.process import detach

PROGRAM = """\
import os, sys
from stcp_proxy.process import detach
before = os.getpid()
detach.detach()
print(os.getpid() == before, "STCP_PROXY_DETACH" in os.environ, flush=True)
"""


def test_it_leaves_where_it_is_asked_to() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], env=detach.environment(), capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (0, "False False\n")


def test_it_stays_otherwise() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (0, "True False\n")
