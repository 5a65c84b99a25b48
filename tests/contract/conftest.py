"""Fixtures of the contract suite: the engines under test, and rigs that are taken down whatever happens."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from stcp_proxy.relay.engine import Engine
from stcp_proxy.relay.fast_path import compiled

from .harness import MakePair, MakeRig, Pair, Rig, make_pair, make_rig
from .legs import PATIENCE


def _python() -> Engine:
    from stcp_proxy.relay.pump import PumpEngine

    return PumpEngine(compiled=False)


def _compiled() -> Engine:
    from stcp_proxy.relay.pump import PumpEngine

    return PumpEngine(compiled=True)


def _kernel() -> Engine:
    from stcp_proxy.relay.kernel import KernelEngine

    return KernelEngine()


FACTORIES: dict[str, Callable[[], Engine]] = {"python": _python, "compiled": _compiled, "kernel": _kernel}

CHOICES = [choice.strip() for choice in os.environ.get("STCP_ENGINES", "python,compiled" if compiled() else "python").split(",")]
SINGLE = [choice for choice in CHOICES if "+" not in choice]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "engine" in metafunc.fixturenames:
        metafunc.parametrize("engine", SINGLE, indirect=True)
    if "engines" in metafunc.fixturenames:
        metafunc.parametrize("engines", CHOICES, indirect=True)


@pytest.fixture
def engine(request: pytest.FixtureRequest) -> Iterator[Engine]:
    """One started engine, for one-ended tests."""
    engine = FACTORIES[request.param]()
    engine.start()
    yield engine
    engine.close()


@pytest.fixture
def engines(request: pytest.FixtureRequest) -> Iterator[tuple[Engine, Engine]]:
    """Two started engines, for the two sides of a two-ended test."""
    near, _, far = request.param.partition("+")
    both = FACTORIES[near](), FACTORIES[far or near]()
    for engine in both:
        engine.start()
    yield both
    for engine in both:
        engine.close()


@pytest.fixture
def rig(engine: Engine) -> Iterator[MakeRig]:
    """Makes rigs on the engine under test (arguments: `harness.make_rig`); each must end, and end once."""
    made: list[Rig] = []

    def make(**options: Any) -> Rig:
        made.append(make_rig(engine, **options))
        return made[-1]

    yield make
    for rig in made:
        rig.close()
    for rig in made:
        rig.end.wait(PATIENCE)


@pytest.fixture
def pair(engines: tuple[Engine, Engine]) -> Iterator[MakePair]:
    """Makes pairs on the engines under test (arguments: `harness.make_pair`); each must end, and end once on each side."""
    made: list[Pair] = []

    def make(**options: Any) -> Pair:
        made.append(make_pair(engines, **options))
        return made[-1]

    yield make
    for pair in made:
        pair.close()
    for pair in made:
        for end in pair.ends:
            end.wait(PATIENCE)
