"""The shape of `process` in `/status`: the proxy as a whole, and its worker processes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Final, Literal

from stcp_proxy.counters.merging import CONCATENATED, FIRST, MAX, MIN, SUM_EACH, Merge, by

State = Literal["starting", "ready", "draining"]


def _state(parts: Sequence[Any], name: str) -> State:
    return state_of({getattr(part, name) for part in parts})


def state_of(states: set[str]) -> State:
    """The state of a proxy, from the states of its worker processes."""
    return "draining" if "draining" in states else "ready" if states == {"ready"} else "starting"


_STATE: Final = Merge(_state)


@dataclass(slots=True, kw_only=True)
class Worker:
    """One worker process.

    Attributes:
        number: from 0 to the number of worker processes minus one.
        pid: its process id; 0 when it does not answer.
        state: its state; ``silent`` when it does not answer.
        open: live connections.
        descriptors: file descriptors in use.
        descriptor_limit: the largest allowed number of file descriptors.
        memory: resident memory in bytes.
        started: when the process started.
        cpu: processor time in seconds.
        log_lines_dropped: log lines that could not be written without waiting for their reader.
    """

    number: Annotated[int, FIRST]
    pid: Annotated[int, FIRST]
    state: Annotated[Literal["starting", "ready", "draining", "silent"], FIRST]
    open: Annotated[int, FIRST]
    descriptors: Annotated[int, FIRST]
    descriptor_limit: Annotated[int, FIRST]
    memory: Annotated[int, FIRST]
    started: Annotated[float, FIRST] = 0.0
    cpu: Annotated[float, FIRST] = 0.0
    log_lines_dropped: Annotated[int, FIRST] = 0


@dataclass(slots=True, kw_only=True)
class EngineChoice:
    """The engine that a configured choice has selected.

    Attributes:
        choice: ``auto``, ``kernel`` or ``python``.
        engine: ``kernel`` or ``python``.
        why: the reason, in words.
    """

    choice: Annotated[str, FIRST]
    engine: Annotated[str, FIRST]
    why: Annotated[str, FIRST]


@dataclass(slots=True, kw_only=True)
class Process:
    """The proxy as a whole.

    Attributes:
        version: the version of stcp-proxy.
        started: the start time.
        uptime: seconds since the start.
        state: ``ready`` when every worker process is ready, ``draining`` when at least one drains.
        workers: all worker processes.
        engines: the selected engine for each configured choice.
        spans: spans by result: ``exported``; ``failed``, where the collector did not take them; ``dropped``, where the exporter
            did not keep up. Empty without `otlp`.
    """

    version: Annotated[str, FIRST]
    started: Annotated[float, MIN]
    uptime: Annotated[float, MAX]
    state: Annotated[State, _STATE]
    workers: Annotated[list[Worker], CONCATENATED]
    engines: Annotated[list[EngineChoice], by(lambda engine: (engine.choice, engine.engine, engine.why))]
    spans: Annotated[dict[str, int], SUM_EACH] = field(default_factory=dict)
