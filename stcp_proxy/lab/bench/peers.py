"""The tunnels in the comparison: this project, its variants, and the tunnels of other projects."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Final

from stcp_proxy.errors import ConfigError
from stcp_proxy.lab.bench.other_tunnels import OTHERS, in_root
from stcp_proxy.lab.bench.peer import Commands, Peer, Place, Role, available_ulps
from stcp_proxy.lab.bench.rows import OPENING, Kind
from stcp_proxy.lab.loadgen import LabError

PRODUCT: Final = (sys.executable, "-P", "-m", "stcp_proxy")  # the installed package, never a checkout in the current folder


def product(
    name: str,
    title: str,
    *,
    engine: str,
    command: Sequence[str] = PRODUCT,
    options: Sequence[str] = (),
    kinds: frozenset[Kind] | None = None,
) -> Peer:
    """This project as a peer, driven through its command line.

    Args:
        name: its name for `--peers`.
        title: its name in tables.
        engine: the value of `--engine`.
        command: the start command, so that a different checkout can be measured beside this one.
        options: further options for both sides.
        kinds: the kinds of rows that it is measured in. [default: all]
    """

    def set_up(place: Place) -> Commands:
        public = {}
        for side in ("listen", "connect"):
            key = place.folder / f"{name}-{side}.key"
            done = subprocess.run(
                [*command, "keygen", "--out", str(key)], capture_output=True, text=True, check=False, timeout=60
            )
            words = [word for word in done.stdout.split() if word.startswith("stcp-pub:")]
            if done.returncode or not words:
                raise LabError(f"keygen failed: {(done.stderr or done.stdout).strip()}")
            public[side] = words[0]
        common = ["--engine", engine, "--log-level", "warning", *options]
        here = {side: ["--key", str(place.folder / f"{name}-{side}.key")] for side in public}
        wire, dial, entry, target = (f"127.0.0.1:{port}" for port in (place.wire, place.dial, place.entry, place.target))
        return {
            "listen": [
                *command,
                "listen",
                "--bind",
                wire,
                "--to",
                target,
                *here["listen"],
                "--allow",
                public["connect"],
                *common,
            ],
            "connect": [
                *command,
                "connect",
                "--bind",
                entry,
                "--to",
                dial,
                *here["connect"],
                "--peer",
                public["listen"],
                *common,
            ],
        }

    def missing() -> str | None:
        if engine == "kernel" and "stcp" not in available_ulps():
            return "the kernel module stcp is not loaded"
        return None

    return Peer(name, title, Role.OURS, missing, set_up, _product_version(command), kinds=kinds)


def _product_version(command: Sequence[str]) -> Callable[[], str]:
    def version() -> str:
        done = subprocess.run([*command, "--version"], capture_output=True, text=True, check=False, timeout=60)
        return done.stdout.strip() if not done.returncode else ""

    return version


def _from_here(words: Sequence[str]) -> tuple[str, ...]:
    """Make a command valid in every folder, because each pair runs in its own folder. Links are kept: the python of a virtual
    environment is a link."""
    program = shutil.which(words[0])
    if program is None:
        raise ConfigError(f"the program {words[0]!r} does not exist", remedy="install the program, or write its path")
    return tuple(os.path.abspath(word) if "/" in word and Path(word).exists() else word for word in (program, *words[1:]))


def variants(specifications: Iterable[str]) -> tuple[Peer, ...]:
    """Further pairs of this project: `NAME=OPTIONS` with options for both sides, for example `w2=--workers 2`.

    OPTIONS may begin with a command instead of an option, so that two checkouts can be measured side by side:
    `old=/path/to/python -m stcp_proxy`. Its paths are relative to the folder in which the benchmark was started.

    Raises:
        ConfigError: the specification is empty, its name is in use, or its program is missing.
    """
    made: list[Peer] = []
    for specification in specifications:
        name, equals, text = specification.partition("=")
        words = shlex.split(text)
        if not equals or not name or not words:
            raise ConfigError(f"{specification!r} is not a variant", remedy="write NAME=OPTIONS or NAME=COMMAND OPTIONS")
        if name in {peer.name for peer in (*OURS, FRESH, *OTHERS, *made)}:
            raise ConfigError(f"a pair is called {name!r} already", remedy="choose another name for the variant")
        split = next((i for i, word in enumerate(words) if word.startswith("--")), len(words))
        command = _from_here(words[:split]) if split else PRODUCT
        made.append(product(name, f"stcp {name}", engine="python", command=command, options=words[split:]))
    return tuple(made)


def of_roots(specifications: Iterable[str]) -> tuple[Peer, ...]:
    """The TLS peers of other root file systems: `TAG=FOLDER`, for example `13=/srv/trixie` for `haproxy-13` and the others.

    Raises:
        ConfigError: a specification has no tag, or no absolute path of a root file system.
    """
    made: list[Peer] = []
    for specification in specifications:
        tag, _, folder = specification.partition("=")
        if not tag or not Path(folder).is_absolute() or not (Path(folder) / "tmp").is_dir():
            raise ConfigError(
                f"{specification!r} does not name a root file system", remedy="write TAG=FOLDER, with an absolute path"
            )
        made += in_root(tag, Path(folder))
    return tuple(made)


OURS: Final = (
    product("stcp", "stcp (user space)", engine="python"),
    product("stcp-kernel", "stcp (kernel)", engine="kernel"),
)
FRESH: Final = product(
    "stcp-fresh", "stcp, each connection with a handshake", engine="python", options=("--keep", "off"), kinds=OPENING
)
"""This project without kept wire legs."""


def choose(names: Iterable[str], extra: Sequence[Peer] = ()) -> tuple[Peer, ...]:
    """Peers by name, in the order of the tables. Without names: all peers except those on request. Extra variants are always
    included.

    Raises:
        ConfigError: a name matches no peer.
    """
    wanted, known = set(names), (*OURS, FRESH, *extra, *OTHERS)
    if unknown := wanted - {peer.name for peer in known}:
        raise ConfigError(
            f"no peer is called {sorted(unknown)[0]!r}", remedy=f"choose from {', '.join(peer.name for peer in known)}"
        )
    return tuple(peer for peer in known if peer in extra or (peer.name in wanted if wanted else not peer.on_request))
