"""Tests of revocation lists: which keys may sign them, and which are read when the bundle has an intermediate certificate."""

from __future__ import annotations

import math
import re
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from harness.certificates import DAY, Leaf, TestAuthority, now, put

from stcp_proxy.config import Plan, load_plan
from stcp_proxy.config.certificate_plan import AuthorityPlan
from stcp_proxy.credentials.authority import Authority
from stcp_proxy.credentials.binding import make_credential
from stcp_proxy.credentials.revocation import Revocations
from stcp_proxy.credentials.verifier import Verified, Verifier
from stcp_proxy.errors import CertificateRevoked, ConfigError, RevocationListOverdue
from stcp_proxy.protocol.credential import decode_credential
from stcp_proxy.protocol.wire import Role

WARN = """\
certificate: {chain: host.crt, key: host-tls.key}
authorities: {prod: {bundle: ca.crt, crl: ca.crl}}
tunnels:
  in: {mode: listen, bind: 127.0.0.1:1, to: 127.0.0.1:2, allow: "dns:app.prod"}
"""
REFUSE = WARN.replace("crl: ca.crl", "crl: ca.crl, crl_overdue: refuse")
STATIC = bytes(range(32))
SOON = now().timestamp() + 3600
BOTH_KINDS = pytest.mark.parametrize("kind", ["ed25519", "p256"])


class Site:
    """A folder with the files of a configuration: an authority, an intermediate of it, and their lists."""

    def __init__(self, folder: Path, kind: str = "ed25519") -> None:
        self.folder = folder
        self.root, self.middle = TestAuthority(kind, "root"), TestAuthority(kind, "middle")
        self.certified = self.root.certify(self.middle)
        self.root.issue("dns:host.prod").write(folder, "host")
        self.root.bundle(folder / "ca.crt")
        self.root.revoke(folder / "ca.crl")

    def add(self, name: str, content: bytes) -> None:
        """Append to a file."""
        put(self.folder / name, (self.folder / name).read_bytes() + content)

    def listed(self, authority: TestAuthority, *revoked: Leaf, next_update: int = 1) -> bytes:
        """The list of an authority, for some days."""
        return authority.revoke(self.folder / "another.crl", *revoked, next_update=next_update * DAY).read_bytes()

    def load(self, text: str) -> AuthorityPlan:
        (self.folder / "c.yaml").write_text(text)
        plan: Plan = load_plan(self.folder / "c.yaml")
        (authority,) = plan.trusted.authorities
        return authority


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


def verify(plan: AuthorityPlan, leaf: Leaf, *above: x509.Certificate, at: float = SOON) -> Verified:
    """Show the certificate of a peer to a side with this authority."""
    roots = tuple(x509.load_der_x509_certificate(root.der) for root in plan.roots)
    lists = [x509.load_der_x509_crl(each.der) for each in plan.lists]
    verifier = Verifier([Authority(plan.name, roots, (), plan.vouches_until)], Revocations(lists=lists))
    chain = tuple(each.public_bytes(Encoding.DER) for each in (leaf.certificate, *above))
    credential = make_credential(chain, leaf.key, role=Role.INITIATOR, static=STATIC, not_after=int(at) + 3600)
    return verifier.verify(decode_credential(credential), STATIC, role=Role.INITIATOR, now=at)


@pytest.mark.parametrize("behind", [False, True], ids=["instead", "behind"])
def test_list_of_a_stranger_does_not_replace_one_that_has_to_be_fresh(site: Site, behind: bool) -> None:
    """Nobody can check a list in another name. Its next update must not stand for that of the authority's list."""
    strange = site.listed(TestAuthority(name="stranger"), next_update=9999)
    put(site.folder / "ca.crl", (site.folder / "ca.crl").read_bytes() + strange if behind else strange)
    with pytest.raises(ConfigError) as caught:
        site.load(REFUSE)
    says = r"prod\.crl\S*: .*no certificate of the bundle signed the revocation list of CN=stranger.*; add its issuer's"
    assert re.search(says, str(caught.value))
    authority = site.load(WARN)
    assert (len(authority.lists), authority.vouches_until) == (1 + behind, math.inf)


@pytest.mark.parametrize("text", [WARN, REFUSE], ids=["warn", "refuse"])
def test_list_in_the_name_of_the_authority_needs_its_signature(site: Site, text: str) -> None:
    put(site.folder / "ca.crl", site.listed(TestAuthority(name="root")))
    with pytest.raises(ConfigError, match="CN=root as its issuer, whose key did not sign it"):
        site.load(text)


@BOTH_KINDS
def test_intermediate_in_the_bundle_makes_its_list_acceptable(tmp_path: Path, kind: str) -> None:
    """The remedy of the refusal. The peers of the intermediate are accepted as before, and those of the root."""
    site = Site(tmp_path, kind)
    revoked, peer, other = site.middle.issue("dns:app.prod"), site.middle.issue("dns:app.prod"), site.root.issue("dns:app.prod")
    site.add("ca.crl", site.listed(site.middle, revoked))
    with pytest.raises(ConfigError, match="add its issuer's certificate to the bundle"):
        site.load(REFUSE)
    verify(site.load(WARN), peer, site.certified)
    site.add("ca.crt", site.certified.public_bytes(Encoding.PEM))
    authority = site.load(REFUSE)
    assert (len(authority.roots), len(authority.lists)) == (2, 2)
    for plan in (authority, site.load(WARN)):
        for above in ((), (site.certified,)):
            assert verify(plan, peer, *above).authority == "prod"
            with pytest.raises(CertificateRevoked):
                verify(plan, revoked, *above)
        verify(plan, other)


@BOTH_KINDS
def test_overdue_list_of_an_intermediate_in_the_bundle_refuses(tmp_path: Path, kind: str) -> None:
    site = Site(tmp_path, kind)
    peer = site.middle.issue("dns:app.prod")
    put(site.folder / "ca.crl", site.listed(site.root, next_update=9))
    site.add("ca.crl", site.listed(site.middle, next_update=1))
    site.add("ca.crt", site.certified.public_bytes(Encoding.PEM))
    authority = site.load(REFUSE)
    verify(authority, peer, site.certified, at=authority.vouches_until)
    with pytest.raises(RevocationListOverdue):
        verify(authority, peer, site.certified, at=authority.vouches_until + 61)
