"""Short connections share wire legs, one after the other, and no byte is lost, doubled or handed to another connection."""

from __future__ import annotations

import hashlib
import random
import signal
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from harness.admin import Admin
from harness.files import FileProxy
from harness.process import wait_for
from harness.proxies import Keys, Pair, Proxy
from harness.sockets import Target, connect, end_of, end_of_new, read_all, read_exactly, reset
from harness.wire_path import WirePath


def ask(address: tuple[str, int] | str, words: bytes = b"words") -> bytes:
    """One short connection: what the echo answers."""
    with connect(address) as sock:
        sock.sendall(words)
        sock.shutdown(socket.SHUT_WR)
        return read_all(sock)


def legs(proxy: Proxy, count: int) -> list[str]:
    """The wire legs of its connections so far, `new` or `kept`, in the order of their ends."""
    return [line["leg"] for line in proxy.ended(count)]


class Side:
    """One proxy with an admin address."""

    def __init__(self, proxy: Proxy) -> None:
        self.proxy = proxy
        self.admin = Admin(proxy)

    def idle(self, count: int) -> None:
        """Wait until so many legs are at rest."""

        def reached(status: dict[str, object]) -> bool:
            return [tunnel["idle_legs"] for tunnel in status["tunnels"]] == [count]  # type: ignore[attr-defined]

        self.admin.wait_status(reached, f"{count} idle legs")


KEEP = ["--admin", "127.0.0.1:0"]  # legs are kept by default


@pytest.fixture
def pair(tmp_path: Path, echo: Target) -> Iterator[Pair]:
    with Pair(tmp_path, echo.to, listen=KEEP, connect=KEEP) as pair:
        yield pair


def test_thousand_connections_over_one_leg(pair: Pair, echo: Target) -> None:
    """Different bytes both ways in each; the last one is large."""
    rng = random.Random(7)
    before = echo.dials
    for number in range(1000):
        words = rng.randbytes(rng.choice((1, 100, 5000, 70_000)) if number < 999 else 24 << 20)
        with connect(pair.address) as sock:
            writer = threading.Thread(target=lambda sock=sock, words=words: (sock.sendall(words), sock.shutdown(socket.SHUT_WR)))
            writer.start()
            assert hashlib.sha256(read_all(sock)).digest() == hashlib.sha256(words).digest()
            writer.join()
    assert echo.dialled(before + 1000)
    for proxy in (pair.connect, pair.listen):
        lines = proxy.ended(1000)
        kept = [line["leg"] for line in lines].count("kept")
        assert kept >= 990, "a busy machine may need a second leg now and then, and no more"
        assert {line["reason"] for line in lines} == {"finished"}
    channels = [[line["channel"] for line in proxy.ended(1000)] for proxy in (pair.connect, pair.listen)]
    assert len(set(channels[0])) == 1000
    assert set(channels[0]) == set(channels[1])
    for side in (Side(pair.connect), Side(pair.listen)):
        counted = side.admin.status()["tunnels"][0]["legs"]
        assert counted["kept"] >= 990
        assert counted["new"] + counted["kept"] == 1000
        assert side.admin.metric("stcp_connections_opened_total", leg="kept") == counted["kept"]
        assert side.admin.metric("stcp_handshakes_total", result="ok") == counted["new"]


def test_server_that_speaks_and_ends_first(tmp_path: Path) -> None:
    def greet(sock: socket.socket) -> None:
        sock.sendall(b"welcome")
        sock.shutdown(socket.SHUT_WR)
        read_all(sock)

    with Target(greet) as target, Pair(tmp_path, target.to, listen=KEEP, connect=KEEP) as pair:
        for _ in range(20):
            with connect(pair.address) as sock:
                assert read_all(sock) == b"welcome"
        assert legs(pair.connect, 20) == ["new", *["kept"] * 19]


def test_parallel_connections_have_legs_of_their_own(pair: Pair) -> None:
    for _ in range(2):
        socks = [connect(pair.address) for _ in range(10)]
        for number, sock in enumerate(socks):
            sock.sendall(bytes([number]))
        for number, sock in enumerate(socks):
            assert read_exactly(sock, 1) == bytes([number])
        for sock in socks:
            sock.close()
        for side in (Side(pair.connect), Side(pair.listen)):
            side.idle(10)
    assert legs(pair.connect, 20).count("kept") == 10


@pytest.mark.parametrize("off", ["listen", "connect"])
def test_peer_that_does_not_keep_is_served_as_before(tmp_path: Path, echo: Target, off: str) -> None:
    flags = {"listen": KEEP, "connect": KEEP} | {off: [*KEEP[:2], "--keep", "off"]}
    with Pair(tmp_path, echo.to, **flags) as pair:
        for _ in range(5):
            assert ask(pair.address) == b"words"
        for proxy in (pair.connect, pair.listen):
            assert legs(proxy, 5) == ["new"] * 5
            Side(proxy).idle(0)


def test_reset_ends_the_leg(pair: Pair) -> None:
    """By the application here, then by the server there: the next connection has a new leg, and works."""
    ask(pair.address)
    sock = connect(pair.address)
    sock.sendall(b"x")
    assert read_exactly(sock, 1) == b"x"
    reset(sock)
    assert [line["reason"] for line in pair.listen.ended(2)][1:] == ["peer_reset"]
    assert ask(pair.address) == b"words"
    assert legs(pair.connect, 3) == ["new", "kept", "new"]


def test_refused_target_ends_the_leg_and_nothing_else(tmp_path: Path) -> None:
    with Target() as target, Pair(tmp_path, target.to, listen=KEEP, connect=KEEP) as pair:
        assert ask(pair.address) == b"words"
        target.close()
        with connect(pair.address) as sock:
            sock.sendall(b"x")
            assert end_of(sock)[0] == "reset"
        assert pair.connect.refused()[0]["leg"] == "kept"
        assert pair.listen.refused()[0]["reason"] == "target_refused"


def test_idle_time_ends_a_leg_on_both_sides(tmp_path: Path, echo: Target) -> None:
    keys = Keys(tmp_path)
    tunnel = {"mode": "listen", "bind": "127.0.0.1:0", "to": echo.to, "allow": "app", "keep": {"idle": "1s"}}
    top = {"admin": "127.0.0.1:0"}
    peers = {"app": str(keys.client.public), "db": str(keys.server.public)}
    with FileProxy(tmp_path, "db", {"identity": "server.key", "peers": peers, "tunnels": {"in": tunnel}} | top) as db:
        host, port = db.address_of("in")
        tunnel = {"mode": "connect", "bind": "127.0.0.1:0", "to": f"{host}:{port}", "peer": "db", "keep": "on"}
        with FileProxy(tmp_path, "app", {"identity": "client.key", "peers": peers, "tunnels": {"out": tunnel}} | top) as app:
            assert ask(app.address_of("out")) == b"words"
            for side in (Side(app), Side(db)):
                side.idle(0)
            assert ask(app.address_of("out")) == b"words"
            assert legs(app, 2) == ["new", "new"]
            assert not [line for line in app.log() + db.log() if line["level"] in ("warning", "error")]


@pytest.mark.parametrize("side", ["listen", "connect"])
def test_stop_says_farewell_and_takes_no_time(pair: Pair, side: str) -> None:
    assert ask(pair.address) == b"words"
    for each in (Side(pair.connect), Side(pair.listen)):
        each.idle(1)
    stopped, other = (pair.listen, pair.connect) if side == "listen" else (pair.connect, pair.listen)
    stopped.signal(signal.SIGTERM)
    assert stopped.wait() == 0
    Side(other).idle(0)
    assert not [line for line in other.log() if line["level"] in ("warning", "error")]


class Hosts:
    """Two proxies that run from files, with a leg at rest between them."""

    def __init__(self, folder: Path, to: str) -> None:
        self.keys = Keys(folder)
        self.second = self.keys.add("client-2")
        top = {"admin": "127.0.0.1:0"}
        tunnel = {"mode": "listen", "bind": "127.0.0.1:0", "to": to, "allow": "app", "keep": "on"}
        app = {"app": [str(self.keys.client.public), str(self.second.public)]}
        self.db = FileProxy(folder, "db", {"identity": "server.key", "peers": app, "tunnels": {"in": tunnel}} | top)
        host, port = self.db.address_of("in")
        tunnel = {"mode": "connect", "bind": "127.0.0.1:0", "to": f"{host}:{port}", "peer": "db", "keep": "on"}
        db = {"db": str(self.keys.server.public)}
        self.app = FileProxy(folder, "app", {"identity": "client.key", "peers": db, "tunnels": {"out": tunnel}} | top)
        self.address = self.app.address_of("out")
        assert ask(self.address) == b"words"
        self.idle(1)

    def idle(self, count: int) -> None:
        for side in (Side(self.app), Side(self.db)):
            side.idle(count)

    def stop(self) -> None:
        self.app.stop()
        self.db.stop()


@pytest.fixture
def hosts(tmp_path: Path, echo: Target) -> Iterator[Hosts]:
    hosts = Hosts(tmp_path, echo.to)
    yield hosts
    hosts.stop()


def test_first_connection_has_a_ready_leg(hosts: Hosts) -> None:
    """No target is dialled for it, and the legs that were made ahead end with their plan."""
    tunnels = {name: tunnel | {"keep": {"ready": 2}} for name, tunnel in hosts.app.config["tunnels"].items()}
    hosts.app.reload(hosts.app.config | {"tunnels": tunnels})
    hosts.idle(2)
    assert ask(hosts.address) == b"words"
    assert legs(hosts.app, 2) == ["new", "kept"]
    assert len(hosts.db.ended(2)) == 2
    assert not hosts.db.log("connection refused")
    tunnels = {name: tunnel | {"keep": "off"} for name, tunnel in tunnels.items()}
    hosts.app.reload(hosts.app.config | {"tunnels": tunnels})
    hosts.idle(0)


def test_removed_key_ends_its_idle_legs(hosts: Hosts) -> None:
    hosts.db.reload(hosts.db.config | {"peers": {"app": str(hosts.second.public)}})
    hosts.idle(0)
    assert end_of_new(hosts.address)[0] == "reset"
    assert hosts.db.refused()[0]["reason"] == "unknown_peer"


@pytest.mark.parametrize("side", ["app", "db"])
def test_changed_tunnel_ends_its_idle_legs(hosts: Hosts, side: str) -> None:
    proxy = getattr(hosts, side)
    tunnels = {name: tunnel | {"dial_timeout": "7s"} for name, tunnel in proxy.config["tunnels"].items()}
    proxy.reload(proxy.config | {"tunnels": tunnels})
    hosts.idle(0)
    assert ask(hosts.address) == b"words"
    assert legs(hosts.app, 2) == ["new", "new"]


def test_connection_that_was_open_during_a_change_does_not_keep_its_leg(hosts: Hosts) -> None:
    with connect(hosts.address) as sock:
        sock.sendall(b"x")
        assert read_exactly(sock, 1) == b"x"
        tunnels = {name: tunnel | {"dial_timeout": "7s"} for name, tunnel in hosts.db.config["tunnels"].items()}
        hosts.db.reload(hosts.db.config | {"tunnels": tunnels})
    hosts.app.ended(2)
    hosts.db.ended(2)
    hosts.idle(0)


def test_reload_that_changes_nothing_of_the_tunnel_keeps_its_legs(hosts: Hosts) -> None:
    hosts.db.reload(hosts.db.config | {"drain": "7s"})
    hosts.idle(1)
    assert ask(hosts.address) == b"words"
    assert legs(hosts.app, 2) == ["new", "kept"]


# -- the path between ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def path(tmp_path: Path, echo: Target) -> Iterator[tuple[Pair, WirePath]]:
    keys = Keys(tmp_path)
    log = tmp_path / "listen.log"
    listen = Proxy(["listen", "--bind", "127.0.0.1:0", "--to", echo.to, *keys.listen(), *KEEP], log=log)
    (tmp_path / "pair").mkdir()
    with (
        listen,
        WirePath(listen.ready().address) as wire,
        Pair(tmp_path / "pair", echo.to, keys=keys, connect=KEEP, via=wire.to) as pair,
    ):
        yield pair, wire


def test_leg_that_breaks_at_rest_is_not_used(path: tuple[Pair, WirePath]) -> None:
    pair, wire = path
    assert ask(pair.address) == b"words"
    Side(pair.connect).idle(1)
    wire.break_all()
    Side(pair.connect).idle(0)
    assert ask(pair.address) == b"words"
    assert legs(pair.connect, 2) == ["new", "new"]
    assert not pair.connect.log(level="warning")


def test_path_that_forgets_legs_at_rest(path: tuple[Pair, WirePath]) -> None:
    """The connection goes on over a new leg, with all its bytes, and the other forgotten legs are not tried."""
    pair, wire = path
    socks = [connect(pair.address) for _ in range(3)]
    for sock in socks:
        sock.sendall(b"x")
        assert read_exactly(sock, 1) == b"x"
        sock.close()
    Side(pair.connect).idle(3)
    time.sleep(1.1)  # older than a leg whose first bytes go with OPEN
    wire.forget()
    assert ask(pair.address, b"first") == b"first"
    assert ask(pair.address, b"second") == b"second"
    assert wire.made == 4
    lines = pair.connect.ended(5)
    assert [line["leg"] for line in lines][3:] == ["new", "kept"]
    assert {line["reason"] for line in lines} == {"finished"}


def test_old_leg_carries_the_bytes_that_were_held_back(pair: Pair) -> None:
    for words in (b"first", b"second"):
        assert ask(pair.address, words) == words
        time.sleep(1.1)
    assert legs(pair.connect, 2) == ["new", "kept"]


# -- kills ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("side", ["listen", "connect"])
def test_kills_under_churn(tmp_path: Path, side: str) -> None:
    """No byte is acted upon twice, and none is lost without a reset. Each request has a number of its own."""
    seen: dict[bytes, int] = {}
    lock = threading.Lock()

    def serve(sock: socket.socket) -> None:
        number = read_exactly(sock, 8)
        if len(number) == 8:
            with lock:
                seen[number] = seen.get(number, 0) + 1
            sock.sendall(number)
            read_all(sock)

    keys = Keys(tmp_path)
    answered: set[bytes] = set()
    done = threading.Event()
    counter = iter(range(1 << 60))

    def churn(address: tuple[str, int]) -> None:
        while not done.is_set():
            with lock:
                number = next(counter).to_bytes(8, "big")
            try:
                with socket.create_connection(address, timeout=20) as sock:
                    sock.sendall(number)
                    answer = read_exactly(sock, 8)
                    assert answer in (number, b""), "bytes of another connection"
                    if answer:
                        answered.add(number)
                    else:
                        wrong.append("a clean end without an answer")
            except AssertionError as exc:
                wrong.append(str(exc))
            except OSError:
                time.sleep(0.005)

    wrong: list[str] = []
    with Target(serve) as target:
        ports = {}
        with socket.socket() as a, socket.socket() as b:
            a.bind(("127.0.0.1", 0))
            b.bind(("127.0.0.1", 0))
            ports["listen"], ports["connect"] = a.getsockname()[1], b.getsockname()[1]

        def start(which: str) -> Proxy:
            bind = f"127.0.0.1:{ports[which]}"
            to = target.to if which == "listen" else f"127.0.0.1:{ports['listen']}"
            own = keys.listen() if which == "listen" else keys.connect()
            return Proxy([which, "--bind", bind, "--to", to, *own, "--keep", "on"], log=tmp_path / f"{which}.log")

        proxies = {which: start(which) for which in ports}
        for proxy in proxies.values():
            proxy.ready()
        threads = [threading.Thread(target=churn, args=(("127.0.0.1", ports["connect"]),)) for _ in range(4)]
        for thread in threads:
            thread.start()
        for _ in range(6):
            count = len(answered)
            wait_for(lambda count=count: len(answered) > count + 30, words="connections are answered")
            proxies[side].signal(signal.SIGKILL)
            proxies[side].wait()
            (tmp_path / f"{side}.log").unlink()
            proxies[side] = start(side)
            proxies[side].ready()
        done.set()
        for thread in threads:
            thread.join(30)
        for proxy in proxies.values():
            proxy.stop()
    assert not wrong
    assert answered <= set(seen)
    assert not {number: times for number, times in seen.items() if times > 1}
