"""Classic BPF: instructions, jumps by label, and the text that `tc` reads (linux/filter.h)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

NET: Final = 0xFFF00000
"""SKF_NET_OFF: offsets from here on are relative to the network header."""
MARK: Final = 0xFFFFF014
"""SKF_AD_OFF + SKF_AD_MARK: the mark of the packet."""
PROTOCOL: Final = 0xFFFFF000
"""SKF_AD_OFF + SKF_AD_PROTOCOL: the EtherType of the packet."""

LD, LDH, LDB = 0x20, 0x28, 0x30
"""Load 4, 2 or 1 bytes into A."""
LDH_X, LDB_X = 0x48, 0x50
"""Load 2 bytes or 1 byte at X + k into A."""
IMM, IMM_X, LOAD, STORE, TAX = 0x00, 0x01, 0x60, 0x02, 0x07
"""A = k, X = k, A = cell k, cell k = A, X = A."""
AND, LSH, ADD, ADD_X = 0x54, 0x64, 0x04, 0x0C
"""A &= k, A <<= k, A += k, A += X."""
JUMP, JEQ, JGT, JGE, JSET, RET = 0x05, 0x15, 0x25, 0x35, 0x45, 0x06
"""Jump; compare A == k, A > k, A >= k, A & k; return k."""


class Instruction(NamedTuple):
    """One instruction (struct sock_filter).

    Attributes:
        code: the operation.
        jt, jf: how many instructions a comparison skips if it is true, and if it is false.
        k: the operand.
    """

    code: int
    jt: int
    jf: int
    k: int


class Step(NamedTuple):
    """One instruction whose jumps may name labels.

    Attributes:
        code: the operation.
        k: its operand.
        then, other: where a comparison goes on if it is true, and if it is false: a label, or a number of instructions to skip.
            `JUMP` goes to `then`.
    """

    code: int
    k: int = 0
    then: str | int = 0
    other: str | int = 0


def link(lines: Iterable[Step | str]) -> list[Instruction]:
    """Replace labels by offsets.

    Args:
        lines: steps, and texts that label the step after them.

    Raises:
        ValueError: a comparison jumps over more than 255 instructions, or a label is given twice.
    """
    steps: list[Step] = []
    labels: dict[str, int] = {}
    for line in lines:
        if not isinstance(line, str):
            steps.append(line)
        elif labels.setdefault(line, len(steps)) != len(steps):
            raise ValueError(f"the label '{line}' is given twice")

    def distance(at: int, to: str | int) -> int:
        return labels[to] - at - 1 if isinstance(to, str) else to

    found = []
    for at, (code, k, then, other) in enumerate(steps):
        if code == JUMP:
            found.append(Instruction(code, 0, 0, distance(at, then)))
            continue
        jumps = distance(at, then), distance(at, other)
        if max(jumps) > 255:
            raise ValueError(f"a comparison at {at} jumps too far")
        found.append(Instruction(code, *jumps, k))
    return found


def text_of(program: Sequence[Instruction]) -> str:
    """A program in the syntax of `tc` (`bytecode-file`)."""
    return ",".join([str(len(program)), *(" ".join(map(str, each)) for each in program)])
