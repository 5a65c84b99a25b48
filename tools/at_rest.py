"""Memory of a proxy at rest, and the time of its start: `.venv/bin/python tools/at_rest.py`.

Each round starts a proxy with one tunnel, waits for its log line `listening`, and reads its memory after a second of rest. The
figures are medians. With `--against FOLDER` a second version of the package, FOLDER/stcp_proxy, is measured in turns with this
one, so that other work on the machine disturbs both alike. The line `floor` is a process of the same interpreter that imports
Trio and the ciphers of `cryptography`, and nothing else.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from typing import Final

HERE: Final = Path(__file__).resolve().parents[1]
FLOOR: Final = (
    "import cryptography.hazmat.primitives.ciphers.aead, sys, trio\n"
    "print('listening', file=sys.stderr, flush=True)\n"
    "sys.stdin.read()\n"
)
PATIENCE: Final = 60.0
MIB: Final = 1024
"""KiB."""


def environment(package: Path) -> dict[str, str]:
    """The environment of a process that imports the package of a folder, compiled once as an installed package is."""
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    return {**kept, "PYTHONPATH": str(package)}


def keygen(path: Path) -> str:
    """Make a key. Returns its public key. This process imports no library of the proxy: memory that both share is not private."""
    command = [sys.executable, "-m", "stcp_proxy", "keygen", "--out", str(path)]
    return subprocess.run(command, env=environment(HERE), capture_output=True, text=True, check=True).stdout.strip()


def configurations(folder: Path) -> dict[str, str]:
    """Write the files of a proxy without and with an admin address. Returns their paths."""
    keygen(folder / "key")
    tunnel = f'tunnels: {{a: {{mode: listen, bind: "127.0.0.1:0", to: "127.0.0.1:9", allow: "{keygen(folder / "peer")}"}}}}\n'
    found = {}
    for name, admin in (("plain", ""), ("admin", 'admin: "127.0.0.1:0"\n')):
        file = folder / f"{name}.yaml"
        file.write_text(f"identity: key\n{admin}{tunnel}")
        found[name] = str(file)
    return found


def memory(pid: int) -> dict[str, int]:
    """Memory of a process in KiB, by the names of /proc/PID/smaps_rollup."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]
    return {line.split(":")[0]: int(line.split()[1]) for line in lines}


def measure(arguments: list[str], package: Path, rest: float) -> dict[str, float]:
    """Start a process, and measure it once it has said `listening`."""
    before, began = os.times(), time.monotonic()
    with subprocess.Popen(
        [sys.executable, "-P", *arguments],
        env=environment(package),
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    ) as child:
        assert child.stderr is not None
        said = []
        for line in child.stderr:
            said.append(line)
            if "listening" in line:
                break
        else:
            sys.exit(f"the process ended:\n{''.join(said)}")
        took = time.monotonic() - began
        time.sleep(rest)
        found = memory(child.pid)
        child.terminate()
        child.communicate(timeout=PATIENCE)
    after = os.times()
    return {
        "resident": found["Rss"] / MIB,
        "private": (found["Private_Dirty"] + found["Private_Clean"]) / MIB,
        "private, written": found["Private_Dirty"] / MIB,
        "s to listening": took,
        "s of processor": sum(after[2:4]) - sum(before[2:4]),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--rest", type=float, default=1.0, help="seconds between `listening` and the look at the memory")
    parser.add_argument("--against", type=Path, help="a folder with another version of the package")
    arguments = parser.parse_args()
    packages = {"this": HERE} | ({} if arguments.against is None else {"other": arguments.against.resolve()})
    found: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    with tempfile.TemporaryDirectory() as folder:
        files = configurations(Path(folder))
        kinds = {"floor": (["-c", FLOOR], HERE)}
        for name, file in files.items():
            kinds |= {f"{version}, {name}": (["-m", "stcp_proxy", "run", file], at) for version, at in packages.items()}
        for number in range(arguments.rounds + 1):
            for kind, (program, package) in kinds.items():
                one = measure(program, package, arguments.rest)
                if number:  # the first round fills caches
                    for what, value in one.items():
                        found[kind][what].append(value)
    names = list(found["floor"])
    print(f"{'MiB, medians':16}", *(f"{name:>17}" for name in names))
    for kind, values in found.items():
        print(f"{kind:16}", *(f"{statistics.median(values[name]):17.3f}" for name in names))


if __name__ == "__main__":
    main()
