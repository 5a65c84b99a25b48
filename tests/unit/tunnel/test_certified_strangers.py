"""Strangers at a listener with certificates: `max_handshakes` bounds how many first messages are answered at a time."""

from __future__ import annotations

import dataclasses
import functools
import time
from typing import Any

import pytest
import trio
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from harness.certificates import TestAuthority
from trio.testing import MockClock

from stcp_proxy.config import KeyAuth, TunnelPlan
from stcp_proxy.config.certificate_plan import (
    AuthorityPlan,
    CertificateAuth,
    CertificateKey,
    Encoded,
    Facts,
    OwnCertificate,
    Revoked,
    Trusted,
)
from stcp_proxy.handshake.trust import Trust
from stcp_proxy.protocol.certified_handshake import CertifiedResponder
from stcp_proxy.protocol.wire import Suite
from stcp_proxy.tunnel.tunnel import Tunnel

from .rig import Rig, make_plan, of, serving

PLACES = 4
FACTS = Facts("dns:x", "1", 0.0, time.time() + 86400.0)


def auth_of(authority: TestAuthority, name: str) -> KeyAuth:
    leaf = authority.issue(name)
    der, root = (certificate.public_bytes(Encoding.DER) for certificate in (leaf.certificate, authority.root))
    key = leaf.key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
    trusted = Trusted((AuthorityPlan("prod", (Encoded(root, FACTS),)),), Revoked())
    own = OwnCertificate((der,), CertificateKey(key), (), FACTS)
    return KeyAuth(None, {}, certificates=CertificateAuth(own, trusted, ("dns:*",)))


@pytest.fixture(scope="module")
def plan() -> TunnelPlan:
    auth = auth_of(TestAuthority(), "dns:db")
    return dataclasses.replace(make_plan(handshakes=PLACES), auth=auth, suites=(Suite.HYBRID_CERTIFICATES,))


@pytest.fixture(scope="module")
def stranger() -> Trust:
    """Of an authority of its own."""
    return Trust.of(auth_of(TestAuthority(), "dns:stranger"))


async def call(rig: Rig, stranger: Trust) -> None:
    """A caller that says a fresh message 1, and no more."""
    assert stranger.certified is not None
    rig.listener.says = stranger.certified.initiator().message_1()
    rig.listener.add(None)
    await trio.sleep(0.01)


async def test_first_messages_alone_take_no_more_places_than_max_handshakes(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch, logs: Any, plan: TunnelPlan, stranger: Trust
) -> None:
    """Nor more work: whoever waits for a place is answered when a silent one has lost its own."""
    answered: list[bytes] = []
    receive = CertifiedResponder.receive

    def counted(self: CertifiedResponder, data: bytes) -> Any:
        answered.append(data)
        return receive(self, data)

    monkeypatch.setattr(CertifiedResponder, "receive", counted)
    async with serving(plan, monkeypatch) as rig:
        monkeypatch.setattr(rig.tunnel, "_session", functools.partial(Tunnel._session, rig.tunnel))
        for _ in range(PLACES + 2):
            await call(rig, stranger)
        assert len(answered) == len(rig.listener.callers) == rig.tunnel.proving == PLACES
        await trio.sleep(0.5)
        assert len(answered) == PLACES
        await trio.sleep(1)
        assert len(answered) == PLACES + 2
        assert rig.tunnel.proving == PLACES
        for caller in rig.listener.callers:
            assert len(caller.recv(65536)) > 1000  # message 2, with the certificate
    assert len(of(logs, "connection refused", reason="over_limit")) == 2
    assert of(logs, "limit reached: new connections wait")[0]["limit"] == "max_handshakes"
