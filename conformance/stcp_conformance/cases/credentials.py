"""Section 8, certificates: suite 5. The same credentials in both roles."""

from __future__ import annotations

import datetime
import os
import time
from collections.abc import Callable
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.x509.oid import ExtendedKeyUsageOID, ObjectIdentifier

from stcp_conformance.bench import Bench
from stcp_conformance.cases.handshake_initiator import expect_nothing_sent
from stcp_conformance.cases.handshake_responder import expect_silence
from stcp_conformance.credential import HOUR, INITIATOR, RESPONDER, Authority, Leaf
from stcp_conformance.frames import Type
from stcp_conformance.greeting import framed, read_message
from stcp_conformance.noise import LOW_ORDER, KeyPair
from stcp_conformance.program import KIT_NAME
from stcp_conformance.registry import INITIATOR as AS_INITIATOR
from stcp_conformance.registry import RESPONDER as AS_RESPONDER
from stcp_conformance.registry import add, case
from stcp_conformance.suites import Suite

FORM_LAW = "8: the form of a credential: one certificate or more, none empty, at most 16384 bytes, nothing behind it"
BINDING_LAW = "8: the leaf's key signs role, static key and not_after"
NAME_LAW = "8: a name of the subject alternative name decides; wildcards and the common name mean nothing"
CHAIN_LAW = "8: the chain ends at a root of a configured authority; each issuer may sign certificates"
TIME_LAW = "8: each certificate and the binding are valid, with 60 seconds of leeway"
USAGE_LAW = "8: extended key usage, where present, fits the role; an unknown critical extension is refused"
LEAF_LAW = "8: each kind of leaf key signs as the table says"

DAY = 24 * HOUR
Make = Callable[[Bench, int], bytes]
"""Makes a credential of the kit for a role: 1 initiator, 2 responder."""


def certificates(suite: Suite) -> bool:
    return suite.certificates


def refused(make: Make) -> Callable[[Bench], str]:
    def run(bench: Bench) -> str:
        if bench.is_responder:
            wire = bench.initiate(credential=make(bench, INITIATOR))
            wire.send(Type.OPEN)
            return expect_silence(bench, wire.stream)
        plain, stream = bench.start()
        plain.send(b"secret")
        greeter = bench.greeter()
        handshake = greeter.greet(stream)
        stream.send(framed(handshake.write(2, make(bench, RESPONDER))))
        return expect_nothing_sent(plain, stream)

    return run


def accepted(make: Make) -> Callable[[Bench], None]:
    def run(bench: Bench) -> None:
        bench.open(credential=make(bench, INITIATOR if bench.is_responder else RESPONDER)).talk()

    return run


def leaf(**options: Any) -> Make:
    """An honest binding of a certificate with these options of `Authority.issue`."""
    return lambda bench, role: bench.secrets.authority.issue(KIT_NAME, **options).credential(role, bench.secrets.kit.public)


def named(*names: str, **options: Any) -> Make:
    return lambda bench, role: bench.secrets.authority.issue(*names, **options).credential(role, bench.secrets.kit.public)


def bound(**changes: Any) -> Make:
    """A good certificate with a wrong binding, or a wrong form."""
    return lambda bench, role: honest(bench).credential(role, bench.secrets.kit.public, **changes)


def honest(bench: Bench) -> Leaf:
    return bench.secrets.authority.issue(KIT_NAME)


def below(*options: dict[str, Any]) -> Make:
    """A leaf below intermediates with these options of `Authority`, from the root down."""

    def make(bench: Bench, role: int) -> bytes:
        authority = bench.secrets.authority
        for each in options:
            authority = Authority(authority, **each)
        return authority.issue(KIT_NAME).credential(role, bench.secrets.kit.public)

    return make


def changed(change: Callable[[bytes], bytes]) -> Make:
    """The bytes of an honest credential, changed."""
    return lambda bench, role: change(honest(bench).credential(role, bench.secrets.kit.public))


def cut_chain(bench: Bench, role: int) -> bytes:
    found = Authority(bench.secrets.authority).issue(KIT_NAME)
    return found.credential(role, bench.secrets.kit.public, certificates=found.chain[:1])


def self_signed(bench: Bench, role: int) -> bytes:
    return Authority().issue(KIT_NAME).credential(role, bench.secrets.kit.public)


def issued_by_a_leaf(bench: Bench, role: int) -> bytes:
    above = bench.secrets.authority.issue("above.example", kind="p256")
    impostor = Authority()
    impostor.key, impostor.name = above.key, above.certificate.subject
    found = impostor.issue(KIT_NAME)
    return found.credential(role, bench.secrets.kit.public, certificates=[*found.chain, *above.chain])


def x25519_leaf(bench: Bench, role: int, *, own: bool = True) -> bytes:
    key = X25519PrivateKey.from_private_bytes(bench.secrets.kit.private if own else os.urandom(32))
    return bench.secrets.authority.issue(KIT_NAME, key=key).credential(role, bench.secrets.kit.public)


def usage(of_initiator: Any, of_responder: Any) -> Make:
    def make(bench: Bench, role: int) -> bytes:
        purpose = x509.ExtendedKeyUsage([of_initiator if role == INITIATOR else of_responder])
        return leaf(extensions=((purpose, False),))(bench, role)

    return make


CLIENT, SERVER = ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH
UNKNOWN = x509.UnrecognizedExtension(ObjectIdentifier("1.3.6.1.4.1.55555.1"), b"\x05\x00")


def constraints(name: str) -> dict[str, Any]:
    return {"extensions": ((x509.NameConstraints([x509.DNSName(name)], None), True),)}


def key_usage(*, signs: bool) -> dict[str, Any]:
    names = ["digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement", "crl_sign"]
    flags = {name: name == "digital_signature" for name in names}
    found = x509.KeyUsage(**flags, key_cert_sign=signs, encipher_only=False, decipher_only=False)
    return {"extensions": ((found, True),)}


REFUSED: dict[str, tuple[str, Make]] = {
    "empty": (FORM_LAW, lambda *_: b""),
    "random": (FORM_LAW, lambda *_: os.urandom(600)),
    "version-0": (FORM_LAW, bound(version=0)),
    "version-2": (FORM_LAW, bound(version=2)),
    "no-certificate": (FORM_LAW, bound(certificates=[])),
    "count-too-high": (FORM_LAW, bound(count=2)),
    "count-0": (FORM_LAW, bound(count=0)),
    "empty-certificate": (
        FORM_LAW,
        lambda b, r: honest(b).credential(r, b.secrets.kit.public, certificates=[*honest(b).chain, b""]),
    ),
    "certificate-is-no-der": (FORM_LAW, bound(certificates=[b"no certificate"])),
    "cut-in-the-certificate": (FORM_LAW, changed(lambda data: data[:100])),
    "cut-in-the-signature": (FORM_LAW, changed(lambda data: data[:-1])),
    "byte-behind-it": (FORM_LAW, changed(lambda data: data + b"\0")),
    "role-of-the-other-side": (BINDING_LAW, lambda b, r: honest(b).credential(3 - r, b.secrets.kit.public)),
    "other-static-key": (BINDING_LAW, lambda b, r: honest(b).credential(r, KeyPair().public)),
    "signature-empty": (BINDING_LAW, bound(signature=b"")),
    "signature-changed": (BINDING_LAW, changed(lambda data: data[:-1] + bytes([data[-1] ^ 1]))),
    "signature-by-another-key": (BINDING_LAW, lambda b, r: honest(b).credential(r, b.secrets.kit.public, signer=honest(b).key)),
    "not-after-changed": (BINDING_LAW, changed(lambda data: data[:-67] + bytes([data[-67] ^ 1]) + data[-66:])),
    "x25519-leaf-of-another-key": (BINDING_LAW, lambda b, r: x25519_leaf(b, r, own=False)),
    "binding-expired": (TIME_LAW, lambda b, r: bound(not_after=int(time.time()) - 3600)(b, r)),
    "expired": (TIME_LAW, leaf(valid=(-DAY, -HOUR))),
    "not-yet-valid": (TIME_LAW, leaf(valid=(HOUR, DAY))),
    "unknown-authority": (CHAIN_LAW, self_signed),
    "missing-intermediate": (CHAIN_LAW, cut_chain),
    "issuer-is-a-leaf": (CHAIN_LAW, issued_by_a_leaf),
    "intermediate-without-ca": (CHAIN_LAW, below({"ca": False})),
    "intermediate-without-constraints": (CHAIN_LAW, below({"ca": None})),
    "six-certificates": (CHAIN_LAW, below(*[{}] * 5)),
    "path-length": (CHAIN_LAW, below({"path_length": 0}, {})),
    "issuer-without-key-cert-sign": (CHAIN_LAW, below(key_usage(signs=False))),
    "name-constraint": (NAME_LAW, below(constraints("elsewhere.example"))),
    "other-name": (NAME_LAW, named("other.example")),
    "no-name": (NAME_LAW, named()),
    "name-in-the-common-name": (NAME_LAW, named(subject=KIT_NAME)),
    "wildcard": (NAME_LAW, named("*.example")),
    "usage-of-the-other-side": (USAGE_LAW, usage(SERVER, CLIENT)),
    "unknown-critical-extension": (USAGE_LAW, leaf(extensions=((UNKNOWN, True),))),
    "rsa-of-1024-bits": (LEAF_LAW, lambda b, r: leaf(key=rsa.generate_private_key(65537, 1024))(b, r)),
    "p521-leaf": (LEAF_LAW, leaf(kind="p521")),
}
ACCEPTED: dict[str, tuple[str, Make]] = {
    **{f"leaf-{kind}": (LEAF_LAW, leaf(kind=kind)) for kind in ("ed25519", "p256", "p384", "rsa")},
    "leaf-x25519": (LEAF_LAW, x25519_leaf),
    "two-names": (NAME_LAW, named("other.example", KIT_NAME)),
    "intermediate": (CHAIN_LAW, below({})),
    "intermediate-ed25519": (CHAIN_LAW, below({"kind": "ed25519"})),
    "intermediate-p521": (CHAIN_LAW, below({"kind": "p521"})),
    "five-certificates": (CHAIN_LAW, below(*[{}] * 4)),
    "issuer-with-key-cert-sign": (CHAIN_LAW, below(key_usage(signs=True))),
    "name-constraint-that-holds": (NAME_LAW, below(constraints("example"))),
    "usage-of-the-role": (USAGE_LAW, usage(CLIENT, SERVER)),
    "unknown-extension-not-critical": (USAGE_LAW, leaf(extensions=((UNKNOWN, False),))),
    "binding-expired-30-seconds-ago": (TIME_LAW, lambda b, r: bound(not_after=int(time.time()) - 30)(b, r)),
    "expired-30-seconds-ago": (TIME_LAW, leaf(valid=(-DAY, datetime.timedelta(seconds=-30)))),
}
ED25519: dict[str, Any] = {"kind": "ed25519"}
"""Libraries treat chains with Ed25519 issuers apart. The same faults must be found in them."""
REFUSED |= {
    "ed25519-unknown-authority": (
        CHAIN_LAW,
        lambda b, r: Authority(**ED25519).issue(KIT_NAME).credential(r, b.secrets.kit.public),
    ),
    "ed25519-intermediate-without-ca": (CHAIN_LAW, below({"ca": False} | ED25519)),
    "ed25519-path-length": (CHAIN_LAW, below({"path_length": 0} | ED25519, ED25519)),
    "ed25519-issuer-without-key-cert-sign": (CHAIN_LAW, below(key_usage(signs=False) | ED25519)),
    "ed25519-name-constraint": (NAME_LAW, below(constraints("elsewhere.example") | ED25519)),
    "ed25519-unknown-critical-extension": (USAGE_LAW, below({"extensions": ((UNKNOWN, True),)} | ED25519)),
}
ACCEPTED["ed25519-name-constraint-that-holds"] = (NAME_LAW, below(constraints("example") | ED25519))
for name, (law, make) in REFUSED.items():
    add(f"credential-{name}", law, refused(make), suites=certificates)
for name, (law, make) in ACCEPTED.items():
    add(f"credential-{name}-is-accepted", law, accepted(make), suites=certificates)


@case("open-behind-message-3", "8: OPEN and DATA may follow message 3 at once", roles=AS_RESPONDER, suites=certificates)
def open_at_once(bench: Bench) -> None:
    stream, greeter = bench.dial(), bench.greeter()
    handshake = greeter.handshake(initiator=True)
    stream.send(greeter.first(handshake))
    read_message(stream, handshake, 2)
    third = framed(handshake.write(3, greeter.payload(INITIATOR)))
    wire = greeter.wire(stream, handshake, initiator=True)
    stream.send(third + wire.seal(Type.OPEN) + wire.seal(Type.DATA, b"early"))
    bench.target().expect(b"early")
    wire.expect(Type.ACCEPT)


@case("bytes-behind-message-1", "8: bytes between message 1 and message 2 are refused", roles=AS_RESPONDER, suites=certificates)
def bytes_behind(bench: Bench) -> str:
    stream, greeter = bench.dial(), bench.greeter()
    stream.send(greeter.first(greeter.handshake(initiator=True)) + b"\0")
    return expect_silence(bench, stream)


def third(change: Callable[[bytes], bytes]) -> Callable[[Bench], str]:
    def run(bench: Bench) -> str:
        stream, greeter = bench.dial(), bench.greeter()
        handshake = greeter.handshake(initiator=True)
        stream.send(greeter.first(handshake))
        read_message(stream, handshake, 2)
        stream.send(change(framed(handshake.write(3, greeter.payload(INITIATOR)))))
        stream.finish()
        return expect_silence(bench, stream)

    return run


LENGTH_LAW = "1, 8: a receiver refuses a length out of bounds as soon as it has the length field"
add("message-3-length-63", LENGTH_LAW, third(lambda _: b"\0\x3f"), roles=AS_RESPONDER, suites=certificates)
add("message-3-length-65535", LENGTH_LAW, third(lambda _: b"\xff\xff"), roles=AS_RESPONDER, suites=certificates)
TAG = "1: a message that does not authenticate is refused without a reply"
add("message-3-flipped", TAG, third(lambda data: data[:-1] + bytes([data[-1] ^ 1])), roles=AS_RESPONDER, suites=certificates)
add(
    "message-3-static-flipped",
    TAG,
    third(lambda data: data[:2] + bytes([data[2] ^ 1]) + data[3:]),
    roles=AS_RESPONDER,
    suites=certificates,
)
add("message-3-is-missing", TAG, third(lambda _: b""), roles=AS_RESPONDER, suites=certificates)

ZERO_LAW = "1: an X25519 result of 32 zero bytes ends the handshake"


@case("low-order-static", ZERO_LAW, roles=AS_INITIATOR, suites=certificates)
def low_order_of_responder(bench: Bench) -> str:
    plain, stream = bench.start()
    greeter = bench.greeter(static=KeyPair(public=LOW_ORDER))
    handshake = greeter.greet(stream)
    stream.send(framed(handshake.write(2, greeter.payload(RESPONDER))))
    return expect_nothing_sent(plain, stream)


@case("low-order-static", ZERO_LAW, roles=AS_RESPONDER, suites=certificates)
def low_order_of_initiator(bench: Bench) -> str:
    wire = bench.initiate(static=KeyPair(public=LOW_ORDER))
    wire.send(Type.OPEN)
    return expect_silence(bench, wire.stream)


FORM_OF_KEY_LAW = "1: a static key that is not a number below 2^255 - 19 is refused"


def twin(bench: Bench) -> KeyPair:
    """The kit's key pair, with a second form of its public key. The binding is made for this form."""
    return KeyPair(bench.secrets.kit.private, second_form=True)


@case("second-form-of-a-key", FORM_OF_KEY_LAW, roles=AS_INITIATOR, suites=certificates)
def second_form_of_responder(bench: Bench) -> str:
    plain, stream = bench.start()
    greeter = bench.greeter(static=twin(bench))
    handshake = greeter.greet(stream)
    stream.send(framed(handshake.write(2, greeter.payload(RESPONDER))))
    return expect_nothing_sent(plain, stream)


@case("second-form-of-a-key", FORM_OF_KEY_LAW, roles=AS_RESPONDER, suites=certificates)
def second_form_of_initiator(bench: Bench) -> str:
    wire = bench.initiate(static=twin(bench))
    wire.send(Type.OPEN)
    return expect_silence(bench, wire.stream)
