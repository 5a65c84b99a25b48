"""What holds for all tests of this folder."""

from __future__ import annotations

from harness.leaks import no_secret_in_any_log  # noqa: F401
