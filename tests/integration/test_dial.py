"""Dialling real sockets: order, failover, fair deadlines, and what a failure says.

The clock jumps whenever nothing moves, so a black hole costs no time; names come from a table.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing
from trio.testing import MockClock

from stcp_proxy.errors import OverLimit, TargetError, TargetRefused, TargetTimedOut, TargetUnreachable
from stcp_proxy.net import dial as dial_module
from stcp_proxy.net import socket_options
from stcp_proxy.net.address import Destination, TcpAddress, UnixAddress
from stcp_proxy.net.dial import Dialled
from stcp_proxy.net.socket_options import USER_TIMEOUT_MS, tune_accepted, tune_leg, tune_listener
from stcp_proxy.upstream.attempt import Attempt
from stcp_proxy.upstream.targets import Targets


class Names(trio.abc.HostnameResolver):
    """A resolver with a table; None stands for a server that never answers."""

    def __init__(self, table: dict[str, list[str] | None]) -> None:
        self.table = table
        self.asked: list[str] = []

    async def getaddrinfo(
        self,
        host: bytes | None,
        port: Any,
        family: int = 0,
        type: int = 0,  # noqa: A002
        proto: int = 0,
        flags: int = 0,
    ) -> list[Any]:
        name = host.decode() if host is not None else ""
        self.asked.append(name)
        if name not in self.table:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        found = self.table[name]
        if found is None:
            await trio.sleep_forever()
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in found or ()]

    async def getnameinfo(self, sockaddr: Any, flags: int) -> tuple[str, str]:
        raise NotImplementedError


def know(**table: list[str] | None) -> Names:
    """Install a resolver for this run; `_` in a name stands for a dot."""
    resolver = Names({name.replace("_", "."): found for name, found in table.items()})
    trio.socket.set_custom_hostname_resolver(resolver)
    return resolver


async def dial(to: Sequence[Destination], *, timeout: float) -> Dialled:
    """As a connection does whose first contact is good enough."""
    with Attempt(Targets(to, tunnel="tunnel"), timeout) as attempt:
        return await attempt.dial()


def listener(host: str = "127.0.0.1", port: int = 0, backlog: int = 5) -> socket.socket:
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.bind((host, port))
    sock.listen(backlog)
    return sock


@pytest.fixture
def server() -> Iterator[TcpAddress]:
    with listener() as sock:
        yield TcpAddress(*sock.getsockname())


@pytest.fixture
def refused() -> Iterator[TcpAddress]:
    """A port where nobody listens, bound so that nobody else gets it."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        yield TcpAddress(*sock.getsockname())


@contextmanager
def hole(host: str) -> Iterator[TcpAddress]:
    """A listener whose backlog is full: it drops every SYN."""
    with listener(host, backlog=0) as sock:
        clients = []
        for _ in range(4):
            client = socket.socket(type=socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
            client.connect_ex(sock.getsockname())
            clients.append(client)
        yield TcpAddress(*sock.getsockname())
        for client in clients:
            client.close()


@pytest.fixture
def black_holes() -> Iterator[list[TcpAddress]]:
    with ExitStack() as stack:
        yield [stack.enter_context(hole(f"127.0.0.{number}")) for number in (1, 2, 3)]


@pytest.fixture
def black_hole(black_holes: list[TcpAddress]) -> TcpAddress:
    return black_holes[0]


async def test_connected_socket_is_plain_and_non_blocking(server: TcpAddress) -> None:
    resolver = know()
    found = await dial([server], timeout=10)
    with found.sock:
        assert type(found.sock) is socket.socket
        assert not found.sock.getblocking()
        assert found.sock.getpeername() == (server.host, server.port)
        assert found.name == str(server)
    assert resolver.asked == []  # an IP address costs no resolver


async def test_localhost_is_loopback_without_a_resolver(server: TcpAddress) -> None:
    resolver = know()
    found = await dial([TcpAddress("localhost", server.port)], timeout=10)
    found.sock.close()
    assert found.name == str(server)
    assert resolver.asked == []


async def test_name_is_resolved_once_and_all_addresses_are_tried(server: TcpAddress) -> None:
    resolver = know(db_test=["127.0.0.9", "127.0.0.1"])
    target = TcpAddress("db.test", server.port)
    for _ in range(2):
        found = await dial([target], timeout=10)
        found.sock.close()
        assert found.name == str(server)
    assert resolver.asked == ["db.test"]


async def test_targets_are_tried_in_order(server: TcpAddress, refused: TcpAddress, tmp_path: Path) -> None:
    know(db_test=[])
    targets: list[Destination] = [UnixAddress(str(tmp_path / "no.sock")), TcpAddress("gone.test", 1), refused, server]
    found = await dial(targets, timeout=10)
    found.sock.close()
    assert found.name == str(server)


async def test_unix_socket(tmp_path: Path) -> None:
    path = str(tmp_path / "app.sock")
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(path)
        sock.listen()
        found = await dial([UnixAddress(path)], timeout=10)
        with found.sock:
            tune_leg(found.sock)
            assert found.name == f"unix:{path}"


# -- deadlines -------------------------------------------------------------------------------------------------------------


async def test_single_address_has_the_whole_deadline(black_hole: TcpAddress, autojump_clock: MockClock) -> None:
    start = trio.current_time()
    with pytest.raises(TargetTimedOut):
        await dial([black_hole], timeout=10)
    assert trio.current_time() - start == pytest.approx(10)


@pytest.mark.parametrize("holes", [1, 3])
async def test_black_hole_does_not_starve_the_next_target(
    server: TcpAddress, black_holes: list[TcpAddress], autojump_clock: MockClock, holes: int
) -> None:
    start = trio.current_time()
    found = await dial([*black_holes[:holes], server], timeout=10)
    found.sock.close()
    assert found.name == str(server)
    assert trio.current_time() - start == pytest.approx(10 * holes / (holes + 1))


async def test_early_failure_gives_its_time_to_the_rest(
    refused: TcpAddress, black_hole: TcpAddress, autojump_clock: MockClock
) -> None:
    start = trio.current_time()
    with pytest.raises(TargetTimedOut):
        await dial([refused, black_hole], timeout=10)
    assert trio.current_time() - start == pytest.approx(10)


async def test_silent_resolver_does_not_starve_the_next_target(server: TcpAddress, autojump_clock: MockClock) -> None:
    know(slow_test=None)
    start = trio.current_time()
    found = await dial([TcpAddress("slow.test", 1), server], timeout=10)
    found.sock.close()
    assert trio.current_time() - start == pytest.approx(5)


async def test_full_unix_backlog_is_waited_for(tmp_path: Path, autojump_clock: MockClock) -> None:
    path = str(tmp_path / "app.sock")
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(path)
        sock.listen(0)
        first = await dial([UnixAddress(path)], timeout=1)
        with pytest.raises(TargetTimedOut):
            await dial([UnixAddress(path)], timeout=1)

        async def make_room() -> None:
            await trio.sleep(0.5)
            sock.accept()[0].close()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(make_room)
            second = await dial([UnixAddress(path)], timeout=1)
        first.sock.close()
        second.sock.close()


async def test_cancelled_dial_closes_its_socket(black_hole: TcpAddress, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[socket.socket] = []
    real = dial_module._connect

    async def spy(sock: socket.socket, *rest: Any) -> int:
        made.append(sock)
        return await real(sock, *rest)

    monkeypatch.setattr(dial_module, "_connect", spy)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(partial(dial, [black_hole], timeout=10))
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    assert [sock.fileno() for sock in made] == [-1]


# -- failures --------------------------------------------------------------------------------------------------------------


async def test_refusal_names_every_attempt(refused: TcpAddress) -> None:
    know(db_test=["127.0.0.8", "127.0.0.9"])
    with pytest.raises(TargetRefused) as caught:
        await dial([refused, TcpAddress("db.test", refused.port)], timeout=10)
    for address in (str(refused), f"127.0.0.8:{refused.port}", f"127.0.0.9:{refused.port}"):
        assert f"{address}: connection refused" in str(caught.value)


@pytest.mark.parametrize(
    ("hosts", "kind", "says"),
    [
        (["unknown.test"], TargetUnreachable, "cannot resolve unknown.test: Name or service not known"),
        (["unknown.test", "127.0.0.9"], TargetRefused, "127.0.0.9"),
        (["slow.test", "127.0.0.9"], TargetTimedOut, "resolving slow.test took too long"),
    ],
)
async def test_kind_of_failure(
    refused: TcpAddress, autojump_clock: MockClock, hosts: list[str], kind: type[TargetError], says: str
) -> None:
    know(slow_test=None)
    with pytest.raises(TargetError) as caught:
        await dial([TcpAddress(host, refused.port) for host in hosts], timeout=10)
    assert type(caught.value) is kind
    assert says in str(caught.value)


async def test_missing_unix_socket_and_stale_one(tmp_path: Path) -> None:
    path = str(tmp_path / "app.sock")
    with pytest.raises(TargetUnreachable, match="no such socket"):
        await dial([UnixAddress(path)], timeout=10)
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(path)
    with pytest.raises(TargetRefused, match="connection refused"):
        await dial([UnixAddress(path)], timeout=10)


async def test_no_descriptor_left_is_a_limit_of_ours(server: TcpAddress, monkeypatch: pytest.MonkeyPatch) -> None:
    def none_left(*_: object) -> socket.socket:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(socket, "socket", none_left)
    with pytest.raises(OverLimit, match="open files"):
        await dial([server], timeout=10)


async def test_family_that_this_machine_lacks_is_one_failure_of_many(server: TcpAddress, monkeypatch: pytest.MonkeyPatch) -> None:
    real = socket.socket

    def only_ipv4(family: int, *rest: Any) -> socket.socket:
        if family == socket.AF_INET6:
            raise OSError(97, "Address family not supported by protocol")
        return real(family, *rest)

    monkeypatch.setattr(socket, "socket", only_ipv4)
    found = await dial([TcpAddress("::1", server.port), server], timeout=10)
    found.sock.close()
    assert found.name == str(server)


async def test_a_socket_that_met_itself_is_a_refusal() -> None:
    """A port without listener that the system also picks to dial from: TCP connects such a socket to itself."""
    with socket.socket(type=socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as sock:
        sock.bind(("127.0.0.1", 0))
        status = await dial_module._connect(sock, sock.getsockname(), trio.current_time() + 10, None)
        assert sock.getpeername() == sock.getsockname()
    assert status == 111


async def test_on_this_host_nobody_waits_for_the_answer(server: TcpAddress, refused: TcpAddress) -> None:
    """TCP has it before `connect` returns: the dial is over in the task's own step, or a checkpoint later where it is refused."""
    for address, status in ((server, 0), (refused, 111)):
        with socket.socket(type=socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as sock:
            assert dial_module._connect_now(sock, (address.host, address.port), None) == status


async def test_a_socket_that_is_still_on_its_way_is_waited_for(black_hole: TcpAddress) -> None:
    with socket.socket(type=socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as sock:
        assert dial_module._connect_now(sock, (black_hole.host, black_hole.port), None) == errno.EALREADY


# -- tuning ----------------------------------------------------------------------------------------------------------------


async def test_tuned_leg(server: TcpAddress) -> None:
    found = await dial([server], timeout=10)
    with found.sock as sock:
        tune_leg(sock)
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == USER_TIMEOUT_MS == 60_000
        idle, interval, count = (
            sock.getsockopt(socket.IPPROTO_TCP, option)
            for option in (socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT)
        )
        assert (idle + interval * count) * 1000 <= USER_TIMEOUT_MS  # else one lost probe ends the connection


def test_an_accepted_leg_has_the_options_of_a_dialled_one() -> None:
    """Linux hands them down from the listener; the list is that of `tune_leg`."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        tune_listener(listener)
        with socket.create_connection(listener.getsockname()) as dialled:
            tune_leg(dialled)
            accepted, peer = listener.accept()
            with accepted:
                tune_accepted(accepted, peer)
                for level, option, value in socket_options._OPTIONS:
                    assert dialled.getsockopt(level, option) == accepted.getsockopt(level, option) == value
                congestion = [leg.getsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, 16) for leg in (dialled, accepted)]
    assert {name.rstrip(b"\0") for name in congestion} == {b"reno"}


def test_an_accepted_unix_leg_needs_no_options(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "listener"))
        tune_listener(listener)
        with socket.socket(socket.AF_UNIX) as accepted:
            tune_accepted(accepted, "")


def test_a_dead_socket_is_left_to_its_reader() -> None:
    sock = socket.socket()
    sock.close()
    tune_leg(sock)
    tune_accepted(sock, ("127.0.0.1", 1))


def test_an_event_without_news_is_no_connection(black_hole: TcpAddress) -> None:
    """Without a task: a descriptor that was closed and given to this socket brings the event of its former owner."""
    with socket.socket() as sock:
        sock.setblocking(False)
        steps: Any = dial_module._connect(sock, (black_hole.host, black_hole.port), 0.0, None)
        assert steps.send(None).socks == (sock,)
        assert steps.send(True) is None, "it goes on to wait, in a task"
        steps.close()
