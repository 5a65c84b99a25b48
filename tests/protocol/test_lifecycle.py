"""Which frame may follow which: every phase with every frame type, against a table written from the specification."""

from __future__ import annotations

import pytest

from stcp_proxy.errors import FrameError
from stcp_proxy.protocol.lifecycle import Phase, follow
from stcp_proxy.protocol.wire import FrameType

# Section 2: OPEN is the first frame of the initiator, exactly once; ACCEPT the first of the responder, REJECT comes instead and
# both close; no DATA follows FIN in its direction; RESET aborts a connection; a frame out of place is fatal.
ALLOWED = {
    "EXPECT_OPEN": {"OPEN": "STREAM"},
    "EXPECT_ACCEPT": {"ACCEPT": "STREAM", "REJECT": "CLOSED"},
    "STREAM": {"DATA": "STREAM", "FIN": "ENDED", "RESET": "CLOSED"},
    "ENDED": {"RESET": "CLOSED"},
    "CLOSED": {},
}


def test_the_table_knows_every_phase() -> None:
    assert ALLOWED.keys() == Phase.__members__.keys()


@pytest.mark.parametrize("kind", list(FrameType), ids=lambda kind: kind.name)
@pytest.mark.parametrize("phase", list(Phase), ids=lambda phase: phase.name)
def test_every_phase_with_every_frame(phase: Phase, kind: FrameType) -> None:
    expected = ALLOWED[phase.name].get(kind.name)
    if expected is None:
        with pytest.raises(FrameError, match=f"{kind.name} .*{phase.name}"):
            follow(phase, kind)
    else:
        assert follow(phase, kind) is Phase[expected]
        assert follow(phase, int(kind)) is Phase[expected]


@pytest.mark.parametrize("kind", [-1, 7, 255, 256])
@pytest.mark.parametrize("phase", list(Phase), ids=lambda phase: phase.name)
def test_unknown_types_never_follow(phase: Phase, kind: int) -> None:
    with pytest.raises(FrameError, match=str(kind)):
        follow(phase, kind)
