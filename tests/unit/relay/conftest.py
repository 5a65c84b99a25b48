"""Fixtures of the fast path's tests: one connection, or several of one engine."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from .driven import Bench, Several


@pytest.fixture
def bench() -> Iterator[Callable[..., Bench]]:
    made: list[Bench] = []

    def make(**options: Any) -> Bench:
        made.append(Bench(**options))
        return made[-1]

    yield make
    for one in made:
        one.close()


@pytest.fixture
def several(bench: Callable[..., Bench]) -> Iterator[Callable[[int], list[Bench]]]:
    made: list[Several] = []

    def make(count: int) -> list[Bench]:
        made.append(Several(bench(compiled=True), count))
        return made[-1].benches

    yield make
    for one in made:
        one.close()
