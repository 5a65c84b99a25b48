"""The engines of a process: their reasons, the limit of bytes that they hold for stalled readers, and one pump for all."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from trio.testing import wait_all_tasks_blocked

from stcp_proxy.config import EngineChoice
from stcp_proxy.relay import engine_choice, kernel, trio_loop
from stcp_proxy.relay.kernel import KernelEngine
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


@pytest.mark.parametrize(
    "order",
    [[EngineChoice.KERNEL, EngineChoice.PYTHON], [EngineChoice.PYTHON, EngineChoice.KERNEL]],
    ids=["kernel first", "python first"],
)
async def test_trios_loop_drives_one_pump(engines: Engines, monkeypatch: pytest.MonkeyPatch, order: list[EngineChoice]) -> None:
    """It takes what the module refuses too, and watches sockets for tunnels with the kernel engine."""
    for module in (engine_choice, kernel):
        monkeypatch.setattr(module, "probe", lambda: True)
    for choice in order:
        engines.want([choice])
    found, pump = engines[EngineChoice.KERNEL], engines[EngineChoice.PYTHON]
    assert isinstance(found, KernelEngine)
    assert isinstance(pump, PumpEngine)
    assert found.keeps_legs
    assert found.fallback is pump
    await wait_all_tasks_blocked()
    assert not pump.has_thread
