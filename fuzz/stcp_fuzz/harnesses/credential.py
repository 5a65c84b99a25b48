"""Credentials of suite 5: their format, and certificates whose bytes were changed or that their issuer signed over anything.

Promises: only a HandshakeError refuses; a credential that is cut short is incomplete; what is read can be written again; a
changed credential vouches for nobody.
"""

from __future__ import annotations

import datetime
import functools
from typing import Any, Final

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID, ObjectIdentifier

from stcp_fuzz.choices import Choices
from stcp_proxy.credentials.authority import Authority
from stcp_proxy.credentials.binding import make_credential
from stcp_proxy.credentials.names import NamePattern
from stcp_proxy.credentials.verifier import Verifier
from stcp_proxy.errors import HandshakeError
from stcp_proxy.protocol.credential import Credential, decode_credential, parse_credential
from stcp_proxy.protocol.wire import Role

NOW: Final = datetime.datetime(2026, 11, 28, 12, tzinfo=datetime.UTC)
STATIC: Final = bytes(range(32))
ROOT, LEAF = (Ed25519PrivateKey.from_private_bytes(bytes([number]) * 32) for number in (1, 2))
_NAME: Final = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "root")])


def one(data: bytes) -> None:
    """Run one input."""
    choices = Choices(data)
    kind = choices.byte() % 4
    if kind == 0:
        _format(choices.rest())
    elif kind == 1:
        genuine = _genuine()
        changed = choices.changed(genuine)
        verified = _verify(changed)
        assert not verified or changed == genuine, "a changed credential vouches for a peer"
    elif kind == 2:
        _verify(_around(choices.changed(_certificate().public_bytes(Encoding.DER)), choices))
    else:
        _verify(_around(_strange(choices).public_bytes(Encoding.DER), choices))


def _format(data: bytes) -> None:
    try:
        parsed = parse_credential(data)
    except HandshakeError:
        return
    if parsed is None:
        return
    credential, used = parsed
    assert credential.encode() == data[:used]
    assert decode_credential(data[:used]) == credential
    for cut in {0, 1, 2, 3, used // 2, used - 1}:
        assert parse_credential(data[:cut]) is None


def _builder() -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .issuer_name(_NAME)
        .serial_number(4711)
        .not_valid_before(NOW - datetime.timedelta(days=1))
        .not_valid_after(NOW + datetime.timedelta(days=30))
    )


@functools.cache
def _verifier() -> Verifier:
    usage = x509.KeyUsage(
        digital_signature=False, content_commitment=False, key_encipherment=False, data_encipherment=False,
        key_agreement=False, key_cert_sign=True, crl_sign=True, encipher_only=False, decipher_only=False,
    )  # fmt: skip
    root = (
        _builder()
        .subject_name(_NAME)
        .public_key(ROOT.public_key())
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(usage, critical=True)
        .sign(ROOT, None)
    )
    return Verifier([Authority("prod", (root,), (NamePattern("dns:*.internal"),))])


@functools.cache
def _certificate() -> x509.Certificate:
    names = x509.SubjectAlternativeName([x509.DNSName("app.internal")])
    builder = _builder().subject_name(x509.Name([])).public_key(LEAF.public_key())
    return builder.add_extension(names, critical=True).sign(ROOT, None)


def _strange(choices: Choices) -> x509.Certificate:
    """A certificate that the authority signed, with names and extensions of any bytes."""
    names: list[Any] = []
    for _ in range(choices.byte() % 4):
        text = choices.take(choices.byte() % 40).decode("ascii", "ignore")
        names.append(choices.pick([x509.DNSName, x509.UniformResourceIdentifier])(text))
    builder = _builder().subject_name(x509.Name([])).public_key(LEAF.public_key())
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=choices.flag())
    for _ in range(choices.byte() % 3):
        known = choices.pick(["2.5.29.15", "2.5.29.17", "2.5.29.19", "2.5.29.30", "2.5.29.37", "1.3.6.1.4.1.99999.1"])
        extension = x509.UnrecognizedExtension(ObjectIdentifier(known), choices.take(choices.byte() % 60))
        try:
            builder = builder.add_extension(extension, critical=choices.flag())
        except ValueError:  # the same extension twice
            continue
    return builder.sign(ROOT, None)


def _around(leaf: bytes, choices: Choices) -> bytes:
    certificates = (leaf or b"x", *([choices.take(200) or b"x"] if choices.flag() else []))
    made = decode_credential(_genuine())
    return Credential(certificates, made.not_after, made.signature).encode()


@functools.cache
def _genuine() -> bytes:
    der = _certificate().public_bytes(Encoding.DER)
    return make_credential((der,), LEAF, role=Role.INITIATOR, static=STATIC, not_after=int(NOW.timestamp()) + 3600)


def _verify(encoded: bytes) -> bool:
    try:
        verified = _verifier().verify(decode_credential(encoded), STATIC, role=Role.INITIATOR, now=NOW.timestamp())
    except HandshakeError:
        return False
    assert verified.authority == "prod"
    assert all(name.startswith(("dns:", "spiffe:", "uri:")) for name in verified.names)
    return True
