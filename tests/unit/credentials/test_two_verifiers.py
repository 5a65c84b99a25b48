"""Random trees of certificates: chains with Ed25519 issuers are judged as the library judges all others."""

from __future__ import annotations

import random
from typing import Any

import pytest
from cryptography import x509

from stcp_proxy.credentials.verifier import Verifier
from stcp_proxy.errors import CredentialRefused

from .issue import CLIENT, DAY, SERVER, make, trusted, uri, usage, verify

DOMAINS = ["prod.internal", "internal", "test", "app.prod.internal", "rod.internal"]
LEAF_NAMES: list[tuple[Any, ...]] = [
    (x509.DNSName("app.prod.internal"),),
    (x509.DNSName("app.prod.internal"), x509.DNSName("x.test")),
    (x509.DNSName("app.prod.internal"), uri("spiffe://prod/a")),
]


def properties(chance: random.Random, *, ca: bool) -> dict[str, Any]:
    """What one certificate has, often something that forbids its use."""
    found: dict[str, Any] = {"path_length": chance.choice([None, None, 0, 1, 2])} if ca else {}
    if chance.random() < 0.08:
        found["basic"] = False
    if chance.random() < 0.15:
        found["key_usage"] = chance.choice([None, usage("crl_sign"), usage("key_cert_sign"), usage("digital_signature")])
    if chance.random() < 0.2:
        found["eku"] = chance.choice([(CLIENT,), (SERVER,), (CLIENT, SERVER)])
    if chance.random() < 0.1:
        found |= chance.choice([{"start": DAY / 24}, {"end": -DAY / 24}])
    if ca and chance.random() < 0.3:
        trees = [x509.DNSName(domain) for domain in chance.sample(DOMAINS, chance.choice([1, 2]))]
        constraints = x509.NameConstraints(trees, None) if chance.random() < 0.6 else x509.NameConstraints(None, trees)
        found["extra"] = ((constraints, True),)
    return found


def is_accepted(kind: str, seed: int) -> bool:
    """Whether a peer with a random chain is accepted; the same chain for each kind of key."""
    chance = random.Random(seed)
    issuer = root = make(kind, name="root", **(properties(chance, ca=True) if chance.random() < 0.5 else {}))
    for depth in range(chance.choice([0, 1, 1, 2, 2, 3])):
        issuer = issuer.authority(kind, name=chance.choice(["root", f"{depth}"]), **properties(chance, ca=True))
    leaf = issuer.issue(kind, san=chance.choice(LEAF_NAMES), **properties(chance, ca=False))
    presented = list(leaf.chain)
    if presented and chance.random() < 0.3:
        presented.append(chance.choice([presented[0], root.certificate, make(kind, name="root").certificate]))
    chance.shuffle(presented)
    try:
        verify(Verifier([trusted(root)]), leaf, intermediates=tuple(presented))
    except CredentialRefused:
        return False
    return True


@pytest.mark.parametrize("seed", range(0, 300, 50))
def test_both_judge_alike(seed: int) -> None:
    ours, theirs = ([is_accepted(kind, number) for number in range(seed, seed + 50)] for kind in ("ed25519", "p256"))
    assert ours == theirs
    assert any(ours)
    assert not all(ours)
