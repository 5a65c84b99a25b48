"""Two hosts for the tests of one file."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from harness.hosts import Net, require_root


@pytest.fixture(scope="module")
def net() -> Iterator[Net]:
    """A client host, a server host, and the wire between them."""
    require_root()
    with Net() as net:
        yield net
