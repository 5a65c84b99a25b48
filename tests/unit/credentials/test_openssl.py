"""Certificates and a revocation list made by openssl, and a whole handshake of suite 5 with them."""

from __future__ import annotations

import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key

from stcp_proxy.credentials.authority import Authority
from stcp_proxy.credentials.binding import make_credential
from stcp_proxy.credentials.names import NamePattern
from stcp_proxy.credentials.revocation import Revocations
from stcp_proxy.credentials.verifier import Verified, Verifier
from stcp_proxy.errors import CertificateRevoked, CertificateRoleRefused
from stcp_proxy.protocol.certified_handshake import CertifiedInitiator, CertifiedResponder, Identity, Reply
from stcp_proxy.protocol.established import Established
from stcp_proxy.protocol.noise import SYSTEM_ENTROPY
from stcp_proxy.protocol.wire import Role

pytestmark = pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not installed")

ALGORITHMS = {
    "p256": "-algorithm EC -pkeyopt ec_paramgen_curve:P-256",
    "p384": "-algorithm EC -pkeyopt ec_paramgen_curve:P-384",
    "rsa": "-algorithm RSA",
    "ed25519": "-algorithm ED25519",
}
EXTENSIONS = """
[ca]
basicConstraints = critical, CA:true
keyUsage = critical, keyCertSign, cRLSign
subjectKeyIdentifier = hash
[leaf]
basicConstraints = CA:false
keyUsage = critical, digitalSignature
extendedKeyUsage = {purpose}
subjectAltName = DNS:{name}.prod.internal, URI:spiffe://prod/{name}
authorityKeyIdentifier = keyid
[main]
database = {folder}/index.txt
crlnumber = {folder}/crlnumber
default_md = sha256
default_crl_days = 1
"""


class Shop:
    """A certificate authority that is nothing but openssl commands."""

    def __init__(self, folder: Path, algorithm: str) -> None:
        self.folder, self.algorithm = folder, algorithm
        (folder / "index.txt").touch()
        (folder / "crlnumber").write_text("01\n")
        self.key("ca")
        self.config("ca", "clientAuth")
        making = "req -x509 -new -key ca.key -out ca.crt -days 30 -subj /CN=shop -config ca.cnf -extensions ca"
        self.run(*making.split())

    def run(self, *words: str) -> None:
        subprocess.run(["openssl", *words], cwd=self.folder, check=True, capture_output=True)

    def key(self, name: str) -> None:
        self.run("genpkey", *ALGORITHMS[self.algorithm].split(), "-out", f"{name}.key")

    def config(self, name: str, purpose: str) -> None:
        request = "[req]\ndistinguished_name = name\nprompt = no\n[name]\nCN = shop\n"
        text = request + EXTENSIONS.format(name=name, purpose=purpose, folder=self.folder)
        (self.folder / f"{name}.cnf").write_text(text)

    def issue(self, name: str, purpose: str) -> None:
        self.key(name)
        self.config(name, purpose)
        self.run(*f"req -new -key {name}.key -out {name}.csr -subj / -config {name}.cnf".split())
        signing = f"x509 -req -in {name}.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 2 -out {name}.crt"
        self.run(*signing.split(), "-extfile", f"{name}.cnf", "-extensions", "leaf")

    def certificate(self, name: str) -> x509.Certificate:
        return x509.load_pem_x509_certificate((self.folder / f"{name}.crt").read_bytes())

    def identity(self, name: str, role: Role) -> Identity:
        """A fresh static key, bound to a certificate of the shop."""
        static = SYSTEM_ENTROPY.key_pair()
        key: Any = load_pem_private_key((self.folder / f"{name}.key").read_bytes(), None)
        chain = (self.certificate(name).public_bytes(Encoding.DER),)
        end = int(time.time()) + 3600
        return Identity(static, make_credential(chain, key, role=role, static=static.public, not_after=end))

    def revocation_list(self, name: str) -> x509.CertificateRevocationList:
        self.run("ca", "-config", "ca.cnf", "-name", "main", "-revoke", f"{name}.crt", "-keyfile", "ca.key", "-cert", "ca.crt")
        self.run("ca", "-config", "ca.cnf", "-name", "main", "-gencrl", "-keyfile", "ca.key", "-cert", "ca.crt", "-out", "ca.crl")
        return x509.load_pem_x509_crl((self.folder / "ca.crl").read_bytes())


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_handshake_with_certificates_of_openssl(tmp_path: Path, algorithm: str) -> None:
    shop = Shop(tmp_path, algorithm)
    shop.issue("app", "clientAuth")
    shop.issue("db", "serverAuth")
    authority = Authority("shop", (shop.certificate("ca"),), (NamePattern("dns:*.prod.internal"), NamePattern("spiffe://prod/*")))
    verifier = Verifier([authority])

    def shake(verifier: Verifier, app: str = "app") -> tuple[Established, Established]:
        ours = CertifiedInitiator(
            shop.identity(app, Role.INITIATOR),
            verify=lambda credential, static: verifier.verify(credential, static, role=Role.RESPONDER, now=time.time()),
        )
        theirs = CertifiedResponder(
            shop.identity("db", Role.RESPONDER),
            verify=lambda credential, static: verifier.verify(credential, static, role=Role.INITIATOR, now=time.time()),
        )
        reply = theirs.receive(ours.message_1())
        assert isinstance(reply, Reply)
        answer = ours.receive(reply.reply)
        assert answer is not None
        established = theirs.receive(answer.reply)
        assert isinstance(established, Established)
        return answer.established, established

    ours, theirs = shake(verifier)
    assert ours.send_key == theirs.receive_key
    assert isinstance(ours.verified, Verified)
    assert isinstance(theirs.verified, Verified)
    assert ours.verified.names == ("dns:db.prod.internal", "spiffe://prod/db")
    assert theirs.verified.names == ("dns:app.prod.internal", "spiffe://prod/app")
    with pytest.raises(CertificateRoleRefused, match="to connect"):
        shake(verifier, "db")
    revoking = Verifier([authority], Revocations(lists=[shop.revocation_list("app")]))
    with pytest.raises(CertificateRevoked, match="app"):
        shake(revoking)
