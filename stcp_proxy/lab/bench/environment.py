"""The environment of a measurement: machine, system, versions."""

from __future__ import annotations

import os
import platform
import subprocess
from pathlib import Path

from cryptography.hazmat.backends.openssl.backend import backend

import stcp_proxy


def describe() -> dict[str, str]:
    """Processor, cores, memory, kernel and versions, in the order of a report."""
    return {
        "processor": _field("/proc/cpuinfo", "model name") or platform.machine(),
        "cores": str(len(os.sched_getaffinity(0))),
        "memory": f"{int(_field('/proc/meminfo', 'MemTotal').split()[0] or 0) / (1 << 20):.0f} GiB",
        "system": f"{_release()}, Linux {platform.release()}",
        "TCP congestion control": _first_line("/proc/sys/net/ipv4/tcp_congestion_control"),
        "Python": platform.python_version(),
        "cryptography's OpenSSL": backend.openssl_version_text(),
        "stcp-proxy": f"{stcp_proxy.__version__} {_commit()}".strip(),
        "load average before": f"{os.getloadavg()[0]:.2f}",
    }


def _field(path: str, name: str) -> str:
    try:
        lines = Path(path).read_text().splitlines()
    except OSError:
        return "0"
    return next((line.partition(":")[2].strip() for line in lines if line.startswith(name)), "0")


def _first_line(path: str) -> str:
    try:
        return Path(path).read_text().strip()
    except OSError:
        return "unknown"


def _release() -> str:
    try:
        return platform.freedesktop_os_release().get("PRETTY_NAME", "")
    except OSError:
        return platform.system()


def _commit() -> str:
    """The commit of the checkout; only where the package runs from a checkout."""
    root = Path(stcp_proxy.__file__).parents[1]
    if not (root / ".git").exists():
        return ""
    git = ["git", "-C", str(root)]
    done = subprocess.run([*git, "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    return f"({done.stdout.strip()})" if not done.returncode else ""
