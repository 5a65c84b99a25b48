"""The program of the egress filter, which `tc` attaches to an interface.

The program drops a TCP packet to a captured destination, unless the packet has the mark bit `PASSED`. The guard sets this bit on
every TCP packet that may leave. So without the rules nothing sets the bit, and no packet to a captured destination leaves. The
program has exceptions of its own, so that some connections survive the loss of the rules:

- packets with the mark of the proxy;
- destinations that the file excludes, and numeric addresses of the peers;
- packets from the ports of this host's servers, except the first packet (SYN) of a connection that this host opens.

Invariants:
- While the rules are installed, every TCP packet that the guard admits has the bit. The rest of the program does not run for it.
- A TCP packet without ports (a later fragment), and a packet with more than three IPv6 extension headers, is dropped.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from stcp_proxy.config.plan import CapturePlan
from stcp_proxy.intercept import bpf
from stcp_proxy.intercept.bpf import Instruction, Step, link
from stcp_proxy.net.egress_filters import MAGIC
from stcp_proxy.net.pattern import Pattern

PASSED: Final = 0x20
"""The bit of a packet's mark that the guard sets. Kubernetes uses 0xc000, Netavark 0x2000, Cilium and Calico bits above 0xff."""
MAX_INSTRUCTIONS: Final = 4096
"""The limit of the kernel (BPF_MAXINSNS)."""
_PASS: Final = 0xFFFFFFFF
"""TC_ACT_UNSPEC: the next filters decide. TC_ACT_PASS would skip the filters of other programs."""
_DROP: Final = 2
"""TC_ACT_SHOT."""
_IP4, _IP6 = 0x0800, 0x86DD
_TCP, _FRAGMENT = 6, 44
_EXTENSIONS: Final = (0, 43, 60)
"""IPv6 headers before TCP that have a length field: hop-by-hop options, routing, destination options."""
_DEPTH: Final = 3
"""IPv6 extension headers that the program can read."""
_SYN, _SYN_OR_ACK = 0x02, 0x12
_PORT, _NEXT = 0, 1
"""Memory cells: the destination port; the number of the next IPv6 header."""
_MAX_SERVERS: Final = 256
"""The largest number of server ports in a program."""
_MARK_AT: Final = 4
"""The index of the instruction that compares the mark with the proxy's mark."""


@dataclass(frozen=True, slots=True)
class Egress:
    """What the egress filter of a table admits and drops.

    Attributes:
        admitted: destinations that are never captured.
        captured: captured destinations; None means all.
        mark: the mark of the proxy's own packets; None without a mark.
        pref: the preference of the filter among the filters of an interface. Each table has its own.
    """

    admitted: tuple[Pattern, ...]
    captured: tuple[Pattern, ...] | None
    mark: int | None
    pref: int

    @classmethod
    def of(cls, capture: CapturePlan, pref: int) -> Egress:
        """The filter for what a file captures."""
        return cls(tuple(dict.fromkeys((*capture.peers, *capture.exclude))), capture.only, capture.mark, pref)

    def program(self, server_ports: Sequence[int] = ()) -> list[Instruction]:
        """Make the instructions.

        If the destinations do not fit, the program drops TCP packets to every destination. That matters only while the rules are
        missing.

        Args:
            server_ports: ports of this host's servers.
        """
        ports = sorted(set(server_ports))[:_MAX_SERVERS]
        found = link(_lines(self, ports))
        return found if len(found) <= MAX_INSTRUCTIONS else link(_lines(Egress((), None, self.mark, self.pref), ports))


def is_ours(program: Sequence[Instruction]) -> bool:
    """Whether this module has made a program."""
    return bool(program) and program[0] == Instruction(bpf.IMM, 0, 0, MAGIC)


def mark_of(program: Sequence[Instruction]) -> int | None:
    """The mark of the proxy's own packets in a program of this module; None without a mark."""
    test = program[_MARK_AT] if len(program) > _MARK_AT else None
    return test.k if test is not None and test.code == bpf.JEQ else None


# -- the parts of the program --------------------------------------------------------------------------------------------------


def _lines(egress: Egress, ports: Sequence[int]) -> Iterator[Step | str]:
    yield Step(bpf.IMM, MAGIC)
    yield Step(bpf.LD, bpf.MARK)
    yield from _decide(bpf.JSET, PASSED, _PASS)
    if egress.mark is not None:
        yield from _decide(bpf.JEQ, egress.mark, _PASS)
    yield Step(bpf.LDH, bpf.PROTOCOL)
    for version, number in ((4, _IP4), (6, _IP6)):
        yield Step(bpf.JEQ, number, other=f"not {version}")
        yield Step(bpf.JUMP, then=f"ip{version}")
        yield f"not {version}"
    yield Step(bpf.RET, _PASS)
    for version, transport in ((4, _transport4), (6, _transport6)):
        yield f"ip{version}"
        yield from transport()
        yield from _answers(ports, version)
        yield from _destinations(egress, version)


def _decide(code: int, k: int, verdict: int) -> Iterator[Step]:
    """Return `verdict` where the comparison is true."""
    yield Step(code, k, other=1)
    yield Step(bpf.RET, verdict)


def _transport4() -> Iterator[Step | str]:
    """Set X to the length of the IP header. For other protocols and for later fragments of TCP, the program ends here."""
    yield Step(bpf.LDB, bpf.NET + 9)
    yield Step(bpf.JEQ, _TCP, then="tcp4")
    yield Step(bpf.RET, _PASS)
    yield "tcp4"
    yield Step(bpf.LDH, bpf.NET + 6)
    yield from _decide(bpf.JSET, 0x1FFF, _DROP)
    yield Step(bpf.LDB, bpf.NET)
    yield Step(bpf.AND, 0x0F)
    yield Step(bpf.LSH, 2)
    yield Step(bpf.TAX)


def _transport6() -> Iterator[Step | str]:
    """Set X to the length of the IPv6 header and its extension headers, as `_transport4` does."""
    yield Step(bpf.IMM_X, 40)
    yield Step(bpf.LDB, bpf.NET + 6)
    for depth in range(_DEPTH):
        yield Step(bpf.JEQ, _TCP, then="tcp6")
        yield Step(bpf.JEQ, _FRAGMENT, then=f"fragment {depth}")
        for number in _EXTENSIONS:
            yield Step(bpf.JEQ, number, then=f"extension {depth}")
        yield Step(bpf.RET, _PASS)
        yield f"fragment {depth}"
        yield Step(bpf.LDH_X, bpf.NET + 2)
        yield Step(bpf.JSET, 0xFFF8, other=f"first {depth}")
        yield Step(bpf.LDB_X, bpf.NET)
        yield Step(bpf.JEQ, _TCP, then="drop")
        yield Step(bpf.RET, _PASS)
        yield f"first {depth}"
        yield Step(bpf.LDB_X, bpf.NET)
        yield Step(bpf.STORE, _NEXT)
        yield Step(bpf.IMM, 8)
        yield Step(bpf.JUMP, then=f"next {depth}")
        yield f"extension {depth}"
        yield Step(bpf.LDB_X, bpf.NET)
        yield Step(bpf.STORE, _NEXT)
        yield Step(bpf.LDB_X, bpf.NET + 1)
        yield Step(bpf.ADD, 1)
        yield Step(bpf.LSH, 3)
        yield f"next {depth}"
        yield Step(bpf.ADD_X)
        yield Step(bpf.TAX)
        yield Step(bpf.LOAD, _NEXT)
    yield Step(bpf.JEQ, _TCP, then="tcp6")
    for number in (*_EXTENSIONS, _FRAGMENT):
        yield Step(bpf.JEQ, number, then="drop")
    yield Step(bpf.RET, _PASS)
    yield "drop"
    yield Step(bpf.RET, _DROP)
    yield "tcp6"


def _answers(ports: Sequence[int], version: int) -> Iterator[Step | str]:
    """Admit packets from the ports of servers, except a SYN without ACK."""
    if not ports:
        return
    end = f"no server {version}"
    yield Step(bpf.LDB_X, bpf.NET + 13)
    yield Step(bpf.AND, _SYN_OR_ACK)
    yield Step(bpf.JEQ, _SYN, other=f"answer {version}")
    yield Step(bpf.JUMP, then=end)
    yield f"answer {version}"
    yield Step(bpf.LDH_X, bpf.NET)
    for port in ports:
        yield from _decide(bpf.JEQ, port, _PASS)
    yield end


def _destinations(egress: Egress, version: int) -> Iterator[Step | str]:
    yield Step(bpf.LDH_X, bpf.NET + 2)
    yield Step(bpf.STORE, _PORT)
    for verdict, patterns in ((_PASS, egress.admitted), (_DROP, egress.captured or ())):
        for number, pattern in enumerate(patterns):
            yield from _destination(pattern, version, verdict, f"after {version} {verdict} {number}")
    yield Step(bpf.RET, _DROP if egress.captured is None else _PASS)


def _destination(pattern: Pattern, version: int, verdict: int, other: str) -> Iterator[Step | str]:
    """Return `verdict` where the pattern covers the destination; otherwise go on at the label `other`."""
    network = pattern.network
    if network is not None:
        if network.version != version:
            return
        words = network.max_prefixlen // 32
        for word in range(words):
            shift = 32 * (words - 1 - word)
            mask = int(network.netmask) >> shift & 0xFFFFFFFF
            if mask:
                yield Step(bpf.LD, bpf.NET + (16 if version == 4 else 24) + 4 * word)
                yield Step(bpf.AND, mask)
                yield Step(bpf.JEQ, int(network.network_address) >> shift & 0xFFFFFFFF, other=other)
    if not pattern.every_port:
        yield Step(bpf.LOAD, _PORT)
        yield Step(bpf.JGE, pattern.first, other=other)
        yield Step(bpf.JGT, pattern.last, then=other)
    yield Step(bpf.RET, verdict)
    yield other
