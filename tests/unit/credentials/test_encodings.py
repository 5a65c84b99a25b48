"""Certificates that an authority or a stranger encodes in a strange way: which ones are refused, and which one is harmless."""

from __future__ import annotations

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.ec import ECDSA
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding

from stcp_proxy.credentials.authority import key_bytes
from stcp_proxy.credentials.revocation import Revocations
from stcp_proxy.credentials.verifier import Verifier
from stcp_proxy.errors import CertificateChainRefused, CertificateRevoked

from .issue import Issued, make, trusted, verify
from .test_revocation import revocation_list

pytestmark = pytest.mark.filterwarnings("ignore:Parsed a serial number which wasn't positive")
BOTH_VERIFIERS = pytest.mark.parametrize("kind", ["p256", "ed25519"])
BAD = {
    "zero": b"\x00",
    "negative": b"\xc1",
    "negative, 20 bytes": b"\x80" + bytes(19),
    "21 bytes": b"\x00\x80" + bytes(19),
    "40 bytes": b"\x7f" * 40,
}
GOOD = {"one": b"\x01", "20 bytes": b"\x7f" + b"\xff" * 19}
SEQUENCE, INTEGER, BIT_STRING = 0x30, 0x02, 0x03


def der(tag: int, content: bytes) -> bytes:
    """A value in DER."""
    size = len(content)
    length = bytes([size]) if size < 128 else (b"\x81" + bytes([size]) if size < 256 else b"\x82" + size.to_bytes(2, "big"))
    return bytes([tag]) + length + content


def content(encoded: bytes) -> bytes:
    return encoded[2:] if encoded[1] < 128 else encoded[2 + (encoded[1] & 127) :]


def with_serial(issued: Issued, signer: Issued, serial: bytes) -> Issued:
    """The same certificate with another serial number, signed again. The library makes no such certificates."""
    number = issued.certificate.serial_number
    old = der(INTEGER, number.to_bytes(number.bit_length() // 8 + 1, "big"))
    body = content(issued.certificate.tbs_certificate_bytes)
    assert body.count(old) == 1
    to_sign = der(SEQUENCE, body.replace(old, der(INTEGER, serial)))
    is_ed25519 = isinstance(signer.key, Ed25519PrivateKey)
    signature = signer.key.sign(to_sign) if is_ed25519 else signer.key.sign(to_sign, ECDSA(hashes.SHA256()))
    algorithm = der(SEQUENCE, bytes.fromhex("06032b6570" if is_ed25519 else "06082a8648ce3d040302"))
    whole = der(SEQUENCE, to_sign + algorithm + der(BIT_STRING, b"\x00" + signature))
    certificate = x509.load_der_x509_certificate(whole)
    assert certificate.serial_number == int.from_bytes(serial, "big", signed=True)
    return Issued(certificate, issued.key, (certificate, *issued.chain[1:]) if issued.chain else ())


# -- serial numbers: above 0, and at most 20 bytes (RFC 5280, section 4.1.2.2) -------------------------------------------------


@pytest.mark.parametrize("of_leaf", [True, False], ids=["leaf", "intermediate"])
@pytest.mark.parametrize("name", [*BAD, *GOOD])
@BOTH_VERIFIERS
def test_serial_number_of_a_peer(kind: str, name: str, of_leaf: bool) -> None:
    root = make(kind, name="root")
    middle = root.authority(kind, name="middle")
    leaf = middle.issue(kind)
    serial = (BAD | GOOD)[name]
    above = middle if of_leaf else with_serial(middle, root, serial)
    if of_leaf:
        leaf = with_serial(leaf, middle, serial)
    intermediates = (above.certificate,)
    if name in GOOD:
        verify(Verifier([trusted(root)]), leaf, intermediates=intermediates)
        return
    with pytest.raises(CertificateChainRefused, match="is not above 0, or has more than 20 bytes"):
        verify(Verifier([trusted(root)]), leaf, intermediates=intermediates)


@pytest.mark.parametrize(
    ("kind", "name"), [("p256", "zero"), ("p256", "21 bytes"), *(("ed25519", name) for name in BAD)], ids="-".join
)
def test_serial_number_of_a_root_is_free(kind: str, name: str) -> None:
    """The operator has chosen this certificate, and old roots have the number 0. `cryptography` refuses the other ones."""
    root = make(kind, name="root")
    strange = with_serial(root, root, BAD[name])
    verify(Verifier([trusted(strange)]), root.issue(kind))


# -- the second form of an ECDSA signature -------------------------------------------------------------------------------------


P256_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551


def with_second_signature(issued: Issued) -> Issued:
    """The same certificate with the signature (r, n-s), which anybody can make of (r, s)."""
    certificate = issued.certificate
    r, s = decode_dss_signature(certificate.signature)
    signature = encode_dss_signature(r, P256_ORDER - s)
    algorithm = der(SEQUENCE, bytes.fromhex("06082a8648ce3d040302"))
    whole = der(SEQUENCE, certificate.tbs_certificate_bytes + algorithm + der(BIT_STRING, b"\x00" + signature))
    assert whole != certificate.public_bytes(Encoding.DER)
    return Issued(x509.load_der_x509_certificate(whole), issued.key, issued.chain)


def test_second_form_of_an_ecdsa_signature_is_accepted_and_evades_no_revocation() -> None:
    root = make("p256", name="root")
    leaf = root.issue("p256")
    twin = with_second_signature(leaf)
    serial = leaf.certificate.serial_number
    first, second = (verify(Verifier([trusted(root)]), each) for each in (leaf, twin))
    assert first == second
    for revocations in (
        Revocations(keys=[key_bytes(leaf.certificate)]),
        Revocations(issued=[(key_bytes(root.certificate), serial)]),
        Revocations(under=[("prod", serial)]),
        Revocations(lists=[revocation_list(root, serial)]),
    ):
        with pytest.raises(CertificateRevoked):
            verify(Verifier([trusted(root)], revocations), twin)
