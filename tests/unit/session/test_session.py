"""When the next peer may be asked, told by peers of the test's own on real sockets; the engine only notes what it is given."""

from __future__ import annotations

import socket
import types
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from typing import cast

import pytest
import structlog
import trio
from harness.process import wait_for
from harness.sockets import Target, end_of, free_port, read_exactly, reset

from stcp_proxy.config import KeyAuth, Mode, TunnelPlan
from stcp_proxy.counters import Ledger
from stcp_proxy.errors import (
    ClientGone,
    Code,
    FrameError,
    HandshakeClosed,
    HandshakeTimedOut,
    NoAnswer,
    PeerRejected,
    PeerUnreachable,
    StcpError,
    Truncated,
)
from stcp_proxy.handshake.trust import Trust
from stcp_proxy.keys import PrivateKey
from stcp_proxy.net.address import Address, parse_address
from stcp_proxy.protocol.frames import Opener, Sealer
from stcp_proxy.protocol.handshake import Credentials, Responder
from stcp_proxy.protocol.noise import KeyPair
from stcp_proxy.protocol.opening import Opening, encode_reason
from stcp_proxy.protocol.secret import Secret
from stcp_proxy.protocol.wire import HEADER_LEN, FrameType, Suite
from stcp_proxy.relay.engine import Handover, Relay, RelayEnd
from stcp_proxy.session.connect import ConnectSession
from stcp_proxy.session.readiness import reach
from stcp_proxy.session.record import Connection
from stcp_proxy.upstream.routes import Way
from stcp_proxy.upstream.targets import Targets

SERVER, CLIENT = PrivateKey(Secret(bytes([1]) * 32)), PrivateKey(Secret(bytes([2]) * 32))
EARLY = b"what the application said"


class Wire:
    """The responder's end of a wire leg after the handshake."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        responder = Responder((Suite.CLASSIC_KEYS,), Credentials(static=KeyPair(SERVER.secret)), allowed={CLIENT.public.raw})
        while (answer := responder.receive(sock.recv(4096))) is None:
            pass
        sock.sendall(answer.reply)
        self._sealer, self._opener = Sealer(answer.established.send_key), Opener(answer.established.receive_key)

    def send(self, kind: FrameType, plaintext: bytes = b"") -> None:
        self.sock.sendall(self._sealer.seal(kind, plaintext))

    def receive(self) -> tuple[int, bytes]:
        head = read_exactly(self.sock, HEADER_LEN)
        opened = self._opener.open(head + read_exactly(self.sock, int.from_bytes(head[2:], "big")))
        assert opened is not None
        return opened[1:]


class FakeEngine:
    """Notes the handover and closes the sockets."""

    name = "fake"

    def __init__(self) -> None:
        self.handovers: list[Handover] = []

    def start(self) -> None: ...

    def adopt(self, handover: Handover, on_end: Callable[[RelayEnd], None]) -> Relay:
        self.handovers.append(handover)
        for leg in (handover.plain, handover.wire):
            leg.close()
        return cast("Relay", types.SimpleNamespace(engine="fake", why_engine=""))

    def close(self) -> None: ...


class NoOwner:
    ledger = Ledger()

    def settle(self, connection: Connection, end: RelayEnd) -> None: ...

    def forget(self, connection: Connection) -> None: ...


class Stage:
    """Peers in order, an application, and the session between them."""

    def __init__(self, stack: ExitStack) -> None:
        self._stack = stack
        self.peers: list[Target] = []
        self.to: list[Address] = []
        self.heard: list[bytes] = []
        """The early words that the last, accepting peer got."""
        self.engine = FakeEngine()
        self.application, plain = self._connected()
        self.plain = plain

    def _connected(self) -> tuple[socket.socket, socket.socket]:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            near = socket.create_connection(listener.getsockname(), timeout=10)
            far, _ = listener.accept()
        far.setblocking(False)
        self._stack.callback(near.close)
        self._stack.callback(far.close)
        return near, far

    def peer(self, behave: Callable[[socket.socket], None]) -> None:
        """A further peer."""
        target = self._stack.enter_context(Target(behave))
        self.peers.append(target)
        self.to.append(parse_address(target.to, role="to"))

    def accepting(self) -> None:
        """A further peer that says yes, and notes the early words."""

        def accept(sock: socket.socket) -> None:
            wire = Wire(sock)
            assert wire.receive()[0] == FrameType.OPEN
            wire.send(FrameType.ACCEPT)
            with suppress(OSError, AssertionError):
                self.heard.append(wire.receive()[1])

        self.peer(accept)

    def rejecting(self, code: int) -> None:
        def reject(sock: socket.socket) -> None:
            wire = Wire(sock)
            wire.receive()
            wire.send(FrameType.REJECT, encode_reason(code, ""))
            end_of(sock)

        self.peer(reject)

    def plan(self, patience: float) -> TunnelPlan:
        return TunnelPlan(
            name="tunnel",
            mode=Mode.CONNECT,
            bind=parse_address("127.0.0.1:0", role="bind"),
            to=tuple(self.to),
            auth=KeyAuth(CLIENT, {SERVER.public: "server"}),
            suites=(Suite.CLASSIC_KEYS,),
            handshake_timeout=patience,
            dial_timeout=patience,
        )

    async def reach(self) -> StcpError | None:
        """Check the readiness of the tunnel. Returns what the check raised."""
        plan = self.plan(10.0)
        with structlog.testing.capture_logs():
            try:
                await reach(plan, Way(Trust.of(plan.auth), Targets(plan.to, tunnel=plan.name), Opening()))
            except StcpError as exc:
                return exc
        return None

    async def run(self, *, patience: float = 10.0) -> StcpError | None:
        """The session, to its end: what it raised."""
        plan = self.plan(patience)
        record = Connection("tunnel", "client", NoOwner())
        targets = Targets(plan.to, tunnel=plan.name)
        session = ConnectSession(plan, Trust.of(plan.auth), targets, self.engine, self.plain, record)
        with structlog.testing.capture_logs():
            try:
                await session.run()
            except StcpError as exc:
                assert self.plain.fileno() < 0
                return exc
        return None


@pytest.fixture
def stage() -> Iterator[Stage]:
    with ExitStack() as stack:
        yield Stage(stack)


ELSEWHERE = {
    Code.TARGET_REFUSED,
    Code.TARGET_TIMED_OUT,
    Code.TARGET_UNREACHABLE,
    Code.OVER_LIMIT,
    Code.SHUTTING_DOWN,
}
"""What another peer may well do better: its target, its limits, its life are its own."""


@pytest.mark.parametrize("early", [b"", EARLY])
@pytest.mark.parametrize("code", [*Code, 99])
async def test_rejected(stage: Stage, code: int, early: bytes) -> None:
    """REJECT says that nobody has heard the application: its words go to the next peer, if the reason is the first one's own."""
    stage.application.sendall(early)
    stage.rejecting(code)
    stage.accepting()
    failure = await stage.run()
    if code in ELSEWHERE:
        assert failure is None
        assert len(stage.engine.handovers) == 1
        if early:
            await trio.to_thread.run_sync(lambda: wait_for(lambda: stage.heard, words="the peer hears the early words"))
            assert stage.heard == [early]
    else:
        assert isinstance(failure, PeerRejected)
        assert stage.peers[1].dials == 0
        assert end_of(stage.application) == ("reset", b"")


@pytest.mark.parametrize("code", [*Code, 99])
async def test_readiness_asks_the_next_peer_by_the_same_rule(stage: Stage, code: int) -> None:
    """A tunnel whose connections end at the first peer's REJECT is not ready."""
    stage.rejecting(code)
    stage.accepting()
    failure = await stage.reach()
    if code in ELSEWHERE:
        assert failure is None
        assert stage.peers[1].dials == 1
    else:
        assert isinstance(failure, PeerRejected)
        assert failure.reason == code
        assert stage.peers[1].dials == 0


def close_after_open(sock: socket.socket) -> None:
    """The peer may have dialled and told its target: nobody knows."""
    wire = Wire(sock)
    wire.receive()


def reset_after_open(sock: socket.socket) -> None:
    close_after_open(sock)
    reset(sock)


def cut_the_answer(sock: socket.socket) -> None:
    wire = Wire(sock)
    wire.receive()
    sock.sendall(b"\x04\x00")


@pytest.mark.parametrize("behave", [close_after_open, reset_after_open, cut_the_answer])
@pytest.mark.parametrize("early", [b"", EARLY])
async def test_lost_after_open(stage: Stage, behave: Callable[[socket.socket], None], early: bytes) -> None:
    """With early words the first peer may have passed them on: to say them again could do a thing twice."""
    stage.application.sendall(early)
    stage.peer(behave)
    stage.accepting()
    failure = await stage.run()
    if early:
        assert isinstance(failure, Truncated)
        assert stage.peers[1].dials == 0
        assert end_of(stage.application) == ("reset", b"")
    else:
        assert failure is None
        assert stage.peers[1].dials == 1


async def test_no_answer_to_open(stage: Stage) -> None:
    """Its target may have been reached by now: no other is asked."""

    def silent(sock: socket.socket) -> None:
        wire = Wire(sock)
        wire.receive()
        end_of(sock)

    stage.peer(silent)
    stage.accepting()
    assert isinstance(await stage.run(patience=0.3), NoAnswer)
    assert stage.peers[1].dials == 0


async def test_wrong_answer_to_open(stage: Stage) -> None:
    def wrong(sock: socket.socket) -> None:
        wire = Wire(sock)
        wire.receive()
        wire.send(FrameType.DATA, b"hello")
        end_of(sock)

    stage.peer(wrong)
    stage.accepting()
    assert isinstance(await stage.run(), FrameError)
    assert stage.peers[1].dials == 0


async def test_silent_peers_one_after_the_other(stage: Stage) -> None:
    """Each has its handshake deadline, and the one that works is reached."""
    stage.application.sendall(EARLY)
    for _ in range(2):
        stage.peer(lambda sock: (end_of(sock), None)[1])
    stage.accepting()
    assert await stage.run(patience=1.0) is None
    assert [peer.dials for peer in stage.peers] == [1, 1, 1]


async def test_last_failure_is_what_is_told(stage: Stage) -> None:
    stage.rejecting(Code.TARGET_REFUSED)
    stage.to.append(parse_address(f"127.0.0.1:{free_port()}", role="to"))
    assert isinstance(await stage.run(), PeerUnreachable)
    other = Stage(stage._stack)
    other.peer(lambda sock: sock.close())
    assert isinstance(await other.run(), HandshakeClosed)
    silent = Stage(stage._stack)
    silent.peer(lambda sock: (end_of(sock), None)[1])
    assert isinstance(await silent.run(patience=0.2), HandshakeTimedOut)


async def test_application_that_is_gone(stage: Stage) -> None:
    """Reset before it was through: the peer is not even told to open, and no other is asked."""
    opened: list[int] = []

    def listen(sock: socket.socket) -> None:
        wire = Wire(sock)
        with suppress(OSError, AssertionError):
            opened.append(wire.receive()[0])

    stage.peer(listen)
    stage.accepting()
    reset(stage.application)
    assert isinstance(await stage.run(), ClientGone)
    assert stage.peers[1].dials == 0
    assert opened == []


async def test_end_of_the_application_is_handed_on(stage: Stage) -> None:
    """It said its piece and ended its direction before the peer was reached: the engine will find that end by itself."""
    stage.application.sendall(EARLY)
    stage.application.shutdown(socket.SHUT_WR)
    stage.accepting()
    assert await stage.run() is None
    (handover,) = stage.engine.handovers
    assert handover.send.counter == 2


def answer_with_fin(sock: socket.socket) -> None:
    wire = Wire(sock)
    wire.receive()
    wire.send(FrameType.FIN)
    end_of(sock)


@pytest.mark.parametrize("behave", [answer_with_fin, close_after_open, reset_after_open, cut_the_answer])
async def test_readiness_finds_what_an_application_finds(stage: Stage, behave: Callable[[socket.socket], None]) -> None:
    """The first peer authenticates and then spoils OPEN: whoever speaks first is reset, although a second peer would accept."""
    stage.peer(behave)
    stage.accepting()
    found = await stage.reach()
    dials = [peer.dials for peer in stage.peers]
    stage.application.sendall(EARLY)
    failure = await stage.run()
    assert (type(found), type(failure)) in {(FrameError, FrameError), (Truncated, Truncated)}
    assert dials == [1, 0]
    assert end_of(stage.application) == ("reset", b"")


async def test_readiness_goes_on_from_a_peer_that_is_no_peer(stage: Stage) -> None:
    stage.to.append(parse_address(f"127.0.0.1:{free_port()}", role="to"))
    stage.peer(lambda sock: sock.close())
    stage.accepting()
    assert await stage.reach() is None
