"""The engines of a process: one for each kind that its tunnels ask for, started when it is first wanted."""

from __future__ import annotations

from collections.abc import Iterable

import structlog

from stcp_proxy.config import EngineChoice
from stcp_proxy.relay import trio_loop
from stcp_proxy.relay.engine import Engine
from stcp_proxy.relay.engine_choice import choose
from stcp_proxy.relay.kernel import KernelEngine
from stcp_proxy.relay.pump import PumpEngine

_log = structlog.get_logger("stcp_proxy.supervisor")


class Engines:
    """Engines by configured choice; two choices that come to the same engine share it."""

    def __init__(self) -> None:
        self._reasons: dict[str, tuple[str, str]] = {}
        self._by_choice: dict[EngineChoice, Engine] = {}

    @property
    def reasons(self) -> dict[str, tuple[str, str]]:
        """Name of the engine for each choice, and why it is that one."""
        return {str(choice): self._reason(choice, engine) for choice, engine in self._by_choice.items()}

    def _reason(self, choice: EngineChoice, engine: Engine) -> tuple[str, str]:
        name, why = self._reasons[str(choice)]
        if isinstance(engine, PumpEngine) and engine.why_thread:
            why = f"{why}; in a thread of its own, which is slower: {engine.why_thread}"
        return name, why

    def want(self, choices: Iterable[EngineChoice]) -> None:
        """See to it that there is a running engine for each choice.

        Raises:
            ConfigError: what is required is not there; the engines that run are as before.
            OSError: the process is out of descriptors.
        """
        found = {choice: choose(choice) for choice in dict.fromkeys(choices) if choice not in self._by_choice}
        # The pump looks for Trio's epoll set, and finds it while there is no other.
        for choice, (engine, why) in sorted(found.items(), key=lambda item: not isinstance(item[1][0], PumpEngine)):
            running = self._running(engine.name)
            if running is None:
                self._start(engine)
            self._by_choice[choice] = running or engine
            self._reasons[str(choice)] = (engine.name, why)
            _log.info("engine", choice=str(choice), engine=engine.name, why=why)

    def limit_held(self, size: int) -> None:
        """Set how many bytes the connections of the user-space engine may hold for stalled readers before reads become short."""
        for engine in set(self._by_choice.values()):
            pump = engine.fallback if isinstance(engine, KernelEngine) else engine
            if isinstance(pump, PumpEngine):
                pump.held.limit = size

    def __getitem__(self, choice: EngineChoice) -> Engine:
        return self._by_choice[choice]

    def close(self) -> None:
        """Close them all; what they still carry is aborted without ceremony."""
        for engine in set(self._by_choice.values()):
            engine.close()

    def _running(self, name: str) -> Engine | None:
        """The running engine of this name. Trio's loop drives one pump: the fallback of a kernel engine serves all tunnels."""
        for known in self._by_choice.values():
            if known.name == name:
                return known
            if isinstance(known, KernelEngine) and known.fallback.name == name:
                return known.fallback
        return None

    def _start(self, engine: Engine) -> None:
        try:
            if isinstance(engine, KernelEngine):
                pump = self._running(PumpEngine.name)
                if isinstance(pump, PumpEngine):
                    engine.share(pump)
                else:
                    trio_loop.start(engine.fallback)
                engine.start()
            elif isinstance(engine, PumpEngine):
                trio_loop.start(engine)
            else:
                engine.start()
        except OSError:
            engine.close()
            raise
