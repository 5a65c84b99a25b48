"""Two hosts and the wire between them, as network namespaces; root only.

    client host  ── veth ──  bridge (the wire: watched, cut, mended)  ── veth ──  server host

The network of the machine itself is not changed. The name of a namespace contains the id of the process that made it. Namespaces
are deleted by these names, and the next run deletes the remains of a killed run.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import ctypes
import os
import re
import shutil
import socket
import subprocess
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TypeVar

import pytest

from harness import forked
from harness.forked import Place
from harness.sockets import TIMEOUT
from harness.software import require
from harness.watch import Watch

_T = TypeVar("_T")
_CLONE_NEWNET = 0x40000000
_RUN = Path("/run/netns")
_ETC = Path("/etc/netns")
_OURS = re.compile(r"stcp-([0-9]+)-[a-z]+")
_libc = ctypes.CDLL(None, use_errno=True)

USER = 41337
"""The user id of a proxy without root. No account with this id is needed."""


def require_root() -> None:
    """Skip the test when it has no permission to make namespaces."""
    if os.geteuid() != 0:
        pytest.skip("network namespaces need root")
    require("ip", "nft", "setpriv")


def as_user(uid: int = USER) -> tuple[str, ...]:
    """A command prefix that runs a command as `uid`, without network capabilities. It can still read files of root, such as the
    tree."""
    files = "-all,+dac_override"
    drop = ("--clear-groups", "--inh-caps", files, "--ambient-caps", files, "--bounding-set", files)
    return ("setpriv", "--reuid", str(uid), "--regid", str(uid), *drop)


class Host:
    """One namespace with an interface `eth0`.

    Args:
        role: a word for the host's name.
        ip4, ip6: the addresses of eth0.
    """

    def __init__(self, role: str, ip4: str = "", ip6: str = "") -> None:
        self.namespace = f"stcp-{os.getpid()}-{role}"
        self.ip4, self.ip6 = ip4, ip6
        self.prefix = ("ip", "netns", "exec", self.namespace)
        _ip("netns", "add", self.namespace)
        self.names({})
        self._resident = subprocess.Popen(
            [*self.prefix, "sh", "-c", "echo here; read line"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        assert self._resident.stdout is not None
        assert self._resident.stdout.readline() == b"here\n"

    def names(self, names: Mapping[str, str]) -> None:
        """Set the names that programs on this host can resolve from their next look-up on. The host has no other resolver."""
        folder = _ETC / self.namespace
        folder.mkdir(parents=True, exist_ok=True)
        lines = ["127.0.0.1 localhost", "::1 localhost", *(f"{ip} {name}" for name, ip in names.items())]
        (folder / "hosts").write_text("\n".join(lines) + "\n")  # in place, because running programs have this very file mounted
        (folder / "resolv.conf").write_text("nameserver 127.0.0.1\noptions timeout:1 attempts:1\n")

    def run(self, *command: str, stdin: str = "", timeout: float = 60, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run a program on this host to its end."""
        done = subprocess.run([*self.prefix, *command], input=stdin, capture_output=True, text=True, timeout=timeout)
        assert not check or done.returncode == 0, f"{' '.join(command)}: status {done.returncode}\n{done.stdout}{done.stderr}"
        return done

    def place(self, user: int | None = None) -> Place:
        """This host, as root or as a user without privileges: for `harness.proxies.Proxy` and `harness.forked.run`."""
        prefix = self.prefix if user is None else (*self.prefix, *as_user(user))
        return Place(prefix, namespaces=self._resident.pid, user=user)

    def product(self, *arguments: str, user: int | None = None, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run a command of the product on this host to its end."""
        done = forked.run(*arguments, place=self.place(user))
        assert not check or done.returncode == 0, f"{' '.join(arguments)}: status {done.returncode}\n{done.stdout}{done.stderr}"
        return done

    def do(self, work: Callable[[], _T]) -> _T:
        """Call `work` in a thread of this host. Sockets from it belong to this host, also when other threads use them."""

        def enter() -> _T:
            with open(_RUN / self.namespace) as namespace:
                if _libc.setns(namespace.fileno(), _CLONE_NEWNET):
                    raise OSError(ctypes.get_errno(), "setns")
            return work()

        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            return pool.submit(enter).result()

    def listener(self, host: str, port: int = 0) -> socket.socket:
        """A socket bound on this host, for `harness.sockets.Target`."""

        def bind() -> socket.socket:
            sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind((host, port))
            return sock

        return self.do(bind)

    def connect(self, host: str, port: int, *, timeout: float = TIMEOUT) -> socket.socket:
        """A connection from this host."""
        return self.do(lambda: socket.create_connection((host, port), timeout=timeout))

    def remove(self) -> None:
        self._resident.communicate()  # it ends with its input
        _ip("netns", "delete", self.namespace)
        shutil.rmtree(_ETC / self.namespace, ignore_errors=True)


class Net:
    """A client host, a server host, and the wire between them; a context manager.

    Attributes:
        client, server: the hosts.
        middle: the host of the wire. It has no address.
    """

    def __init__(self) -> None:
        _remove_left_over()
        self._hosts: list[Host] = []
        try:
            self.client = self._add(Host("client", "10.77.0.1", "fd77::1"))
            self.server = self._add(Host("server", "10.77.0.2", "fd77::2"))
            self.middle = self._add(Host("wire"))
            self._join()
        except BaseException:
            self.remove()
            raise

    def _add(self, host: Host) -> Host:
        self._hosts.append(host)
        return host

    def _join(self) -> None:
        middle = self.middle.namespace
        _ip("-n", middle, "link", "add", "bridge", "type", "bridge", "stp_state", "0", "forward_delay", "0")
        _ip("-n", middle, "link", "set", "bridge", "up")
        for host, end in ((self.client, "to-client"), (self.server, "to-server")):
            _ip("link", "add", end, "netns", middle, "type", "veth", "peer", "name", "eth0", "netns", host.namespace)
            _ip("-n", middle, "link", "set", end, "master", "bridge", "up")
            _ip("-n", host.namespace, "link", "set", "lo", "up")
            _ip("-n", host.namespace, "address", "add", f"{host.ip4}/24", "dev", "eth0")
            _ip("-n", host.namespace, "address", "add", f"{host.ip6}/64", "dev", "eth0", "nodad")
            _ip("-n", host.namespace, "link", "set", "eth0", "up")
            # Every address is routed to the wire, so the watcher sees each packet that no rule keeps back.
            other = self.server if host is self.client else self.client
            _ip("-n", host.namespace, "route", "add", "default", "via", other.ip4)
            _ip("-n", host.namespace, "-6", "route", "add", "default", "via", other.ip6)

    @contextlib.contextmanager
    def watch(self) -> Iterator[Watch]:
        """Record everything on the wire until the end of the block."""
        watch = Watch(self.middle.do(lambda: Watch.open("to-client")))
        try:
            yield watch
        finally:
            watch.stop()

    def cut(self) -> None:
        """Cut the wire: both hosts keep their addresses, but no packet arrives."""
        _ip("-n", self.middle.namespace, "link", "set", "to-client", "down")

    def mend(self) -> None:
        """Restore the wire."""
        _ip("-n", self.middle.namespace, "link", "set", "to-client", "up")

    def remove(self) -> None:
        for host in self._hosts:
            with contextlib.suppress(AssertionError):
                host.remove()

    def __enter__(self) -> Net:
        return self

    def __exit__(self, *exc: object) -> None:
        self.remove()


def _ip(*arguments: str) -> None:
    done = subprocess.run(["ip", *arguments], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=30)
    assert done.returncode == 0, f"ip {' '.join(arguments)}: {done.stderr}"


def _remove_left_over() -> None:
    """Delete the namespaces of processes that have ended."""
    for folder in (_RUN, _ETC):
        for path in folder.glob("stcp-*"):
            match = _OURS.fullmatch(path.name)
            if match and not os.path.exists(f"/proc/{match[1]}"):
                subprocess.run(["ip", "netns", "delete", path.name], capture_output=True, timeout=30)
                shutil.rmtree(_ETC / path.name, ignore_errors=True)
