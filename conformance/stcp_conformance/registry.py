"""The list of cases. A case is a function that gets a `Bench`, raises `Deviation`, and returns what it saw."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from stcp_conformance.bench import Bench
from stcp_conformance.config import ROLES
from stcp_conformance.suites import SUITES, Suite

Run = Callable[[Bench], object]
Which = Callable[[Suite], bool]


@dataclass(frozen=True)
class Case:
    """One case in one role with one suite.

    Attributes:
        name: its name.
        law: the section of docs/PROTOCOL.md, and what it says.
        role: the implementation's role.
        suite: number of the suite; None for the implementation's first one.
        needs: the optional parts that it is about.
        slow: whether it takes seconds.
        run: the function.
    """

    name: str
    law: str
    role: str
    suite: int | None
    needs: frozenset[str]
    slow: bool
    run: Run

    @property
    def id(self) -> str:
        return "/".join([self.role, *([f"suite-{self.suite}"] if self.suite else []), self.name])


CASES: list[Case] = []


def add(
    name: str,
    law: str,
    run: Run,
    *,
    roles: tuple[str, ...] = ROLES,
    suites: Which | None = None,
    needs: str = "",
    slow: bool = False,
) -> None:
    """Add a case for each role and suite.

    Args:
        name: its name.
        law: section and law.
        run: the function.
        roles: the roles of the implementation that it is about.
        suites: which suites it runs with. [default: the implementation's first one]
        needs: an optional part that it is about.
        slow: whether it takes seconds.
    """
    numbers = [None] if suites is None else [suite.number for suite in SUITES.values() if suites(suite)]
    for role in roles:
        for number in numbers:
            CASES.append(Case(name, law, role, number, frozenset(needs.split()), slow, run))


def case(
    name: str, law: str, *, roles: tuple[str, ...] = ROLES, suites: Which | None = None, needs: str = "", slow: bool = False
) -> Callable[[Run], Run]:
    """`add` as a decorator."""

    def register(run: Run) -> Run:
        add(name, law, run, roles=roles, suites=suites, needs=needs, slow=slow)
        return run

    return register


RESPONDER, INITIATOR = ("responder",), ("initiator",)


def every(_: Suite) -> bool:
    return True
