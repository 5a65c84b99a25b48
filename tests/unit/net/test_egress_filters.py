"""The state of the egress filter, from what the kernel lists. The kernel is a fake."""

from __future__ import annotations

import socket
import struct

import pytest
from harness.netlink import attribute

from stcp_proxy.net import egress_filters as module
from stcp_proxy.net.egress_filters import MAGIC, EgressFilters, EgressState, egress_filters, state_of

OURS = struct.pack("=HBBI", 0, 0, 0, MAGIC) + struct.pack("=HBBI", 6, 0, 0, 0)
THEIRS = struct.pack("=HBBI", 6, 0, 0, 0)


def message(kind: int, body: bytes) -> bytes:
    return struct.pack("=IHHII", 16 + len(body), kind, 0, 0, 0) + body


def link(number: int, name: str, *, kind: int = 1, up: bool = True, master: str | None = None) -> bytes:
    found = attribute(3, name.encode() + b"\0")
    if master is not None:
        found += attribute(10, bytes(4)) + attribute(18, attribute(4, master.encode() + b"\0"))
    return message(16, struct.pack("=BxHiII", 0, kind, number, int(up), 0) + found)


def bpf(pref: int, program: bytes) -> bytes:
    """A filter, as the kernel lists it: a message without options comes first."""
    head = struct.pack("=BxxxiIII", 0, 0, 0, 0, pref << 16)
    return message(44, head + attribute(1, b"bpf\0")) + message(44, head + attribute(2, attribute(5, program)))


class Kernel:
    """A netlink socket that answers with a list of interfaces and their filters."""

    def __init__(self, links: list[bytes], filters: dict[int, bytes]) -> None:
        self.links, self.filters = links, filters
        self.answers: list[bytes] = []

    def __call__(self, *arguments: int) -> Kernel:
        return self

    def __enter__(self) -> Kernel:
        return self

    def __exit__(self, *exc: object) -> None: ...

    def settimeout(self, seconds: float) -> None: ...

    def send(self, request: bytes) -> None:
        _, kind, *_ = struct.unpack_from("=IHHII", request)
        if kind == 18:
            self.answers = [b"".join(self.links[:2]), b"".join(self.links[2:])]
        else:
            self.answers = [self.filters.get(struct.unpack_from("=Bxxxi", request, 16)[1], b"")]
        self.answers.append(message(3, bytes(4)))

    def recv(self, size: int) -> bytes:
        return self.answers.pop(0)


LINKS = [
    link(1, "lo", kind=772),
    link(2, "eth0"),
    link(3, "down0", up=False),
    link(4, "port", master="bridge"),
    link(5, "blue", master="vrf"),
]


@pytest.mark.parametrize(
    ("filters", "found"),
    [
        ({2: bpf(8, OURS), 5: bpf(8, OURS)}, EgressFilters()),
        ({2: bpf(8, OURS)}, EgressFilters(bare=("blue",))),
        ({2: bpf(8, THEIRS), 5: bpf(8, OURS)}, EgressFilters(bare=("eth0",))),
        ({2: bpf(8, OURS) + bpf(9, THEIRS), 5: bpf(8, OURS)}, EgressFilters()),
        ({2: bpf(7, THEIRS) + bpf(8, OURS), 5: bpf(8, OURS)}, EgressFilters(behind=("eth0",))),
        ({2: bpf(6, OURS) + bpf(8, OURS), 5: bpf(8, OURS)}, EgressFilters()),
    ],
)
def test_what_the_kernel_lists_tells_where_the_filter_is(
    monkeypatch: pytest.MonkeyPatch, filters: dict[int, bytes], found: EgressFilters
) -> None:
    monkeypatch.setattr(module.socket, "socket", Kernel(LINKS, filters))
    assert egress_filters() == found


@pytest.mark.parametrize("answer", [message(2, struct.pack("=i", -1)), message(16, b"short")])
def test_a_refusal_and_a_strange_answer_are_unknown(monkeypatch: pytest.MonkeyPatch, answer: bytes) -> None:
    monkeypatch.setattr(module.socket, "socket", Kernel([answer], {}))
    assert egress_filters() is None


def test_no_netlink_is_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: int) -> socket.socket:
        raise OSError(97, "Address family not supported by protocol")

    monkeypatch.setattr(module.socket, "socket", refuse)
    assert egress_filters() is None


@pytest.mark.parametrize(
    ("found", "state"),
    [
        (None, (EgressState.UNKNOWN, ())),
        (EgressFilters(), (EgressState.ATTACHED, ())),
        (EgressFilters(("a",), ("b",)), (EgressState.MISSING, ("a",))),
        (EgressFilters((), ("b",)), (EgressState.HIDDEN, ("b",))),
    ],
)
def test_a_missing_filter_is_worse_than_a_hidden_one(
    found: EgressFilters | None, state: tuple[EgressState, tuple[str, ...]]
) -> None:
    assert state_of(found) == state
