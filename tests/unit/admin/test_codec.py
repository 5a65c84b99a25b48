"""What one worker writes another one reads, and nothing that does not fit is taken."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Annotated, Literal

import pytest

from stcp_proxy.admin.codec import decode, encode
from stcp_proxy.admin.process_schema import Process, Worker
from stcp_proxy.admin.report import Report, TunnelReport
from stcp_proxy.admin.snapshot_request import SnapshotRequest
from stcp_proxy.admin.status_schema import Connections, Target
from stcp_proxy.counters import Ledger


def report() -> Report:
    ledger = Ledger()
    ledger.ended["a peer", "python", "finished"] += 2
    ledger.refused["(unknown)", "denied"] += 1
    ledger.handshakes.end(0.01, None)
    worker = Worker(number=0, pid=1, state="ready", open=1, descriptors=2, descriptor_limit=3, memory=4)
    tunnel = TunnelReport(
        name="db", mode="listen", bind=":1", listening=[], targets=[Target(address="a:1", retry=1.5)], auth="keys", peers=["p"],
        engine="python", why_engine="", open=1, proving=0, relayed=1, max_connections=9, max_handshakes=9, counts=ledger,
        open_to_wire=5, open_to_plain=6, carried={("a peer", "python"): 1},
    )  # fmt: skip
    return Report(
        time=1.5,
        process=Process(version="1", started=1.0, uptime=1.0, state="ready", workers=[worker], engines=[]),
        tunnels=[tunnel],
        connections=Connections(total=0, order="newest", shown=[]),
        keys=[],
        refusals=[],
    )


def test_a_report_survives_the_way_to_another_worker() -> None:
    found = decode(Report, encode(report()))
    assert encode(found) == encode(report())
    assert found.tunnels[0].counts.ended == {("a peer", "python", "finished"): 2}
    assert found.tunnels[0].carried == {("a peer", "python"): 1}
    assert found.tunnels[0].counts.handshakes.results == {"ok": 1}


def test_a_request_too() -> None:
    assert decode(SnapshotRequest, encode(SnapshotRequest(3, "busiest", "t"))) == SnapshotRequest(3, "busiest", "t")


@dataclass
class Inner:
    number: int


@dataclass
class Sample:
    text: Annotated[str, "a note"]
    share: float
    choice: Literal["a", "b"]
    inner: Inner | None = None
    many: list[Inner] = field(default_factory=list)
    named: dict[str, int] = field(default_factory=dict)
    pairs: dict[tuple[str, int], int] = field(default_factory=dict)


GOOD = {"text": "t", "share": 1, "choice": "a"}


def test_defaults_and_unknown_fields() -> None:
    assert decode(Sample, json.dumps(GOOD | {"later": 1}).encode()) == Sample("t", 1.0, "a")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"text": 1}, "Sample.text: str belongs here"),
        ({"text": None}, "Sample.text: str belongs here"),
        ({"share": "1"}, "Sample.share: float belongs here"),
        ({"share": True}, "Sample.share: float belongs here"),
        ({"choice": "c"}, "Sample.choice: the value is not known"),
        ({"inner": {}}, "Sample.inner: Inner is not complete"),
        ({"inner": {"number": 1.5}}, "Sample.inner: Inner.number: int belongs here"),
        ({"many": {}}, "Sample.many: a list belongs here"),
        ({"many": [1]}, "Sample.many: Inner is not complete"),
        ({"named": []}, None),
        ({"named": [1]}, "Sample.named: an object belongs here"),
        ({"named": {"a": "b"}}, "Sample.named: int belongs here"),
        ({"pairs": [[["a"], 1]]}, "Sample.pairs: a list of 2 belongs here"),
        ({"pairs": [[["a", "b"], 1]]}, "Sample.pairs: int belongs here"),
        ({"pairs": [[["a", 1], 1]]}, None),
    ],
)
def test_what_does_not_fit_is_refused(change: dict[str, object], words: str | None) -> None:
    text = json.dumps(GOOD | change).encode()
    if words is None:
        decode(Sample, text)
        return
    with pytest.raises(ValueError, match=f"^{words}$"):
        decode(Sample, text)


@pytest.mark.parametrize("text", [b"", b"{", b"[]", b"1", b"\xff", b"null"])
def test_what_is_no_object_is_refused(text: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        decode(Sample, text)
