"""The result of a run as text and as JSON."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import asdict, dataclass

PASSED, FAILED, NOT_OFFERED = "passed", "FAILED", "not offered"


@dataclass(frozen=True)
class Result:
    """Of one case.

    Attributes:
        case: its id.
        law: section of docs/PROTOCOL.md, and what it says.
        result: passed, FAILED or not offered.
        seen: what the implementation did; why, where it is not offered.
        seconds: how long it took.
    """

    case: str
    law: str
    result: str
    seen: str
    seconds: float

    def line(self) -> str:
        if self.result == FAILED:
            return f"{self.result:12} {self.case}\n{'':12}   law   {self.law}\n{'':12}   seen  {self.seen}"
        return f"{self.result:12} {self.case}"


def summary(name: str, results: list[Result], seconds: float) -> str:
    counts = Counter(result.result for result in results)
    return f"{name}: " + ", ".join(f"{counts[kind]} {kind}" for kind in (PASSED, FAILED, NOT_OFFERED)) + f" in {seconds:.0f} s"


def as_json(name: str, results: list[Result]) -> str:
    return (
        json.dumps({"implementation": name, "cases": [asdict(result) for result in results]}, indent=1, ensure_ascii=False) + "\n"
    )
