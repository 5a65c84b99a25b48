"""Which credentials vouch for a peer, each refusal with its own words."""

from __future__ import annotations

import datetime
from collections.abc import Callable
from typing import Any

import pytest
from cryptography import x509

from stcp_proxy import errors
from stcp_proxy.credentials import path
from stcp_proxy.credentials.names import NamePattern
from stcp_proxy.credentials.path import MAX_CERTIFICATES
from stcp_proxy.credentials.verifier import Verifier
from stcp_proxy.errors import CredentialRefused
from stcp_proxy.protocol.credential import Credential
from stcp_proxy.protocol.wire import Role

from .issue import (
    CLIENT,
    DAY,
    KEYS,
    SECONDS,
    SERVER,
    STATIC,
    Issued,
    credential,
    make,
    trusted,
    uri,
    usage,
    verify,
)

INITIATOR, RESPONDER = Role.INITIATOR, Role.RESPONDER
BOTH_VERIFIERS = pytest.mark.parametrize("kind", ["p256", "ed25519"])
"""`cryptography` builds the chains of the first, this project those of the second."""


# -- accepted ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("role", list(Role))
@pytest.mark.parametrize("leaf_kind", KEYS)
@pytest.mark.parametrize("kind", [kind for kind in KEYS if kind != "x25519"])
def test_every_kind_of_key(kind: str, leaf_kind: str, role: Role) -> None:
    root = make(kind)
    leaf = root.issue(leaf_kind, serial=4711)
    verified = verify(Verifier([trusted(root)]), leaf, role=role)
    assert (verified.names, verified.authority, verified.serial) == (("dns:app.prod.internal",), "prod", 4711)
    assert verified.not_after == SECONDS + 86400


@BOTH_VERIFIERS
def test_intermediates_in_any_order(kind: str) -> None:
    root = make(kind, name="root")
    leaf = root.authority(kind, name="one").authority(kind, name="two").issue(kind)
    assert len(leaf.chain) == 2
    for intermediates in (leaf.chain, leaf.chain[::-1]):
        assert verify(Verifier([trusted(root)]), leaf, intermediates=intermediates).authority == "prod"


def test_profile_of_spire() -> None:
    """A URI is the only name, the subject may be empty, and the certificate serves both sides."""
    root = make("p256", name="SPIRE", extra=((x509.SubjectAlternativeName([uri("spiffe://prod")]), False),))
    leaf = root.issue(san=(uri("spiffe://prod/ns/web/sa/app"),), eku=(SERVER, CLIENT), key_usage=usage("digital_signature"))
    for role in Role:
        assert verify(Verifier([trusted(root)]), leaf, role=role).names == ("spiffe://prod/ns/web/sa/app",)


def test_profile_of_cert_manager() -> None:
    """RSA keys, key encipherment, no basic constraints critical, several names and an IP address beside them."""
    import ipaddress

    root = make("rsa", name="cluster-ca")
    names = (x509.DNSName("db"), x509.DNSName("DB.prod.svc"), x509.IPAddress(ipaddress.ip_address("10.0.0.1")))
    leaf = root.issue("rsa", san=names, key_usage=usage("digital_signature", "key_encipherment"), eku=(SERVER,), basic=False)
    assert verify(Verifier([trusted(root)]), leaf, role=RESPONDER).names == ("dns:db", "dns:db.prod.svc")


def test_profile_of_vault() -> None:
    """An intermediate with path length 0 under an offline root, and both purposes."""
    root = make("rsa", name="offline root", end=3650 * DAY)
    issuing = root.authority("rsa", name="issuing", path_length=0)
    leaf = issuing.issue("rsa", name="app", eku=(SERVER, CLIENT), key_usage=usage("digital_signature", "key_agreement"))
    assert verify(Verifier([trusted(root)]), leaf).names == ("dns:app.prod.internal",)


def test_profile_of_step_ca() -> None:
    """P-256, path length 1 and 0, and an extension that only step-ca knows, which is not critical."""
    root = make("p256", name="Smallstep root", path_length=1)
    issuing = root.authority("p256", name="Smallstep intermediate", path_length=0)
    provisioner = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.3.6.1.4.1.37476.9000.64.1"), b"\x30\x00")
    leaf = issuing.issue("p256", eku=(SERVER, CLIENT), extra=((provisioner, False),))
    assert verify(Verifier([trusted(root)]), leaf).authority == "prod"


def test_authorities_side_by_side() -> None:
    old, new, other = make("p256", name="ca"), make("p256", name="ca"), make("ed25519", name="ca")
    verifier = Verifier([trusted(old, new, name="prod"), trusted(other, name="test")])
    assert [verify(verifier, root.issue()).authority for root in (old, new, other)] == ["prod", "prod", "test"]


@BOTH_VERIFIERS
@pytest.mark.parametrize("off", [-59, 59])
def test_leeway(kind: str, off: int) -> None:
    """The clock here is off by less than a minute from the validity of the leaf."""
    root = make(kind)
    second = datetime.timedelta(seconds=1)
    leaf = root.issue(start=59 * second if off < 0 else -DAY, end=-59 * second if off > 0 else DAY)
    verify(Verifier([trusted(root)]), leaf)


# -- refused, each with its own words ------------------------------------------------------------------------------------------

Fault = Callable[[str], tuple[Issued, Issued]]
"""Makes a root, and a leaf that must be refused under it. The argument is the kind of key."""


def under(**kwargs: Any) -> Fault:
    def build(kind: str) -> tuple[Issued, Issued]:
        root = make(kind)
        return root, root.issue(kind, **kwargs)

    return build


def through(leaf: dict[str, Any] | None = None, root: dict[str, Any] | None = None, **kwargs: Any) -> Fault:
    """A chain with an intermediate authority that is at fault."""

    def build(kind: str) -> tuple[Issued, Issued]:
        top = make(kind, name="root", **(root or {}))
        return top, top.authority(kind, name="middle", **kwargs).issue(kind, **(leaf or {}))

    return build


def stranger(kind: str) -> tuple[Issued, Issued]:
    return make(kind), make(kind).issue(kind)


def leaf_as_issuer(kind: str) -> tuple[Issued, Issued]:
    root = make(kind)
    middle = root.issue(kind, name="not an authority")
    middle.chain = (middle.certificate,)
    return root, middle.issue(kind)


def constrained(*, permitted: list[Any] | None = None, excluded: list[Any] | None = None, san: tuple[Any, ...] = ()) -> Fault:
    constraints = x509.NameConstraints(permitted, excluded)
    return through({"san": san} if san else {}, extra=((constraints, True),))


UNKNOWN_CRITICAL = ((x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.4"), b"\x05\x00"), True),)
HOUR = DAY / 24

FAULTS: dict[str, tuple[Fault, type[CredentialRefused], str]] = {
    "another authority": (stranger, errors.UnknownAuthority, "no authority"),
    "expired": (under(end=-HOUR), errors.CertificateExpired, "until 2026-11-28 11:00:00 UTC, .* 2026-11-28 12:00:00 UTC"),
    "not yet valid": (under(start=HOUR), errors.CertificateNotYetValid, "from 2026-11-28 13:00:00 UTC"),
    "expired intermediate": (through(end=-HOUR), errors.CertificateExpired, "until"),
    "expired root": (through(root={"end": -HOUR}), errors.UnknownAuthority, "no authority"),
    "server certificate": (under(eku=(SERVER,)), errors.CertificateRoleRefused, "to connect"),
    "server authority": (through(eku=(SERVER,)), errors.CertificateRoleRefused, "to connect"),
    "no signature allowed": (under(key_usage=usage("key_encipherment")), errors.CertificateRoleRefused, "key usage"),
    "authority as leaf": (under(ca=True), errors.CertificateChainRefused, "authority as its own"),
    "leaf as issuer": (leaf_as_issuer, CredentialRefused, ""),
    "issuer may not sign": (through(key_usage=usage("crl_sign")), errors.CertificateChainRefused, "may not issue"),
    "no basic constraints": (through(basic=False), CredentialRefused, ""),
    "path length": (through(root={"path_length": 0}), CredentialRefused, ""),
    "no name": (under(san=(), name="cn.prod.internal"), errors.CertificateChainRefused, "no DNS name"),
    "only a wildcard": (under(san=(x509.DNSName("*.prod.internal"),)), errors.CertificateChainRefused, "no DNS name"),
    "only an email": (under(san=(x509.RFC822Name("a@b.c"),)), errors.CertificateChainRefused, "no DNS name"),
    "too many names": (
        under(san=tuple(x509.DNSName(f"host-{n}.prod.internal") for n in range(60))),
        errors.CertificateChainRefused,
        "768",
    ),
    "unknown critical extension": (under(extra=UNKNOWN_CRITICAL), errors.CertificateChainRefused, "critical extension 1.2.3.4"),
    "unknown critical extension above": (through(extra=UNKNOWN_CRITICAL), CredentialRefused, ""),
    "excluded name": (constrained(excluded=[x509.DNSName("prod.internal")]), CredentialRefused, ""),
    "name not permitted": (constrained(permitted=[x509.DNSName("test.internal")]), CredentialRefused, ""),
    "URI not permitted": (
        constrained(permitted=[uri("test.internal")], san=(uri("spiffe://prod/app"),)),
        CredentialRefused,
        "",
    ),
    **{
        f"excluded {kind.__name__} {text!r}": (constrained(excluded=[kind(text)], san=san), CredentialRefused, "")
        for kind, texts, san in (
            (x509.DNSName, ("", ".prod.internal", "PROD.internal", "prod.internal."), ()),
            (uri, ("", ".prod", "a.prod.", "*.prod", "spiffe://a.prod"), (uri("spiffe://a.prod/app"),)),
        )
        for text in texts
    },
    "domain before whose subdomains": (
        constrained(permitted=[x509.DNSName(".prod.internal")], san=(x509.DNSName("prod.internal"),)),
        CredentialRefused,
        "",
    ),
    "constraint of another form": (constrained(permitted=[x509.RFC822Name("prod.internal")]), CredentialRefused, ""),
}


@BOTH_VERIFIERS
@pytest.mark.parametrize("fault", FAULTS)
def test_refused(fault: str, kind: str) -> None:
    """Both ways to build a chain refuse the same faults."""
    build, error, words = FAULTS[fault]
    root, leaf = build(kind)
    with pytest.raises(error, match=words or "peer") as caught:
        verify(Verifier([trusted(root)]), leaf)
    assert caught.value.remedy


@BOTH_VERIFIERS
def test_permitted_name(kind: str) -> None:
    root, leaf = constrained(permitted=[x509.DNSName("prod.internal")])(kind)
    assert verify(Verifier([trusted(root)]), leaf).names == ("dns:app.prod.internal",)


def test_weak_rsa_key_of_an_authority() -> None:
    from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key

    root = make("rsa", key=generate_private_key(65537, 1024))
    with pytest.raises(CredentialRefused):
        verify(Verifier([trusted(root)]), root.issue("ed25519"))


def test_chain_too_long() -> None:
    root = issuer = make("p256", name="root")
    for number in range(MAX_CERTIFICATES):
        issuer = issuer.authority(name=f"authority {number}")
    with pytest.raises(errors.CertificateChainRefused, match="6 certificates, 5 are allowed"):
        verify(Verifier([trusted(root)]), issuer.issue())


@BOTH_VERIFIERS
def test_strangers_own_authorities_verify_nothing(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Four authorities of one name and key issue each other: nobody tries the orders in which they could stand."""
    root, top = make(kind, name="root"), make(kind, name="own")
    same = [make(kind, name="own", key=top.key).certificate for _ in range(MAX_CERTIFICATES - 1)]
    verified = []
    issued = path._issued
    monkeypatch.setattr(path, "_issued", lambda *pair, **how: verified.append(pair) or issued(*pair, **how))
    monkeypatch.setattr(path.verification, "PolicyBuilder", lambda: pytest.fail("an unknown issuer begins no search"))
    with pytest.raises(errors.UnknownAuthority):
        verify(Verifier([trusted(root)]), top.issue(kind), intermediates=tuple(same))
    assert {issuer for _, issuer in verified} == {root.certificate}
    assert len(verified) <= MAX_CERTIFICATES


@pytest.mark.parametrize("good", [True, False])
def test_signature_of_an_intermediate_is_verified_once_for_its_peers(good: bool) -> None:
    """A failure is not remembered: a stranger's certificates would push out those of peers."""
    path._verify_intermediate.cache_clear()
    root = make("ed25519", name="root")
    middle = (root if good else make("ed25519", name="root")).authority("ed25519", name="middle")
    verifier = Verifier([trusted(root)])
    for _ in range(3):
        if good:
            verify(verifier, middle.issue("ed25519"))
        else:
            with pytest.raises(errors.UnknownAuthority):
                verify(verifier, middle.issue("ed25519"))
    known = path._verify_intermediate.cache_info()
    assert (known.misses, known.currsize) == ((1, 1) if good else (3, 0))


def test_issuer_of_a_stranger_takes_little_room_in_the_log() -> None:
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, f"\n\u202e forged {number}") for number in range(200)])
    with pytest.raises(errors.UnknownAuthority) as caught:
        verify(Verifier([trusted(make("p256"))]), make("p256", subject=name).issue())
    assert len(str(caught.value)) < 400
    assert str(caught.value).isprintable()


def test_chain_that_is_refused_does_not_hide_another() -> None:
    """Two certificates of one authority, the first of which allows no intermediates."""
    first = make("ed25519", name="root", path_length=0)
    second = make("ed25519", name="root", key=first.key)
    leaf = first.authority("ed25519", name="middle").issue("ed25519")
    assert verify(Verifier([trusted(first, second)]), leaf).authority == "prod"


def test_listener_presents_a_client_certificate() -> None:
    root = make("p256")
    with pytest.raises(errors.CertificateRoleRefused, match="to listen"):
        verify(Verifier([trusted(root)]), root.issue(eku=(CLIENT,)), role=RESPONDER)


def test_names_of_an_authority_bound_what_it_vouches_for() -> None:
    root = make("p256")
    leaf = root.issue(san=(x509.DNSName("app.prod.internal"), uri("spiffe://prod/app"), x509.DNSName("app.test")))
    some = Verifier([trusted(root, names=("dns:*.prod.internal", "spiffe://prod/**"))])
    assert verify(some, leaf).names == ("dns:app.prod.internal", "spiffe://prod/app")
    with pytest.raises(errors.CertificateNameRefused, match=r"'prod' may not vouch for dns:app\.prod\.internal"):
        verify(Verifier([trusted(root, names=("dns:*.other",))]), leaf)
    verified = verify(Verifier([trusted(root)]), leaf)
    assert verified.matches([NamePattern("dns:nobody"), NamePattern("spiffe://*/app")]) == "spiffe://prod/app"
    assert verified.matches([NamePattern("dns:nobody")]) is None


@pytest.mark.parametrize("der", [b"\x00", b"\x30\x00", b"junk" * 100])
def test_junk_for_a_certificate(der: bytes) -> None:
    with pytest.raises(errors.CertificateChainRefused, match="cannot be read"):
        Verifier([]).verify(Credential((der,), 2**40, b""), STATIC, role=INITIATOR, now=SECONDS)


def test_every_changed_byte_of_a_certificate_is_refused() -> None:
    root = make("p256")
    good = credential(root.issue("ed25519"))
    verifier = Verifier([trusted(root)])
    der = good.certificates[0]
    for at in range(len(der)):
        changed = der[:at] + bytes([der[at] ^ 1]) + der[at + 1 :]
        with pytest.raises(CredentialRefused):
            verifier.verify(Credential((changed,), good.not_after, good.signature), STATIC, role=INITIATOR, now=SECONDS)
    assert len(verifier) == 0


@pytest.mark.parametrize("unused", [1, 3])
@pytest.mark.parametrize("kind", ["ed25519", "p256"])
def test_signature_with_unused_bits_is_refused(kind: str, unused: int) -> None:
    """No signature covers their count, and the library takes any where the bits are zero. A stranger could make such twins."""
    root = make(kind)

    def ends_with_zeros(issue: Callable[[], Issued]) -> Issued:
        while True:
            if (issued := issue()).certificate.signature[-1] % (1 << unused) == 0:
                return issued

    middle = ends_with_zeros(root.authority)
    leaf = ends_with_zeros(middle.issue)
    good = credential(leaf)
    verifier = Verifier([trusted(root)])
    assert verifier.verify(good, STATIC, role=INITIATOR, now=SECONDS).serial == leaf.certificate.serial_number
    for place, issued in enumerate((leaf, middle)):
        size = len(issued.certificate.signature) + 1
        certificates = list(good.certificates)
        certificates[place] = certificates[place][:-size] + bytes([unused]) + certificates[place][1 - size :]
        changed = Credential(tuple(certificates), good.not_after, good.signature)
        with pytest.raises(errors.CertificateChainRefused, match="ends within a byte"):
            verifier.verify(changed, STATIC, role=INITIATOR, now=SECONDS)


# -- the binding --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [kind for kind in KEYS if kind != "x25519"])
def test_binding_that_does_not_fit(kind: str) -> None:
    """Another static key, another role, another end, another signature, none, and another leaf's."""
    root = make("p256")
    leaf = root.issue(kind)
    verifier = Verifier([trusted(root)])
    good = credential(leaf)
    verifier.verify(good, STATIC, role=INITIATOR, now=SECONDS)
    other = credential(root.issue(kind))
    for wrong, static, role in (
        (good, STATIC[::-1], INITIATOR),
        (good, STATIC, RESPONDER),
        (Credential(good.certificates, good.not_after + 1, good.signature), STATIC, INITIATOR),
        (Credential(good.certificates, good.not_after, good.signature[:-1] + bytes([good.signature[-1] ^ 1])), STATIC, INITIATOR),
        (Credential(good.certificates, good.not_after, b""), STATIC, INITIATOR),
        (Credential(good.certificates, good.not_after, other.signature), STATIC, INITIATOR),
    ):
        with pytest.raises(errors.BindingRefused, match="does not belong"):
            verifier.verify(wrong, static, role=role, now=SECONDS)


def test_x25519_leaf_is_the_static_key() -> None:
    root = make("ed25519")
    leaf = root.issue("x25519")
    good = credential(leaf)
    assert good.signature == b""
    verifier = Verifier([trusted(root)])
    own = leaf.key.public_key().public_bytes_raw()
    verifier.verify(good, own, role=INITIATOR, now=SECONDS)
    signed = Credential(good.certificates, good.not_after, b"signature")
    for wrong, static in ((good, STATIC), (signed, own)):
        with pytest.raises(errors.BindingRefused):
            verifier.verify(wrong, static, role=INITIATOR, now=SECONDS)


def test_expired_binding() -> None:
    root = make("p256")
    leaf = root.issue()
    verifier = Verifier([trusted(root)])
    with pytest.raises(errors.CertificateExpired, match="ended 61 seconds ago"):
        verify(verifier, leaf, not_after=int(SECONDS) - 61)
    verify(verifier, leaf, not_after=int(SECONDS) - 59)
