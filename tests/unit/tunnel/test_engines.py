"""The engines of a process: the limit of what stalled readers hold reaches the engine that runs."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from stcp_proxy.config import EngineChoice
from stcp_proxy.relay.pump import PumpEngine
from stcp_proxy.tunnel.engines import Engines


@pytest.fixture
def engines() -> Iterator[Engines]:
    found = Engines()
    yield found
    found.close()


async def test_the_limit_reaches_a_running_engine(engines: Engines) -> None:
    engines.want([EngineChoice.PYTHON])
    engine = engines[EngineChoice.PYTHON]
    assert isinstance(engine, PumpEngine)
    for limit in (5 << 20, 1 << 20):
        engines.limit_held(limit)
        engine.hold(limit)
        assert engine.read_size == engine.chunk
        engine.hold(1)
        assert engine.read_size < engine.chunk
        engine.hold(-limit - 1)
        assert engine.read_size == engine.chunk
