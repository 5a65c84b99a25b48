"""Only inside the virtual machine: outside there is no module to test, and its abuse belongs on no real kernel."""

from __future__ import annotations

import os

collect_ignore_glob = [] if os.environ.get("STCP_KERNEL_TESTS") else ["test_*.py"]
