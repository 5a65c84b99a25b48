"""Builds the fuzzers in C.

With clang they are programs of libFuzzer under the address and undefined-behaviour sanitizers. With gcc the same harnesses run
the files that they are given (c/replay.c): the ordinary tests do that, on machines without clang.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Final

from stcp_fuzz.table import BUILD, FOLDER, PROJECT

HARNESSES: Final = FOLDER / "c"
KERNEL: Final = PROJECT / "kernel"
LANE: Final = PROJECT / "stcp_proxy" / "relay" / "lane"
KERNEL_FILES: Final = [
    "buffer",
    "cipher",
    "transfer",
    "open",
    "seal",
    "lock",
    "send",
    "io",
    "look",
    "hook",
    "pump",
    "relay",
    "handover",
    "keep",
    "clock",
]
"""Files of the module's relay that run in user space. leg.c, sockopt.c, owner.c, stat.c and main.c are the socket layer's."""
SOCKET_FILES: Final = ["sock_recv", "sock_session", "sock_stream", "sock_text"]
"""Files of the module's sockets that run in user space, beside those of the relay."""
KERNEL_HEADERS: Final = [
    "linux/bvec.h",
    "linux/completion.h",
    "linux/cpumask.h",
    "linux/err.h",
    "linux/file.h",
    "linux/list.h",
    "linux/memcontrol.h",
    "linux/mm.h",
    "linux/net.h",
    "linux/scatterlist.h",
    "linux/sched.h",
    "linux/sched/mm.h",
    "linux/skbuff.h",
    "linux/slab.h",
    "linux/spinlock.h",
    "linux/types.h",
    "linux/workqueue.h",
    "crypto/aead.h",
    "net/net_namespace.h",
    "net/sock.h",
    "net/tcp.h",
]
SOCKET_HEADERS: Final = [
    "linux/cred.h",
    "linux/ipv6.h",
    "linux/sched/signal.h",
    "linux/timer.h",
    "linux/uio.h",
    "net/inet_sock.h",
]
RENAMED: Final = ("recv", "send", "epoll_wait", "sched_yield", "clock_gettime")
"""System calls of the fast path that the harness replaces."""
SANITIZERS: Final = "address,undefined"
COMMON: Final = ("-g", "-fno-sanitize-recover=all", "-fno-omit-frame-pointer", "-Wall")


class CannotBuild(Exception):
    """A compiler or a library is missing. The text says which, and what to install."""


class CompilerFailed(Exception):
    """The harness does not fit the code any more, or the compiler's libraries are incomplete. The text is the compiler's."""


def build(name: str, *, libfuzzer: bool) -> Path:
    """Build one fuzzer, and return the program.

    Args:
        name: `kernel`, `sockets` or `lane`.
        libfuzzer: with libFuzzer (clang), or as a program that runs files (gcc).

    Raises:
        CannotBuild: what is missing.
        CompilerFailed: with the compiler's messages.
    """
    compiler = "clang" if libfuzzer else "gcc"
    if shutil.which(compiler) is None:
        raise CannotBuild(f"{compiler} is missing: apt install {'clang libclang-rt-14-dev' if libfuzzer else 'gcc'}")
    work = BUILD / (name if libfuzzer else f"{name}-replay")
    work.mkdir(parents=True, exist_ok=True)
    program = work / name
    flags = [compiler, *COMMON, "-O2" if libfuzzer else "-O1"]
    # Comparisons are not traced: the harnesses read their inputs as decisions, so there is no constant to find. Tracing takes
    # most of the time.
    main = (
        [f"-fsanitize=fuzzer,{SANITIZERS}", "-fno-sanitize-coverage=trace-cmp,indirect-calls"]
        if libfuzzer
        else [f"-fsanitize={SANITIZERS}"]
    )
    part = [main[0].replace("fuzzer,", "fuzzer-no-link,"), *main[1:]]
    more = [] if libfuzzer else [str(HARNESSES / "replay.c")]
    if name != "lane":
        _compile([*flags, *main, *_kernel(work, sockets=name == "sockets"), *more, "-o", str(program)])
    else:
        objects = _lane_objects(work, [*flags, *part])
        _compile(
            [
                *flags,
                *main,
                *_python(),
                *map(str, sorted(HARNESSES.glob("lane*.c"))),
                *more,
                *objects,
                *_python_library(),
                "-o",
                str(program),
            ]
        )
    return program


def _kernel(work: Path, *, sockets: bool) -> list[str]:
    include = work / "include"
    for headers, stand_in in ((KERNEL_HEADERS, "kernel_stand_in.h"), (SOCKET_HEADERS, "kernel_stand_in_sock.h")):
        for header in headers:
            file = include / header
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(f'#include "{stand_in}"\n')
    harness = [*sorted(HARNESSES.glob("kernel_*.c")), HARNESSES / ("sockets.c" if sockets else "kernel.c")]
    sources = [*harness, *(KERNEL / f"{name}.c" for name in [*KERNEL_FILES, *(SOCKET_FILES if sockets else [])])]
    return [f"-I{include}", f"-I{HARNESSES}", f"-I{KERNEL}", "-Wno-pointer-arith", *map(str, sources)]


def _lane_objects(work: Path, flags: list[str]) -> list[str]:
    renamed = [f"-D{name}=fuzz_{name}" for name in RENAMED]
    objects = []
    for source in sorted(LANE.glob("*.c")):
        target = str(work / f"{source.stem}.o")
        _compile([*flags, *_python(), *renamed, "-c", str(source), "-o", target])
        objects.append(target)
    return objects


def _python() -> list[str]:
    return [f"-I{sysconfig.get_path('include')}", f'-DPYTHON_HOME="{sys.base_prefix}"']


def _python_library() -> list[str]:
    folder, name = sysconfig.get_config_var("LIBDIR"), f"python{sysconfig.get_config_var('LDVERSION')}"
    if not (Path(folder) / f"lib{name}.so").exists() and not (Path(folder) / "x86_64-linux-gnu" / f"lib{name}.so").exists():
        raise CannotBuild(f"lib{name} is missing, which the harness of the fast path embeds: apt install libpython3-dev")
    return [f"-L{folder}", f"-Wl,-rpath,{folder}", f"-l{name}", "-lm"]


def _compile(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise CompilerFailed(f"{' '.join(command)}\n{done.stderr}")
