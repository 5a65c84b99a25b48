"""Sizes and numbers of the wire format, against the specification's own figures."""

from __future__ import annotations

from stcp_proxy.protocol import wire
from stcp_proxy.protocol.wire import MESSAGE_1_LEN, MESSAGE_2_LEN, FrameType, Suite

from .fixed import ALL_SUITES, shake

HEAD = 8
"""Bytes of the prologue and of the length field of message 1."""


def test_sizes_are_those_of_the_specification() -> None:
    assert MESSAGE_1_LEN == {1: 1296, 2: 96, 3: 1248, 4: 48, 5: 1216, 6: 1296}
    assert MESSAGE_2_LEN == {1: 1152, 2: 48, 3: 1152, 4: 48, 5: 1200, 6: 1152}
    assert (wire.MESSAGE_3_LEN, wire.MAX_CREDENTIAL) == (64, 16384)
    assert (wire.MAX_FRAME, wire.MAX_PLAINTEXT, wire.MIN_LENGTH, wire.MAX_LENGTH) == (65536, 65516, 16, 65532)
    assert (wire.HEADER_LEN, wire.TAG_LEN, wire.REKEY_INTERVAL) == (4, 16, 2**20)
    assert wire.MAX_TEXT == 256
    assert [kind.name for kind in sorted(FrameType)] == ["DATA", "FIN", "RESET", "OPEN", "ACCEPT", "REJECT", "BYE"]
    assert sorted(FrameType) == list(range(7))
    assert [code.name for code in sorted(wire.Code)] == [
        "DENIED",
        "UNKNOWN_SERVICE",
        "TARGET_REFUSED",
        "TARGET_TIMED_OUT",
        "TARGET_UNREACHABLE",
        "OVER_LIMIT",
        "SHUTTING_DOWN",
        "PLAIN_RESET",
        "IDLE_TIMEOUT",
        "PROTOCOL_ERROR",
        "KEY_REVOKED",
        "INTERNAL_ERROR",
    ]
    assert sorted(wire.Code) == list(range(1, 13))


@ALL_SUITES
def test_messages_have_their_sizes(suite: Suite) -> None:
    _, message_1, answer = shake(suite)
    assert message_1[:HEAD] == b"STCP" + bytes([1, suite]) + MESSAGE_1_LEN[suite].to_bytes(2, "big")
    assert len(message_1) == HEAD + MESSAGE_1_LEN[suite]
    assert answer.reply[:2] == MESSAGE_2_LEN[suite].to_bytes(2, "big")
    assert len(answer.reply) == 2 + MESSAGE_2_LEN[suite]
