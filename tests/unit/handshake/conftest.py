"""Fixtures of the handshake's tests."""

from __future__ import annotations

import pytest
from trio.testing import memory_stream_pair

from .two_sides import Ends


@pytest.fixture
def ends() -> Ends:
    return Ends(*memory_stream_pair())
