"""Certificates in a file: the plan that they make, and the words for each mistake."""

from __future__ import annotations

import base64
import dataclasses
import datetime
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ec import SECP521R1, generate_private_key
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID
from harness.certificates import DAY, TestAuthority, put

from stcp_proxy import keys
from stcp_proxy.config import KeyAuth, Mode, Plan, describe_plan, load_plan, plan_bytes, plan_from_flags
from stcp_proxy.config.diff import difference
from stcp_proxy.errors import ConfigError
from stcp_proxy.protocol.secret import Secret
from stcp_proxy.protocol.wire import Suite

PEER = keys.PrivateKey(Secret(bytes(range(32)))).public
WHOLE = """\
certificate: {chain: host.crt, key: host-tls.key}
authorities: {prod: {bundle: ca.crt, crl: ca.crl, names: "dns:**.prod"}}
revoked: revoked.txt
tunnels:
  in: {mode: listen, bind: 127.0.0.1:1, to: 127.0.0.1:2, allow: "dns:app.prod"}
""".replace("dns:**.prod", "dns:*.prod")


class Site:
    """A folder with everything that `WHOLE` names."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.authority = folder, TestAuthority()
        self.leaf = self.authority.issue("dns:host.prod")
        self.leaf.write(folder, "host")
        self.authority.bundle(folder / "ca.crt")
        self.authority.revoke(folder / "ca.crl")
        (folder / "revoked.txt").write_text("")
        keys.write_secret_file(folder / "host.key", keys.format_private_key(keys.PrivateKey.generate()))
        keys.write_secret_file(folder / "shared.psk", keys.format_psk(keys.generate_psk()))

    def load(self, text: str = WHOLE) -> Plan:
        (self.folder / "c.yaml").write_text(text)
        return load_plan(self.folder / "c.yaml")

    def put(self, name: str, content: bytes, mode: int = 0o600) -> None:
        put(self.folder / name, content, mode=mode)


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


def auth(plan: Plan, index: int = 0) -> KeyAuth:
    found = plan.tunnels[index].auth
    assert isinstance(found, KeyAuth)
    return found


def test_an_overdue_list_that_is_to_refuse(site: Site) -> None:
    """The newest list of an issuer counts, and a list has to be there."""
    assert site.load().trusted.authorities[0].vouches_until == math.inf
    (authority,) = site.load(WHOLE.replace("crl: ca.crl", "crl: ca.crl, crl_overdue: refuse")).trusted.authorities
    (current,) = authority.lists
    older = dataclasses.replace(current, facts=dataclasses.replace(current.facts, not_after=1.0))
    others = dataclasses.replace(current, facts=dataclasses.replace(current.facts, not_after=7.0, key_id="ff"))
    assert authority.vouches_until == current.facts.not_after
    assert dataclasses.replace(authority, lists=(older, current)).vouches_until == current.facts.not_after
    assert dataclasses.replace(authority, lists=(current, others)).vouches_until == 7.0
    with pytest.raises(ConfigError, match="'refuse' has no list that could be overdue: 'crl' is missing"):
        site.load(WHOLE.replace("crl: ca.crl", "crl_overdue: refuse"))


def test_a_plan_of_certificates_alone(site: Site) -> None:
    plan = site.load()
    certificates = auth(plan).certificates
    assert certificates is not None
    assert (certificates.allow, certificates.own.names, auth(plan).ring) == (("dns:app.prod",), ("dns:host.prod",), ())
    assert plan.tunnels[0].suites == (Suite.HYBRID_CERTIFICATES,)
    text = describe_plan(plan)
    for part in ("dns:host.prod", site.leaf.serial, "authority prod: may vouch for dns:*.prod", "dns:app.prod"):
        assert part in text


def test_it_goes_to_the_serving_process_whole_and_its_key_stays_secret(site: Site) -> None:
    plan = site.load()
    assert plan_bytes.load(plan_bytes.dump(plan)) == plan
    assert "PRIVATE" not in repr(plan)
    certificates = auth(plan).certificates
    assert certificates is not None
    assert repr(certificates.own.key) == "Secret(…)"


def test_keys_and_certificates_in_one_list(site: Site) -> None:
    text = WHOLE.replace('"dns:app.prod"', f'["dns:app.prod", "{PEER}"]')
    plan = site.load("identity: host.key\n" + text)
    assert plan.tunnels[0].suites == (Suite.HYBRID_KEYS, Suite.HYBRID_CERTIFICATES)
    assert auth(plan).admitted == {PEER, "dns:app.prod"}


def test_a_file_with_other_content_is_another_plan(site: Site) -> None:
    old = site.load()
    renewed = site.authority.issue("dns:host.prod")
    renewed.write(site.folder, "host")
    lines = difference(old, site.load()).lines()
    assert any(site.leaf.serial in line and renewed.serial in line for line in lines)


def test_flags(site: Site) -> None:
    folder = site.folder
    TestAuthority().bundle(folder / "other.crt")
    plan = plan_from_flags(
        mode=Mode.CONNECT, bind="127.0.0.1:1", to=["127.0.0.1:2"], peer="dns:db.prod", certificate=folder / "host.crt",
        certificate_key=folder / "host-tls.key", authority=[f"prod={folder}/ca.crt", f"{folder}/other.crt"],
    )  # fmt: skip
    certificates = auth(plan).certificates
    assert certificates is not None
    assert [authority.name for authority in certificates.trusted.authorities] == ["prod", "authority-2"]


def spki(raw: bytes) -> str:
    """A line of the file of revoked keys for an X25519 public key. `cryptography` takes its second form too."""
    return "spki:" + base64.b64encode(bytes.fromhex("302a300506032b656e032100") + raw).decode()


@pytest.mark.parametrize("line", [str(PEER), spki(PEER.raw)], ids=["stcp-pub", "spki"])
def test_a_revoked_key_is_no_peer(site: Site, line: str) -> None:
    """Both lines revoke the key of `peers`, and the key of a certificate."""
    site.put("revoked.txt", f"{line}  # lost\n".encode())
    text = f'identity: host.key\npeers: {{app: "{PEER}"}}\n' + WHOLE.replace('"dns:app.prod"', "app")
    plan = site.load(text)
    assert auth(plan).peers == {}
    assert PEER not in plan.known
    certificates = auth(site.load()).certificates
    assert certificates is not None
    assert certificates.trusted.revoked.keys == (base64.b64decode(spki(PEER.raw).removeprefix("spki:")),)


@pytest.mark.parametrize(
    ("text", "serial"), [("a", 0xA), ("abc", 0xABC), ("0abc", 0xABC), ("0A:BC", 0xABC), ("ff" * 20, (1 << 160) - 1)]
)
def test_revoked_serial_in_every_form(site: Site, text: str, serial: int) -> None:
    """The log writes a serial number without zeroes before it, openssl with them, and browsers with colons."""
    site.put("revoked.txt", f"serial:prod/{text}\n".encode())
    certificates = auth(site.load()).certificates
    assert certificates is not None
    assert certificates.trusted.revoked.serials == (("prod", serial),)


def test_a_renewed_root_under_two_authorities(site: Site) -> None:
    """A renewed root has the same key and another end: peers of one authority would be peers of the other."""
    first = site.authority.root
    site.authority.root = site.authority.renewed()
    assert site.authority.root.public_key() == first.public_key()
    assert site.authority.root != first
    site.authority.bundle(site.folder / "renewed.crt")
    two = WHOLE.replace("authorities: {", "authorities: {renewed: renewed.crt, ")
    with pytest.raises(ConfigError, match=r"authorities\.prod\.bundle: it has the key of a certificate that 'renewed' has too"):
        site.load(two)
    site.put("ca.crt", (site.folder / "ca.crt").read_bytes() + (site.folder / "renewed.crt").read_bytes(), mode=0o644)
    assert len(site.load().trusted.authorities[0].roots) == 2
    TestAuthority().bundle(site.folder / "renewed.crt")  # another key, and the same name in its certificate
    site.load(two)


Break = Callable[[Site], Any]


def der(site: Site) -> bytes:
    return site.leaf.certificate.public_bytes(Encoding.DER)


ED25519, UNKNOWN_ALGORITHM = bytes.fromhex("06032b6570"), bytes.fromhex("06032b657f")


def pem(encoded: bytes, label: str = "CERTIFICATE") -> bytes:
    return f"-----BEGIN {label}-----\n{base64.encodebytes(encoded).decode()}-----END {label}-----\n".encode()


def list_der(site: Site) -> bytes:
    return x509.load_pem_x509_crl((site.folder / "ca.crl").read_bytes()).public_bytes(Encoding.DER)


def encrypted(site: Site) -> bytes:
    return bytes(site.leaf.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"word")))


def wrong_curve(site: Site) -> bytes:
    return bytes(site.authority.issue("dns:x", key=generate_private_key(SECP521R1())).key_pem())


def with_unused_bits(site: Site) -> bytes:
    """The certificate of this side, with a count of unused bits before its signature."""
    while (leaf := site.authority.issue("dns:host.prod", key=site.leaf.key)).certificate.signature[-1] & 1:
        pass
    whole, size = leaf.certificate.public_bytes(Encoding.DER), len(leaf.certificate.signature)
    return pem(whole[: -size - 1] + b"\x01" + whole[-size:])


MISTAKES: dict[str, tuple[Break, str]] = {
    "no certificate file": (lambda site: (site.folder / "host.crt").unlink(), "certificate: the file"),
    "no key file": (lambda site: (site.folder / "host-tls.key").unlink(), "often tls.key"),
    "open key file": (lambda site: (site.folder / "host-tls.key").chmod(0o644), "has mode 0644"),
    "other key": (
        lambda site: site.put("host-tls.key", site.authority.issue("dns:x").key_pem()), "does not fit the certificate in",
    ),
    "encrypted key": (lambda site: site.put("host-tls.key", encrypted(site)), "encrypted with a passphrase; 'openssl pkey"),
    "key of a wrong type": (lambda site: site.put("host-tls.key", wrong_curve(site)), "a key of the wrong type; use Ed25519"),
    "key in DER": (lambda site: site.put("host-tls.key", b"\x30\x82"), "is in DER form; 'openssl pkey -inform der"),
    "certificate for key": (
        lambda site: site.put("host-tls.key", site.leaf.certificate.public_bytes(Encoding.PEM)), "holds a certificate",
    ),
    "key for certificate": (lambda site: site.put("host.crt", site.leaf.key_pem()), "a private key where certificates belong"),
    "certificate in DER": (lambda site: site.put("host.crt", der(site)), "is in DER form; 'openssl x509 -inform der"),
    "no certificate": (lambda site: site.put("host.crt", b"hello"), "holds no certificate; name a PEM file"),
    "expired": (
        lambda site: site.authority.issue("dns:host", end=-datetime.timedelta(hours=1)).write(site.folder, "host"),
        "the certificate expired at",
    ),
    "not yet": (
        lambda site: site.authority.issue("dns:host", start=DAY).write(site.folder, "host"), "the certificate is valid from",
    ),
    "without a name": (lambda site: site.authority.issue().write(site.folder, "host"), "has no DNS name and no URI"),
    "wrong role": (
        lambda site: site.authority.issue("dns:host", purposes=[ExtendedKeyUsageOID.CLIENT_AUTH]).write(site.folder, "host"),
        "may not be used to listen",
    ),
    "signature with unused bits": (
        lambda site: site.put("host.crt", with_unused_bits(site)), "of this side ends within a byte; issue",
    ),
    "an authority's own": (
        lambda site: site.authority.issue("dns:host", ca=True).write(site.folder, "host"), "a certificate of an authority",
    ),
    "leaf behind its issuer": (
        lambda site: site.put(
            "host.crt", site.authority.root.public_bytes(Encoding.PEM) + site.leaf.certificate.public_bytes(Encoding.PEM)
        ),
        "is not the first in",
    ),
    "no bundle": (lambda site: (site.folder / "ca.crt").unlink(), "authorities.prod.bundle: the file"),
    "leaf for bundle": (
        lambda site: site.put("ca.crt", site.leaf.certificate.public_bytes(Encoding.PEM)), "is not a certificate of an authority",
    ),
    "bundle with a key that nobody knows": (
        lambda site: site.put("ca.crt", pem(site.authority.root.public_bytes(Encoding.DER).replace(ED25519, UNKNOWN_ALGORITHM))),
        "holds a certificate that cannot be read; remove it from the file",
    ),
    "cut bundle": (
        lambda site: site.put("ca.crt", (site.folder / "ca.crt").read_bytes() + (site.folder / "ca.crt").read_bytes()[:99]),
        "holds a certificate without an end; write the whole file",
    ),
    "cut list": (
        lambda site: site.put("ca.crl", (site.folder / "ca.crl").read_bytes() + (site.folder / "ca.crl").read_bytes()[:99]),
        "holds a revocation list without an end; write the whole file",
    ),
    "no list": (lambda site: site.put("ca.crl", b"x"), "authorities.prod.crl: "),
    "list in DER": (lambda site: site.put("ca.crl", b"\x30"), "is in DER form; 'openssl crl -inform der"),
    "list with an unknown signature": (
        lambda site: site.put("ca.crl", pem(list_der(site).replace(ED25519, UNKNOWN_ALGORITHM), "X509 CRL")),
        "holds a revocation list that cannot be read: Signature algorithm OID",
    ),
    "forged list": (lambda site: TestAuthority().revoke(site.folder / "ca.crl"), "whose key did not sign it"),
    "revoked word": (lambda site: site.put("revoked.txt", b"\nwho\n"), "revoked.txt:2: this is no revoked key"),
    "revoked key": (lambda site: site.put("revoked.txt", b"spki:AAAA"), "this is no public key of a certificate"),
    "revoked key in its second form": (
        lambda site: site.put("revoked.txt", spki(PEER.raw[:-1] + bytes([PEER.raw[-1] | 0x80])).encode()),
        "revoked.txt:1: this public key is not in the form that 'stcp-proxy pubkey' prints",
    ),
    "revoked serial": (lambda site: site.put("revoked.txt", b"serial:test/0a"), "'test' is no authority of this side"),
    "no revoked file": (lambda site: (site.folder / "revoked.txt").unlink(), "revoked: the file"),
}  # fmt: skip


@pytest.mark.parametrize("name", MISTAKES)
def test_each_mistake_has_its_words(site: Site, name: str) -> None:
    spoil, says = MISTAKES[name]
    spoil(site)
    with pytest.raises(ConfigError) as caught:
        site.load()
    assert says in str(caught.value)
    assert ";" in str(caught.value)  # and what to do
    assert "PRIVATE KEY-----\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("certificate: {chain: host.crt, key: host-tls.key}\n", "", "in.allow: this names a certificate, and this side has none"),
        (WHOLE.splitlines()[1] + "\nrevoked: revoked.txt\n", "", "'authorities' is missing, so nobody could vouch"),
        ('"dns:app.prod"', '"dns:App.Prod"', "is no name of a certificate; write 'dns:' and a name in small letters"),
        ('"dns:app.prod"', '"spiffe://prod/a**"', "is no name of a certificate"),
        ('"dns:app.prod"', '"dns:app.prod", suite: classic', "in.suite: certificates need the hybrid key exchange"),
        ('"dns:app.prod"', '"dns:app.prod", psk: shared.psk', "in.psk: a shared secret beside keys protects no connection"),
        ('"dns:app.prod"', f'["dns:app.prod", "{PEER}"]', "identity: a private key of this side's own is needed"),
        (", key: host-tls.key", "", "certificate.key: 'key' is missing"),
        (
            "authorities: {",
            "authorities: {web: ca.crt, ",
            "authorities.prod.bundle: it has the key of a certificate that 'web' has too; name all certificates of one key",
        ),
        ("prod: {bundle: ca.crt, crl: ca.crl,", "prod: {bundel: ca.crt,", "there is no such key"),
    ],
)
def test_settings_that_do_not_fit(site: Site, old: str, new: str, says: str) -> None:
    assert old in WHOLE
    with pytest.raises(ConfigError) as caught:
        site.load(WHOLE.replace(old, new))
    assert says in str(caught.value)
