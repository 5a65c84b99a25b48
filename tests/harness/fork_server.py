"""A process that has imported the product, and forks a child for each command of it; run as a script by ``forked``.

A new interpreter spends most of a second of processor time on imports until it serves, and the tests start many proxies. A child
of this process does what `python -m stcp_proxy` does after its imports. Arguments, environment, folder, streams, signals and
the limit of descriptors are those of a new program.

A request is one packet: JSON and three descriptors for the standard streams. The answer is the process id. The child's parent is
the process that asked, as if it had started the child itself: an intermediate process forks the child and ends at once, and
the asking process is the subreaper meanwhile (prctl(2)).
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import gc
import importlib
import json
import os
import pkgutil
import resource
import runpy
import signal
import socket
import struct
import sys
import time
from pathlib import Path
from typing import Any, NoReturn

import forked_reader

REQUEST_SIZE = 1 << 20
_CLONE_NEWNS, _CLONE_NEWNET = 0x20000, 0x40000000
_CAP_DAC_OVERRIDE = 1
_LINUX_CAPABILITY_VERSION_3 = 0x20080522
_PR_SET_DUMPABLE, _PR_SET_KEEPCAPS, _PR_CAPBSET_DROP, _PR_CAP_AMBIENT, _PR_CAP_AMBIENT_RAISE = 4, 8, 24, 47, 2
_libc = ctypes.CDLL(None, use_errno=True)
_status: int | None = None
"""The exit status, in a child that ends."""
_APART = ("stcp_proxy.__main__", "stcp_proxy.lab", "stcp_proxy.demo")
"""Modules that are not imported beforehand: the program itself, and what needs libraries that a proxy never imports."""


def load() -> None:
    """Import the product, structlog first as a proxy does."""
    import typer

    import stcp_proxy
    from stcp_proxy.cli import start

    start.load()
    for module in pkgutil.walk_packages(stcp_proxy.__path__, "stcp_proxy.", onerror=lambda name: None):
        if not module.name.startswith(_APART):
            importlib.import_module(module.name)
    for name in ("hypercorn.trio", "starlette.applications", "cryptography.x509", "dns.asyncresolver", "yaml"):
        importlib.import_module(name)
    forked_reader.install()
    typer.main.get_command(importlib.import_module("stcp_proxy.cli.commands").app)  # fills caches of `typing`


def serve(requests: socket.socket) -> dict[str, Any] | None:
    """Answer requests. Returns None after the last one, and in each child the request that it has to fulfil."""
    while True:
        packet, streams, _, _ = socket.recv_fds(requests, REQUEST_SIZE, 3)
        if not packet:
            return None
        answer, tell = os.pipe()
        intermediate = os.fork()
        if intermediate == 0:
            return _fork_again(requests, answer, tell, json.loads(packet), streams)
        os.close(tell)
        for stream in streams:
            os.close(stream)
        pid = os.read(answer, 64)
        os.close(answer)
        os.waitpid(intermediate, 0)  # from now on the child belongs to the process that asked
        requests.send(pid)


def _fork_again(requests: socket.socket, answer: int, tell: int, request: dict[str, Any], streams: list[int]) -> dict[str, Any]:
    intermediate = os.getpid()
    child = os.fork()
    if child:
        os.write(tell, str(child).encode())
        os._exit(0)
    requests.close()
    os.close(answer)
    os.close(tell)
    while os.getppid() == intermediate:
        time.sleep(0.0005)
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
    os.closerange(3, os.sysconf("SC_OPEN_MAX"))
    return request


def _become(request: dict[str, Any]) -> NoReturn:
    """Run the product in this process with the arguments of a request, up to its exit."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    resource.setrlimit(resource.RLIMIT_NOFILE, request["descriptors"])
    if request["namespaces"] is not None:
        _join(request["namespaces"])
    os.chdir(request["folder"])
    if request["user"] is not None:
        _become_user(request["user"])
    sys.path[0] = request["folder"]
    os.environ.clear()
    os.environ.update(request["environment"])
    sys.argv[:] = ["stcp_proxy", *request["arguments"]]
    sys.orig_argv[:] = [sys.executable, "-m", "stcp_proxy", *request["arguments"]]
    global _status
    _status = 1
    try:
        runpy.run_module("stcp_proxy", run_name="__main__", alter_sys=True)
        _status = 0
    except SystemExit as exc:
        _status = exc.code if isinstance(exc.code, int) else 0 if exc.code is None else 1
        raise
    sys.exit()


def _join(pid: int) -> None:
    """Enter the network and the files of a host: the namespaces of a process there."""
    process = os.pidfd_open(pid)
    _checked(_libc.setns(process, _CLONE_NEWNET | _CLONE_NEWNS))
    os.close(process)


def _become_user(uid: int) -> None:
    """Have what `harness.hosts.as_user` leaves to a program: this user, and no capability but reading files of root."""
    for capability in range(int(Path("/proc/sys/kernel/cap_last_cap").read_text()) + 1):
        if capability != _CAP_DAC_OVERRIDE:
            _checked(_libc.prctl(_PR_CAPBSET_DROP, capability, 0, 0, 0))
    os.setgroups([])
    _checked(_libc.prctl(_PR_SET_KEEPCAPS, 1, 0, 0, 0))
    os.setregid(uid, uid)
    os.setreuid(uid, uid)
    capabilities = struct.pack("6I", *[1 << _CAP_DAC_OVERRIDE] * 3, 0, 0, 0)  # effective, permitted, inheritable; capset(2)
    _checked(_libc.capset(struct.pack("Ii", _LINUX_CAPABILITY_VERSION_3, 0), capabilities))
    _checked(_libc.prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_RAISE, _CAP_DAC_OVERRIDE, 0, 0))
    _checked(_libc.prctl(_PR_SET_DUMPABLE, 1, 0, 0, 0))


def _checked(result: int) -> None:
    if result:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def _end() -> None:
    """In a child, end here: all exit functions have run, and the interpreter would spend 40 ms on taking its modules apart."""
    if _status is not None:
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError):
                stream.flush()
        os._exit(_status)


def main() -> None:
    atexit.register(_end)  # exit functions run in reverse order
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C ends the test run, which closes the socket
    sys.path[0] = os.getcwd()  # as with `python -m`
    requests = socket.socket(fileno=int(sys.argv[1]))
    load()
    gc.collect()
    gc.freeze()
    requests.send(b"ready")
    request = serve(requests)
    if request is not None:
        _become(request)


if __name__ == "__main__":
    main()
