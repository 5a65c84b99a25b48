"""The engines of a process: their reasons, and the limit of bytes that they hold for stalled readers."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from stcp_proxy.config import EngineChoice
from stcp_proxy.relay import trio_loop
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


@pytest.mark.parametrize("found", [True, False])
async def test_a_thread_of_its_own_is_told_with_its_reason(
    engines: Engines, monkeypatch: pytest.MonkeyPatch, found: bool
) -> None:
    """`/status`, `status` and the dashboard show the reason."""
    if not found:
        monkeypatch.setattr(trio_loop, "_epoll_descriptors", frozenset)
    engines.want([EngineChoice.PYTHON])
    name, why = engines.reasons["python"]
    assert name == "python"
    assert why.endswith("; in a thread of its own, which is slower: /proc/self/fd cannot be read; mount /proc") == (not found)
