"""The program of the egress filter, run by an interpreter of classic BPF on packets made here."""

from __future__ import annotations

import dataclasses
import ipaddress
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st
from unit.intercept.test_rules import REDIRECT

from stcp_proxy.intercept import bpf
from stcp_proxy.intercept.bpf import Instruction, Step, link, text_of
from stcp_proxy.intercept.egress_program import MAX_INSTRUCTIONS, PASSED, Egress, is_ours, mark_of
from stcp_proxy.net.pattern import Pattern, parse_pattern

OK, DROP = 0xFFFFFFFF, 2
SYN, SYN_ACK, ACK = 0x02, 0x12, 0x10
EVERYTHING = Egress((), None, None, 1)


def run(program: list[Instruction], packet: bytes, mark: int = 0) -> int:
    """The verdict of a program on a packet that begins with its IP header."""
    version = packet[0] >> 4
    fields = {bpf.MARK: mark, bpf.PROTOCOL: 0x0800 if version == 4 else 0x86DD if version == 6 else 0x0806}
    a = x = at = 0
    cells: dict[int, int] = {}

    def load(offset: int, size: int) -> int:
        if offset in fields:
            return fields[offset]
        offset = (offset - bpf.NET) & 0xFFFFFFFF
        assert offset + size <= len(packet), "the program reads beyond the packet"
        return int.from_bytes(packet[offset : offset + size], "big")

    while True:
        code, jt, jf, k = program[at]
        at += 1
        match code:
            case bpf.LD | bpf.LDH | bpf.LDB:
                a = load(k, {bpf.LD: 4, bpf.LDH: 2, bpf.LDB: 1}[code])
            case bpf.LDH_X | bpf.LDB_X:
                a = load(x + k & 0xFFFFFFFF, 2 if code == bpf.LDH_X else 1)
            case bpf.IMM:
                a = k
            case bpf.IMM_X:
                x = k
            case bpf.LOAD:
                a = cells[k]
            case bpf.STORE:
                cells[k] = a
            case bpf.TAX:
                x = a
            case bpf.AND:
                a &= k
            case bpf.LSH:
                a = a << k & 0xFFFFFFFF
            case bpf.ADD:
                a = a + k & 0xFFFFFFFF
            case bpf.ADD_X:
                a = a + x & 0xFFFFFFFF
            case bpf.JUMP:
                at += k
            case bpf.RET:
                return k
            case _:
                true = {bpf.JEQ: a == k, bpf.JGT: a > k, bpf.JGE: a >= k, bpf.JSET: bool(a & k)}[code]
                at += jt if true else jf


def tcp(port: int = 80, source: int = 40000, flags: int = SYN) -> bytes:
    return struct.pack("!HHIIBBHHH", source, port, 0, 0, 0x50, flags, 0, 0, 0)


def ip4(to: str = "10.0.0.1", *, protocol: int = 6, body: bytes | None = None, offset: int = 0, options: int = 0) -> bytes:
    head = struct.pack("!BBHHHBBH4s", 0x45 + options, 0, 0, 0, offset, 64, protocol, 0, b"\x0a\0\0\x09")
    return head + ipaddress.IPv4Address(to).packed + bytes(4 * options) + (tcp() if body is None else body)


def ip6(to: str = "fd00::1", *, following: int = 6, body: bytes | None = None) -> bytes:
    head = struct.pack("!IHBB", 6 << 28, 0, following, 64) + bytes(16)
    return head + ipaddress.IPv6Address(to).packed + (tcp() if body is None else body)


def extended(*headers: int, last: int = 6, length: int = 0) -> bytes:
    """TCP behind extension headers."""
    body = b"".join(bytes([following, length]) + bytes(8 * length + 6) for following in (*headers[1:], last))
    return ip6(following=headers[0], body=body + tcp())


def verdict(packet: bytes, egress: Egress = EVERYTHING, *, mark: int = 0, servers: tuple[int, ...] = ()) -> int:
    return run(egress.program(servers), packet, mark)


def some(*captured: str, admitted: tuple[str, ...] = (), mark: int | None = None) -> Egress:
    return Egress(tuple(map(parse_pattern, admitted)), tuple(map(parse_pattern, captured)), mark, 1)


@pytest.mark.parametrize("packet", [ip4(), ip6(), ip4(options=3), extended(0, 43, 60), extended(60, length=5)])
def test_a_captured_packet_passes_only_with_the_bit_of_the_guard(packet: bytes) -> None:
    assert verdict(packet) == DROP
    assert verdict(packet, mark=PASSED) == OK
    assert verdict(packet, mark=0xFFFFFFFF) == OK
    assert verdict(packet, mark=0xFFFFFFFF ^ PASSED) == DROP


@pytest.mark.parametrize(
    ("packet", "expected"),
    [
        (ip4(protocol=17), OK),
        (ip4(protocol=17, offset=100), OK),
        (ip4(offset=100), DROP),
        (ip4(offset=0x2000), DROP),
        (ip6(following=58), OK),
        (extended(0, last=58), OK),
        (extended(44), DROP),
        (ip6(following=44, body=b"\x06\0\0\x08" + bytes(40)), DROP),
        (ip6(following=44, body=b"\x11\0\0\x08" + bytes(40)), OK),
        (extended(0, 43, 60, 0), DROP),
        (extended(0, 43, 60, last=17), OK),
        (b"\0" * 60, OK),
    ],
)
def test_only_tcp_is_dropped(packet: bytes, expected: int) -> None:
    assert verdict(packet) == expected


def test_the_mark_of_the_proxy_passes() -> None:
    egress = some("10.0.0.0/8", mark=0x5350)
    assert verdict(ip4(), egress, mark=0x5350) == OK
    assert verdict(ip4(), egress, mark=0x5351) == DROP


@pytest.mark.parametrize("make", [ip4, ip6])
def test_answers_of_servers_pass_and_first_packets_do_not(make) -> None:  # type: ignore[no-untyped-def]
    for flags, expected in ((SYN, DROP), (SYN_ACK, OK), (ACK, OK)):
        assert verdict(make(body=tcp(source=22, flags=flags)), servers=(22, 443)) == expected
        assert verdict(make(body=tcp(source=23, flags=flags)), servers=(22, 443)) == DROP


PATTERNS = (
    "10.0.0.0/8:6379",
    "10.0.0.1",
    "[fc00::/7]:1-1024",
    "[fd00::1:0:0:5/128]",
    ":443",
    "0.0.0.0/0:22",
    "[::/0]:23",
    "10.1.2.0/25",
)
DESTINATIONS = ("10.0.0.1", "10.1.2.127", "10.1.2.128", "11.0.0.1", "fd00::1", "fd00::1:0:0:5", "fc00::1", "fe00::1")


@given(
    st.lists(st.sampled_from(PATTERNS), max_size=5),
    st.lists(st.sampled_from(PATTERNS), max_size=5) | st.none(),
    st.sampled_from(DESTINATIONS),
    st.sampled_from([1, 22, 23, 443, 1024, 1025, 6379, 65535]),
)
def test_patterns_decide_as_they_do_elsewhere(admitted: list[str], captured: list[str] | None, to: str, port: int) -> None:
    plan = dataclasses.replace(
        REDIRECT,
        exclude=tuple(map(parse_pattern, admitted)),
        only=None if captured is None else tuple(map(parse_pattern, captured)),
    )
    ip = ipaddress.ip_address(to)
    expected = not any(each.match(ip, port) for each in plan.exclude) and (
        plan.only is None or any(each.match(ip, port) for each in plan.only)
    )
    packet = (ip4 if ip.version == 4 else ip6)(to, body=tcp(port))
    assert verdict(packet, Egress.of(plan, 1)) == (DROP if expected else OK)


def test_too_many_destinations_make_a_program_that_drops_all() -> None:
    many = tuple(Pattern(network=ipaddress.ip_network(f"10.{number >> 8}.{number & 255}.0/24")) for number in range(2000))
    program = Egress((), many, 7, 1).program([22])
    assert len(program) <= MAX_INSTRUCTIONS
    assert run(program, ip4("11.0.0.1")) == DROP
    assert run(program, ip4("11.0.0.1"), mark=PASSED) == OK
    assert run(Egress((), many[:500], None, 1).program(), ip4("11.0.0.1")) == OK


def test_filters_are_recognised() -> None:
    program = EVERYTHING.program()
    assert mark_of(program) is None
    assert mark_of(some("10.0.0.0/8", mark=7).program()) == 7
    assert mark_of([]) is None
    assert is_ours(program)
    assert not is_ours([])
    assert not is_ours(program[1:])
    assert text_of(program[:2]) == "2,0 0 0 1398031184,32 0 0 4294963220"


def test_a_jump_that_is_too_long_is_refused() -> None:
    far = [Step(bpf.JEQ, 1, then="end"), *[Step(bpf.IMM)] * 256, "end", Step(bpf.RET)]
    with pytest.raises(ValueError, match="too far"):
        link(far)
    with pytest.raises(ValueError, match="twice"):
        link(["end", Step(bpf.IMM), "end", Step(bpf.RET)])
