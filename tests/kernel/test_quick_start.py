"""A short connection with the kernel engine begins without a task, on a wire leg that the module has given back."""

from __future__ import annotations

import pytest
from harness.quick_start import Rig, same

from .peer import eventually, references, stat


@pytest.mark.timeout(300)
def test_connections_over_one_leg_without_a_task() -> None:
    """The user-space engine beside the kernel engine watches the sockets until the handover. Looks as it does with tasks."""
    before, count = stat()["LegsGivenBack"], 5

    async def case(rig: Rig) -> None:
        for number in range(count):
            await rig.ask(b"words %d" % number)
            await rig.rest()

    seen = same(case, listen_tasks=0, connect_tasks=0, module=True)
    assert seen.answers == [b"words %d" % number for number in range(count)]
    ends = [line for line in seen.lines if line["event"] == "connection closed"]
    assert [(line["engine"], line.get("why_engine")) for line in ends] == [("kernel", None)] * (2 * count)
    assert stat()["LegsGivenBack"] - before == 2 * 2 * count
    eventually(lambda: references() == 0, "a leg is left")
