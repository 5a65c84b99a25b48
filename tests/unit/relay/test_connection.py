"""All state of a relayed connection is in the slots of `Connection`, which the fast path in C reads."""

from __future__ import annotations

import pytest

from stcp_proxy.relay.connection import Connection
from stcp_proxy.relay.duplex import Duplex

PARTS = [part for part in Duplex.__mro__ if issubclass(part, Connection) and part is not Connection]


@pytest.mark.parametrize("part", PARTS)
def test_a_part_adds_methods_and_no_state(part: type) -> None:
    assert vars(part)["__slots__"] == ()


def test_a_connection_has_no_dictionary() -> None:
    assert Duplex.__dictoffset__ == 0
