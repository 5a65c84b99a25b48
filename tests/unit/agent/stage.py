"""An agent between a fake kernel and sockets over loopback."""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field

import trio
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from harness.certificates import TestAuthority

from stcp_proxy.agent.agent import Agent
from stcp_proxy.config import KeyAuth, PskAuth
from stcp_proxy.config.agent_plan import AgentPlan, ExpectedPeer, IdentityPlan
from stcp_proxy.config.certificate_plan import (
    AuthorityPlan,
    CertificateAuth,
    CertificateKey,
    Encoded,
    Facts,
    OwnCertificate,
    Trusted,
)
from stcp_proxy.keys import PrivateKey
from stcp_proxy.net.pattern import parse_pattern
from stcp_proxy.protocol.secret import Secret
from stcp_proxy.protocol.wire import Suite

from .fake_kernel import FakeKernel, connected, describe

SERVER, CLIENT, STRANGER = (PrivateKey(Secret(bytes([number]) * 32)) for number in (1, 2, 3))
SECRET = Secret(bytes([4]) * 32)
USER = 1000
AUTHORITY = TestAuthority()
_FACTS = Facts("dns:x", "1", 0.0, time.time() + 86400.0)
TO_SERVER = KeyAuth(CLIENT, {SERVER.public: "server"})
FROM_CLIENT = KeyAuth(SERVER, {CLIENT.public: "client"})


def expected(
    auth: KeyAuth | PskAuth = TO_SERVER,
    *,
    match: str = "127.0.0.1",
    suite: Suite = Suite.CLASSIC_KEYS,
    service: str | None = None,
) -> ExpectedPeer:
    return ExpectedPeer(parse_pattern(match), auth, suite, service)


def identity(
    *peers: ExpectedPeer, auth: KeyAuth | PskAuth | None = None, suite: Suite = Suite.CLASSIC_KEYS, **more: object
) -> IdentityPlan:
    users = frozenset({USER})
    return IdentityPlan(**{"users": users, "auth": auth, "suites": (suite,), "peers": peers} | more)  # type: ignore[arg-type]


def by_certificate(own: str, *allow: str) -> KeyAuth:
    """The authentication of a side with a certificate for the name `own`."""
    leaf = AUTHORITY.issue(own)
    key = CertificateKey(leaf.key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption()))
    mine = OwnCertificate((leaf.certificate.public_bytes(Encoding.DER),), key, (), _FACTS)
    trusted = Trusted((AuthorityPlan("prod", (Encoded(AUTHORITY.root.public_bytes(Encoding.DER), _FACTS),)),))
    return KeyAuth(None, {}, certificates=CertificateAuth(mine, trusted, allow))


def plan(**identities: IdentityPlan) -> AgentPlan:
    return AgentPlan(identities)


def both_sides(
    suite: Suite = Suite.CLASSIC_KEYS, here: KeyAuth | PskAuth = TO_SERVER, there: KeyAuth | PskAuth = FROM_CLIENT
) -> AgentPlan:
    """Sockets that connect use `default`, and listening sockets use `server`."""
    return plan(default=identity(expected(here, suite=suite)), server=identity(auth=there, suite=suite))


@contextlib.contextmanager
def connection(port: int = 0) -> Iterator[tuple[socket.socket, socket.socket]]:
    """Both ends of a TCP connection: (connected, accepted)."""
    with (
        socket.create_server(("127.0.0.1", port)) as listener,
        socket.create_connection(listener.getsockname(), timeout=10) as near,
        listener.accept()[0] as far,
    ):
        far.settimeout(10)
        yield near, far


@dataclass
class Stage:
    """A running agent.

    Attributes:
        kernel: the module.
        agent: the agent.
        numbers: the numbers of the handshakes that were offered.
    """

    kernel: FakeKernel
    agent: Agent
    numbers: list[int] = field(default_factory=list)

    def offer(self, sock: socket.socket, **more: object) -> int:
        """Give a copy of a socket's descriptor to the agent, as the kernel does. Returns the number of the handshake."""
        number = len(self.numbers) + 1
        self.numbers.append(number)
        self.kernel.offer(describe(sock.dup().detach(), **{"id": number, "uid": USER} | more))
        return number

    async def done(self, count: int = 1) -> list[dict[int, bytes]]:
        """The next ends of handshakes."""
        await until(lambda: len(self.kernel.done) >= count)
        return self.kernel.done


async def until(condition: Callable[[], object]) -> None:
    with trio.fail_after(10):
        while not condition():  # noqa: ASYNC110
            await trio.sleep(0.002)


@contextlib.asynccontextmanager
async def stage(kernel: FakeKernel, rules: AgentPlan) -> AsyncIterator[Stage]:
    """Run an agent until the block ends."""
    agent = Agent(rules, connected(kernel))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(agent.serve)
        yield Stage(kernel, agent)
        nursery.cancel_scope.cancel()
