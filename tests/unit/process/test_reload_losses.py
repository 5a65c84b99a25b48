"""A reload refuses an older revocation list in the place of a newer one."""

from __future__ import annotations

from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from harness.certificates import DAY, TestAuthority, now

from stcp_proxy.config import Plan
from stcp_proxy.config.certificate_files import load_lists, load_roots
from stcp_proxy.config.certificate_plan import AuthorityPlan, Encoded, Facts, Trusted
from stcp_proxy.errors import ConfigError
from stcp_proxy.process.reload import compared

YEAR_2030 = 1893456000.0


def made(number: str, age: float = 0.0, *, issuer: str = "CN=ca", key: str = "") -> Encoded:
    """A list with a number, made `age` seconds before 2030."""
    return Encoded(b"", Facts(issuer, number, YEAR_2030 - age, YEAR_2030 + 86400, issuer, key))


def plan(*lists: Encoded, authority: str = "prod") -> Plan:
    return Plan((), trusted=Trusted((AuthorityPlan(authority, (), (), lists),)))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        pytest.param([made("10")], [made("9")], id="number, as a number"),
        pytest.param([made("10", 60)], [made("9")], id="the number decides"),
        pytest.param([made("")], [made("", 60)], id="time"),
        pytest.param([made("7")], [made("7", 60)], id="time of one number"),
        pytest.param([made("7")], [made("", 60)], id="one without a number"),
        pytest.param([made("7", key="ab")], [made("6")], id="one that names no key"),
        pytest.param([made("7"), made("5", issuer="CN=b")], [made("7"), made("4", issuer="CN=b")], id="one of two"),
        pytest.param([made("7"), made("6", 60)], [made("6", 60)], id="the newest of two is gone"),
    ],
)
def test_an_older_list_is_refused(old: list[Encoded], new: list[Encoded]) -> None:
    with pytest.raises(
        ConfigError, match=r"list of 'CN=\w+' for authority 'prod' is older than the one in force: .* of 20.* instead of .* of 20"
    ):
        compared(plan(*old), plan(*new))
    compared(plan(*old), plan(*new), force=True)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        pytest.param([made("9")], [made("10")], id="newer"),
        pytest.param([made("9")], [made("10", 60)], id="the number decides"),
        pytest.param([made("9")], [made("9")], id="the same"),
        pytest.param([made("9", key="ab")], [made("1", key="cd")], id="another key counts anew"),
        pytest.param([made("9")], [made("1", issuer="CN=b")], id="another issuer"),
        pytest.param([made("9")], [], id="the file names none any more"),
        pytest.param([made("9")], [made("8", 60), made("10")], id="an older one beside the newest"),
    ],
)
def test_other_changes_are_not(old: list[Encoded], new: list[Encoded]) -> None:
    compared(plan(*old), plan(*new))


def test_lists_of_different_authorities_are_not_compared() -> None:
    compared(plan(made("9"), authority="a"), plan(made("8", 60), authority="b"))


def test_number_and_key_of_a_real_list(tmp_path: Path) -> None:
    """Both are read from the file; the sentence has numbers and times of both lists."""
    authority = TestAuthority()
    roots = load_roots(authority.bundle(tmp_path / "ca.crt"), now=now().timestamp())

    def listed(number: int) -> Encoded:
        builder = x509.CertificateRevocationListBuilder(authority.subject, now() - DAY, now() + DAY)
        builder = builder.add_extension(x509.CRLNumber(number), critical=False)
        public = authority.key.public_key()
        builder = builder.add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(public), critical=False)
        path = tmp_path / "ca.crl"
        path.write_bytes(builder.sign(authority.key, authority.hash).public_bytes(Encoding.PEM))
        (found,) = load_lists(path, roots)
        return found

    newer, older = listed(300), listed(299)
    assert newer.facts.key_id == older.facts.key_id != ""
    with pytest.raises(ConfigError, match=r"number 299 of .* instead of number 300 of "):
        compared(plan(newer), plan(older))
