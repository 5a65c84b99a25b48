"""The keys of a wire leg: rekeys at boundaries and by count, handover to an engine and back, the last connection, vectors."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest

from stcp_proxy.errors import FrameError, FrameNotAuthentic
from stcp_proxy.protocol.established import Established
from stcp_proxy.protocol.frames import Sealer, key_at
from stcp_proxy.protocol.leg import Leg, LegOpener, State
from stcp_proxy.protocol.secret import Secret
from stcp_proxy.protocol.wire import MAX_CONNECTIONS, REKEY_INTERVAL, FrameType, Role, Suite

from .fixed import VECTORS
from .legs import ACCEPT, BYE, CONTENT, DATA, KEEP, OPEN, REJECT, carry, deliver, legs

# -- keys -----------------------------------------------------------------------------------------------------------------------


def test_bye_uses_the_key_of_the_connection_before_it() -> None:
    initiator, responder = legs()
    carry(initiator, responder)
    key = initiator.sealer.key
    frame = initiator.seal(BYE)
    assert LegOpener(key, initiator.sealer.counter - 1).open(frame) == (len(frame), BYE, b"")


@pytest.mark.parametrize("kind", [OPEN, ACCEPT, REJECT])
def test_first_frame_under_the_old_key_is_refused(kind: FrameType) -> None:
    initiator, responder = legs()
    carry(initiator, responder)
    mine, peer = (responder, initiator) if kind is OPEN else (initiator, responder)
    if kind is not OPEN:
        deliver(initiator, responder, OPEN)
    before = mine.opener.key
    with pytest.raises(FrameNotAuthentic):
        mine.open(peer.sealer.seal(kind, CONTENT[kind]))
    assert mine.opener.key == before


def test_bye_changed_to_open_does_not_authenticate() -> None:
    initiator, responder = legs()
    carry(initiator, responder)
    frame = initiator.seal(BYE)
    with pytest.raises(FrameNotAuthentic):
        responder.open(bytes([OPEN]) + frame[1:])
    assert responder.state is State.IDLE


def test_rekey_by_count_follows_the_rekey_of_the_boundary() -> None:
    initiator, responder = legs()
    carry(initiator, responder)
    for direction in (initiator.sealer, responder.opener):
        direction._n = REKEY_INTERVAL
    key = initiator.sealer.key.reveal()
    deliver(initiator, responder, OPEN)
    for _ in range(2):
        key = rekey(key)
    assert initiator.sealer.key == responder.opener.key == Secret(key)


def rekey(key: bytes) -> bytes:
    return key_at(Secret(key), REKEY_INTERVAL, REKEY_INTERVAL + 1).reveal()


@pytest.mark.parametrize("start", [0, 1, REKEY_INTERVAL - 1, REKEY_INTERVAL, REKEY_INTERVAL + 1])
@pytest.mark.parametrize("later", [0, 1, 2])
@pytest.mark.parametrize("rekeys", [0, 1, 2])
def test_key_at_a_later_counter(start: int, later: int, rekeys: int) -> None:
    """The same key as that of a sealer that wrote the frames one by one, its counter set forward between the rekeys."""
    end = start + rekeys * REKEY_INTERVAL + later
    sealer = Sealer(Secret(b"\x07" * 32), start)
    at_rekeys = {m * REKEY_INTERVAL for m in range(5)}
    for n in sorted(n for n in {start, end - 1} | at_rekeys if start <= n < end):
        sealer._n = n
        sealer.seal(DATA)
    assert key_at(Secret(b"\x07" * 32), start, end) == sealer.key


def test_engine_gives_a_leg_back() -> None:
    initiator, responder = legs()
    deliver(initiator, responder, OPEN)
    deliver(responder, initiator, ACCEPT)
    sent, received = 3 * REKEY_INTERVAL + 5, 7
    initiator.resume(sent, received)
    responder.resume(received, sent)
    assert (initiator.state, responder.state) == (State.IDLE, State.IDLE)
    carry(initiator, responder)
    with pytest.raises(RuntimeError, match="IDLE"):
        initiator.resume(sent, received)


def test_engine_gives_a_leg_back_that_is_not_kept() -> None:
    initiator, responder = legs()
    deliver(initiator, responder, OPEN, b"")
    deliver(responder, initiator, ACCEPT, b"")
    initiator.resume(2, 2)
    assert initiator.state is State.OVER


def test_last_connection_of_a_leg() -> None:
    initiator, responder = legs()
    carry(initiator, responder)
    initiator.connection = responder.connection = MAX_CONNECTIONS - 2
    assert not initiator.exhausted
    carry(initiator, responder)
    assert initiator.exhausted
    with pytest.raises(ValueError, match=r"OPEN .*IDLE"):
        initiator.seal(OPEN, KEEP[OPEN])
    sealer = Sealer(initiator.sealer.key, initiator.sealer.counter)
    sealer.next_connection()
    with pytest.raises(FrameError, match=r"OPEN .*IDLE"):
        responder.open(sealer.seal(OPEN, KEEP[OPEN]))
    deliver(initiator, responder, BYE)


# -- vectors ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("direction", ["to_responder", "to_initiator"])
@pytest.mark.parametrize("vector", VECTORS["kept_legs"], ids=lambda vector: vector["name"])
def test_vector(vector: dict[str, Any], direction: str) -> None:
    rows = vector[direction]
    sealer = Sealer(Secret(bytes.fromhex(rows[0]["key"])), int(rows[0]["counter"]))
    opener = LegOpener(sealer.key, sealer.counter)
    connection = 0
    for row in rows:
        if row["connection"] > connection:
            connection = row["connection"]
            sealer.next_connection()
            opener.next_connection()
        content, frame = bytes.fromhex(row["content"]), bytes.fromhex(row["frame"])
        assert sealer.seal(row["type"], content) == frame
        assert opener.open(frame) == (len(frame), row["type"], content)
        assert sealer.key == opener.key == Secret(bytes.fromhex(row["next_key"]))


@pytest.mark.parametrize("vector", [v for v in VECTORS["kept_legs"] if "suite" in v], ids=lambda vector: vector["name"])
def test_vector_through_both_legs(vector: dict[str, Any]) -> None:
    """The leg makes the rekeys of the boundaries by itself."""
    first, second = (Secret(bytes.fromhex(vector[way][0]["key"])) for way in ("to_responder", "to_initiator"))
    final = bytes.fromhex(vector["handshake_hash"])
    initiator = Leg(Role.INITIATOR, Established(Suite(vector["suite"]), first, second, final, None, b""))
    responder = Leg(Role.RESPONDER, Established(Suite(vector["suite"]), second, first, final, None, b""))
    for connection in (0, 1):
        for way, mine, peer in (("to_responder", initiator, responder), ("to_initiator", responder, initiator)):
            for row in vector[way]:
                if row["connection"] == connection and row["type"] != BYE:
                    frame = bytes.fromhex(row["frame"])
                    assert mine.seal(FrameType(row["type"]), bytes.fromhex(row["content"])) == frame
                    assert peer.open(frame) is not None
        assert initiator.channel_id == vector["channel_ids"][str(connection)]
    (bye,) = (bytes.fromhex(row["frame"]) for row in vector["to_responder"] if row["type"] == BYE)
    assert initiator.seal(BYE) == bye
    assert responder.open(bye) is not None
    for number, name in vector["channel_ids"].items():
        responder.connection = int(number)
        assert responder.channel_id == name
    assert hashlib.sha256(final + bytes(7) + b"\1").digest()[:8].hex() == vector["channel_ids"]["1"]
