"""Cases of the public collection x509-limbo in which this side once differed, each with the decision about it."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from cryptography import x509

from stcp_proxy import errors
from stcp_proxy.credentials.verifier import Verifier
from stcp_proxy.protocol.wire import Role

from .issue import CLIENT, DAY, SERVER, Issued, make, trusted, verify

BOTH_VERIFIERS = pytest.mark.parametrize("kind", ["p256", "ed25519"])
"""`cryptography` builds the chains of the first, this project those of the second."""
FOO = x509.Name.from_rfc4514_string("CN=foo")


@BOTH_VERIFIERS
@pytest.mark.parametrize("path_length", [1, 2])
def test_self_issued_certificate_counts_for_the_length(kind: str, path_length: int) -> None:
    """`pathlen::self-issued-certs-pathlen`: an authority certifies its next key under its own name.

    RFC 5280 does not count such a certificate. `cryptography` does, as Go and webpki do, and no issuer is known that needs more.
    """
    root = make(kind, name="root")
    first = root.authority(kind, name="middle", path_length=path_length)
    second = first.authority(kind, path_length=1, subject=first.certificate.subject)
    leaf = second.authority(kind, name="low", path_length=0).issue(kind)
    if path_length == 2:
        verify(Verifier([trusted(root)]), leaf)
        return
    with pytest.raises(errors.CredentialRefused):
        verify(Verifier([trusted(root)]), leaf)


@BOTH_VERIFIERS
def test_directory_names_are_no_names(kind: str) -> None:
    """`nc::permitted-dn-match`: RFC 5280 admits it. Here a peer is a DNS name or a URI, so nobody could be admitted by it."""
    root = make(kind, name="root")
    with pytest.raises(errors.CertificateChainRefused, match="has no DNS name and no URI"):
        verify(Verifier([trusted(root)]), root.issue(kind, subject=FOO, san=(x509.DirectoryName(FOO),)))


@BOTH_VERIFIERS
@pytest.mark.parametrize("permitted", [True, False])
def test_constraint_on_directory_names_is_refused(kind: str, permitted: bool) -> None:
    """This side reads no subject. So it cannot apply the constraint, and does not pass over it."""
    trees = [x509.DirectoryName(FOO)]
    constraints = x509.NameConstraints(trees, None) if permitted else x509.NameConstraints(None, trees)
    root = make(kind, name="root", extra=((constraints, True),))
    with pytest.raises(errors.CredentialRefused):
        verify(Verifier([trusted(root)]), root.issue(kind, subject=FOO))


def constrained(kind: str, domain: str) -> Issued:
    """A root that permits one domain."""
    return make(kind, name="root", extra=((x509.NameConstraints([x509.DNSName(domain)], None), True),))


def malformed_name_beside_a_good_one(kind: str) -> tuple[Issued, Issued]:
    """`nc::nc-permits-invalid-dns-san`. The malformed name is no name here, so nobody is admitted by it."""
    root = constrained(kind, "prod.internal")
    return root, root.issue(kind, san=(x509.DNSName(".prod.internal"), x509.DNSName("app.prod.internal")))


def name_of_an_intermediate_outside_a_constraint(kind: str) -> tuple[Issued, Issued]:
    """`nc::intermediate-with-san-rejected-by-root-nc`, and `-by-intermediate-nc`. Names of intermediates admit nobody."""
    root = constrained(kind, "prod.internal")
    return root, root.authority(kind, name="middle", san=(x509.DNSName("test"),)).issue(kind)


def constraint_with_a_dot_before_it(kind: str) -> tuple[Issued, Issued]:
    """`nc::invalid-dnsname-leading-period`. OpenSSL accepts it too; it permits the names below the domain."""
    root = constrained(kind, ".prod.internal")
    return root, root.issue(kind)


def authority_without_a_subject(kind: str) -> tuple[Issued, Issued]:
    """`rfc5280::ca-empty-subject`. The key of a root identifies it."""
    root = make(kind, subject=x509.Name([]))
    return root, root.issue(kind)


@pytest.mark.parametrize(
    "build",
    [
        malformed_name_beside_a_good_one,
        name_of_an_intermediate_outside_a_constraint,
        constraint_with_a_dot_before_it,
        authority_without_a_subject,
    ],
)
def test_rules_of_the_library_alone(build: Callable[[str], tuple[Issued, Issued]]) -> None:
    """With Ed25519 issuers these chains are accepted. The peer gets only the name that its authority may vouch for."""
    root, leaf = build("ed25519")
    assert verify(Verifier([trusted(root)]), leaf).names == ("dns:app.prod.internal",)
    root, leaf = build("p256")
    with pytest.raises(errors.CredentialRefused):
        verify(Verifier([trusted(root)]), leaf)


@BOTH_VERIFIERS
def test_expired_cross_certificate_beside_a_good_chain(kind: str) -> None:
    """`pathological::multiple-chains-expired-intermediate`: refused, although a chain without the expired one exists.

    The refusal names the expiry, so the holder of the certificate removes the expired one from its file.
    """
    root, old = make(kind, name="root"), make(kind, name="old root")
    cross = make(kind, issuer=old, ca=True, subject=root.certificate.subject, key=root.key, end=-DAY / 2)
    with pytest.raises(errors.CertificateExpired, match="a certificate of the peer was valid until"):
        verify(Verifier([trusted(root, old)]), root.issue(kind), intermediates=(cross.certificate,))


@BOTH_VERIFIERS
def test_extended_key_usage_of_a_root_means_nothing(kind: str) -> None:
    """`webpki::eku::root-has-eku`: this side's file decides what a root is for. OpenSSL reads the purposes of a root too."""
    root = make(kind, name="root", eku=(CLIENT,))
    verify(Verifier([trusted(root)]), root.issue(kind, eku=(SERVER,)), role=Role.RESPONDER)
