"""Cases of the public collection x509-limbo in which this side once differed, each with the decision about it."""

from __future__ import annotations

import pytest
from cryptography import x509

from stcp_proxy import errors
from stcp_proxy.credentials.verifier import Verifier

from .issue import make, trusted, verify

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
