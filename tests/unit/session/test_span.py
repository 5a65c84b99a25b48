"""Which connections make a span, and what their record says."""

from __future__ import annotations

import time
from typing import Any

import pytest

from stcp_proxy.config import Mode
from stcp_proxy.counters import Ledger
from stcp_proxy.errors import Code, PeerLeft, PeerRejected, PeerUnreachable, StcpError, TargetRefused
from stcp_proxy.handshake.trust import Peer
from stcp_proxy.protocol.wire import Suite
from stcp_proxy.relay.engine import EndReason, RelayEnd
from stcp_proxy.session.record import Connection
from stcp_proxy.spans import sink
from stcp_proxy.spans.counts import Counts

CHANNEL = "b2fcea2f82612d55"


class Taken:
    """A sink that keeps what it is given."""

    dropped = 0
    results = Counts()

    def __init__(self) -> None:
        self.records: list[dict[str, Any]] = []
        self.wanted = True
        self.asked: list[str] = []

    def wants(self, channel: str) -> bool:
        self.asked.append(channel)
        return self.wanted

    def offer(self, record: dict[str, Any]) -> None:
        self.records.append(record)


class Owner:
    def __init__(self, mode: Mode) -> None:
        self.mode = mode
        self.ledger = Ledger()

    def settle(self, connection: Connection, end: RelayEnd) -> None:
        connection.ended(end)

    def forget(self, connection: Connection) -> None:
        pass


@pytest.fixture
def taken() -> Any:
    found = Taken()
    sink.use(found)
    yield found
    sink.use(None)


def connection(mode: Mode, *, proved: bool = True) -> Connection:
    found = Connection("web", "10.0.0.1:5", Owner(mode), waited=2.0)
    if proved:
        found.proved(Peer("app"))
        found.channel, found.suite, found.leg = CHANNEL, Suite.HYBRID_KEYS_PSK, "new"
    return found


def test_an_ordinary_end(taken: Taken) -> None:
    found = connection(Mode.LISTEN)
    found.target, found.early = "127.0.0.1:80", 3
    found.ended(RelayEnd(EndReason.FINISHED, 4, 9))
    (record,) = taken.records
    assert abs(record.pop("ended") / 1e9 - time.time()) < 60
    assert 2 <= record.pop("seconds") < 60
    assert record == {
        "mode": "listen",
        "tunnel": "web",
        "channel": CHANNEL,
        "peer": "app",
        "client": "10.0.0.1:5",
        "target": "127.0.0.1:80",
        "leg": "new",
        "suite": "hybrid-keys-psk",
        "reason": "finished",
        "to_wire": 7,
        "to_plain": 9,
    }
    assert taken.asked == [CHANNEL]


def test_a_broken_end(taken: Taken) -> None:
    connection(Mode.CONNECT).ended(RelayEnd(EndReason.BAD_FRAME, 0, 0, Code.PROTOCOL_ERROR, "bye"))
    connection(Mode.CONNECT).ended(RelayEnd(EndReason.PEER_RESET, 0, 0, 99))
    broken, ordinary = taken.records
    assert (broken["code"], ordinary["code"]) == ("protocol_error", "99")
    assert broken["failed"]
    assert "bye" in broken["why"]
    assert "failed" not in ordinary  # a reset is an ordinary end, in the log too


FAILURES: list[tuple[Mode, bool, StcpError, str | None]] = [
    (Mode.LISTEN, True, TargetRefused("no target"), "target_refused"),
    (Mode.CONNECT, True, PeerRejected(Code.OVER_LIMIT, ""), "over_limit"),
    (Mode.CONNECT, False, PeerUnreachable("no peer"), None),
]


@pytest.mark.parametrize(("mode", "proved", "failure", "code"), FAILURES)
def test_a_failure(taken: Taken, mode: Mode, proved: bool, failure: StcpError, code: str | None) -> None:
    connection(mode, proved=proved).failed(failure)
    (record,) = taken.records
    assert record["failed"]
    assert (record["why"], record["reason"], record.get("code")) == (failure.what, failure.label, code)
    assert ("suite" in record) is proved


def test_a_fault_of_this_program(taken: Taken) -> None:
    connection(Mode.CONNECT).failed(ValueError("x" * 1000))
    assert taken.records[0]["why"] == ("ValueError: " + "x" * 1000)[:200]


def test_strangers_and_health_checks_make_none(taken: Taken) -> None:
    connection(Mode.LISTEN, proved=False).failed(TargetRefused("a stranger"))
    connection(Mode.LISTEN).failed(PeerLeft("a health check"))
    assert PeerLeft("").judgement.is_check
    assert taken.records == []
    assert taken.asked == []


def test_a_connection_that_is_not_chosen(taken: Taken) -> None:
    taken.wanted = False
    connection(Mode.LISTEN).ended(RelayEnd(EndReason.FINISHED, 0, 0))
    assert taken.records == []


def test_the_largest_record_fits(taken: Taken) -> None:
    import json

    from stcp_proxy.spans.channel import MOST

    found = connection(Mode.LISTEN)
    found.peer = found.target = "\N{GRINNING FACE}" * 1000
    found.tunnel = found.service = "x" * 63
    found.origin = found.original = "[2001:db8:2001:db8:2001:db8:2001:db8]:65535"
    found.failed(TargetRefused("\x1b" * 1000))
    assert len(json.dumps(taken.records[0], ensure_ascii=False).encode()) < MOST
