"""All fuzzers."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

FOLDER: Final = Path(__file__).resolve().parents[1]
PROJECT: Final = FOLDER.parent
BUILD: Final = PROJECT / "build" / "fuzz"
"""Programs, grown corpora and findings; not in the repository."""


@dataclass(frozen=True, slots=True)
class Fuzzer:
    """One fuzzer.

    Attributes:
        name: its name on the command line, of its corpus, and of its module in `harnesses/` where it is written in Python.
        what: the code that it runs.
        in_c: whether it is a program of libFuzzer.
        longest: most bytes of an input.
    """

    name: str
    what: str
    in_c: bool = False
    longest: int = 512

    @property
    def seeds(self) -> Path:
        """The file with its seeds."""
        return FOLDER / "corpus" / f"{self.name}.txt"


FUZZERS: Final = (
    Fuzzer("kernel", "kernel/: relay, frames, sealing, turns, deadlines", in_c=True, longest=300),
    Fuzzer("sockets", "kernel/sock_*.c: what a socket of the protocol receives", in_c=True, longest=300),
    Fuzzer("lane", "stcp_proxy/relay/lane/: the fast path of the engine", in_c=True, longest=300),
    Fuzzer("sessions", "whole connections on both engines, with an oracle"),
    Fuzzer("handshake", "handshakes of every suite, both roles", longest=1500),
    Fuzzer("frames", "frames of a kept wire leg"),
    Fuzzer("opening", "contents of OPEN, ACCEPT, RESET and REJECT"),
    Fuzzer("credential", "credentials and certificates of suite 5", longest=1024),
    Fuzzer("proxy_header", "PROXY headers, both versions and ways"),
    Fuzzer("configuration", "a configuration file through the whole plan", longest=2048),
    Fuzzer("admin", "requests to the admin address", longest=1024),
    Fuzzer("reload", "sequences of reloads on live listening sockets"),
)


def named(name: str) -> Fuzzer:
    """The fuzzer with this name. Raises KeyError."""
    return {fuzzer.name: fuzzer for fuzzer in FUZZERS}[name]
