"""A failure judges itself: each kind declares what it means, and the declarations agree with one another."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields

import pytest

from stcp_proxy.errors import (
    Cause,
    ClientGone,
    Code,
    EndReason,
    FrameError,
    HandshakeClosed,
    Judgement,
    LogClass,
    NextPeer,
    NoAnswer,
    OverLimit,
    PeerRejected,
    Severity,
    StcpError,
    TargetRefused,
    Truncated,
)


def kinds(error: type[StcpError] = StcpError) -> Iterator[type[StcpError]]:
    yield error
    for kind in error.__subclasses__():
        yield from kinds(kind)


KINDS = sorted({kind for kind in kinds() if kind.__module__.startswith("stcp_proxy.errors")}, key=lambda kind: kind.__name__)
JUDGED: dict[str, Judgement] = (
    {kind.__name__: kind.judgement for kind in KINDS}
    | {f"end {end.name}": end.judgement for end in EndReason}
    | {f"REJECT {code.name}": PeerRejected(code, "").judgement for code in Code}
    | {"REJECT unknown": PeerRejected(4711, "").judgement}
)


def undeclared(kind: type[StcpError]) -> set[str]:
    """What a kind leaves to the kind that it derives from, and should say itself."""
    return {"judgement", "label"} - vars(kind).keys()


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_every_kind_declares_its_judgement(kind: type[StcpError]) -> None:
    assert undeclared(kind) == set()


def test_a_kind_that_declares_nothing_is_found() -> None:
    assert undeclared(type("Undeclared", (StcpError,), {})) == {"judgement", "label"}


def test_every_end_declares_its_judgement() -> None:
    assert all(isinstance(end.judgement, Judgement) for end in EndReason)
    assert [end.value for end in EndReason] == [str(end) for end in EndReason]
    assert EndReason("finished") is EndReason.FINISHED


@pytest.mark.parametrize("judgement", JUDGED.values(), ids=JUDGED)
def test_judgements_agree_with_themselves(judgement: Judgement) -> None:
    assert len(fields(judgement)) == 8  # a further field needs a sentence here
    assert (judgement.log_class is None) == (judgement.severity is Severity.ERROR)
    assert judgement.is_noise == (judgement.severity in (Severity.DEBUG, Severity.INFO))
    assert judgement.is_noise or not judgement.is_check
    assert judgement.blames_endpoint or judgement.next_peer is NextPeer.NEVER
    assert judgement.blames_endpoint or not judgement.seen_by_health_check
    assert judgement.log_class is not LogClass.CONNECTIONS or not judgement.blames_endpoint
    assert judgement.log_class is LogClass.HANDSHAKE_ERRORS or not judgement.by_strangers


def test_only_a_fault_of_this_program_is_an_error() -> None:
    assert {kind for kind in KINDS if kind.judgement.severity is Severity.ERROR} == {StcpError}
    assert {end for end in EndReason if end.judgement.severity is Severity.ERROR} == {EndReason.INTERNAL_ERROR}


def test_what_this_side_lacks_or_refuses_blames_nobody() -> None:
    for kind in KINDS:
        if kind.cause in (Cause.CLIENT, Cause.CONFIG, Cause.LIMIT, Cause.OURS):
            assert not kind.judgement.blames_endpoint, kind


@pytest.mark.parametrize(
    ("failure", "unheard", "heard"),
    [
        (TargetRefused("no", remedy="start it"), True, True),
        (HandshakeClosed("closed"), True, False),
        (Truncated("cut"), True, False),
        (FrameError("FIN"), False, False),
        (NoAnswer("silence"), False, False),
        (OverLimit("no descriptor"), False, False),
        (ClientGone("gone"), False, False),
        (PeerRejected(Code.TARGET_REFUSED, ""), True, True),
        (PeerRejected(Code.DENIED, ""), False, False),
        (PeerRejected(4711, ""), False, False),
    ],
    ids=str,
)
def test_next_peer(failure: StcpError, unheard: bool, heard: bool) -> None:
    """Another peer may be asked where the failure is the first one's own, and no word can be said twice."""
    assert failure.judgement.may_ask_next_peer(heard=False) is unheard
    assert failure.judgement.may_ask_next_peer(heard=True) is heard
