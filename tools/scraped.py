"""stcp-proxy with an admin address that is scraped every second, for the benchmark to measure beside one without:

stcp-proxy bench --peers stcp --variant "admin=.venv/bin/python tools/scraped.py"
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import signal
import sys
import tempfile
import time

from stcp_proxy.admin.client import AdminError, ask_well
from stcp_proxy.config import AdminPlan
from stcp_proxy.net.address import UnixAddress

_PR_SET_PDEATHSIG = 1
_SERVES = {"listen", "connect", "run"}


def scrape(folder: str, every: float) -> None:
    """Ask for metrics until the proxy is gone."""
    plan = AdminPlan(UnixAddress(f"{folder}/admin"))
    while True:
        with contextlib.suppress(AdminError):  # it has not started yet
            ask_well(plan, "/metrics")
        time.sleep(every)


def main() -> None:
    """Become stcp-proxy, with a child that scrapes it."""
    command = [sys.executable, "-m", "stcp_proxy", *sys.argv[1:]]
    if not _SERVES & set(sys.argv[1:2]):
        os.execv(sys.executable, command)
    folder = tempfile.mkdtemp(prefix="scraped-")
    proxy = os.getpid()
    if os.fork() == 0:
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        try:
            if os.getppid() == proxy:
                scrape(folder, 1.0)
        except KeyboardInterrupt:
            shutil.rmtree(folder, ignore_errors=True)
        os._exit(0)
    os.execv(sys.executable, [*command, "--admin", f"unix:{folder}/admin"])


main()
