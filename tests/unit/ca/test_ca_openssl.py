"""openssl reads and verifies what an authority makes."""

from __future__ import annotations

import shutil
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from stcp_proxy.ca import folder
from stcp_proxy.ca.folder import AuthorityFolder, Order
from stcp_proxy.keys import PrivateKey

pytestmark = pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not installed")
NOW = datetime.now(UTC).replace(microsecond=0)
DAY = timedelta(days=1)


def openssl(*args: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["openssl", *map(str, args)], capture_output=True, text=True, timeout=60, check=False)


@pytest.fixture(scope="module")
def ca(tmp_path_factory: pytest.TempPathFactory) -> AuthorityFolder:
    path = tmp_path_factory.mktemp("authority") / "ca"
    folder.create(path, "prod", passphrase=b"correct horse", now=NOW, validity=30 * DAY)
    return AuthorityFolder(path)


def issue(ca: AuthorityFolder, name: str, *purposes: str, own_key: bool = False) -> Path:
    out = ca.path.parent / name
    public = PrivateKey.generate().public if own_key else None
    order = Order((f"dns:{name}.prod.internal", f"spiffe://prod/{name}"), purposes, DAY, public)
    ca.issue(order, out, ask=lambda: b"correct horse", now=NOW)
    return out / "tls.crt"


@pytest.mark.parametrize("own_key", [False, True])
def test_openssl_verifies_a_certificate(ca: AuthorityFolder, own_key: bool) -> None:
    leaf = issue(ca, f"app-{own_key:d}", "connect", own_key=own_key)
    verify = ("verify", "-x509_strict", "-CAfile", ca.path / "ca.crt")
    assert openssl(*verify, "-purpose", "sslclient", leaf).stdout == f"{leaf}: OK\n"
    refused = openssl(*verify, "-purpose", "sslserver", leaf)
    assert refused.returncode != 0
    assert "unsuitable certificate purpose" in refused.stderr + refused.stdout


def test_openssl_sees_the_revocation(ca: AuthorityFolder) -> None:
    kept, gone = issue(ca, "kept", "connect", "listen"), issue(ca, "gone", "connect", "listen")
    ca.revoke([str(gone)], ask=lambda: b"correct horse", now=NOW)
    verify = ("verify", "-x509_strict", "-crl_check", "-CAfile", ca.path / "ca.crt", "-CRLfile", ca.path / "ca.crl")
    assert openssl(*verify, kept).stdout == f"{kept}: OK\n"
    refused = openssl(*verify, gone)
    assert "certificate revoked" in refused.stderr + refused.stdout
    shown = openssl("crl", "-in", ca.path / "ca.crl", "-CAfile", ca.path / "ca.crt", "-noout", "-text")
    assert "verify OK" in shown.stderr
    assert "critical" not in shown.stdout


def test_openssl_reads_the_encrypted_key(ca: AuthorityFolder) -> None:
    shown = openssl("pkey", "-in", ca.path / "ca.key", "-passin", "pass:correct horse", "-noout", "-text")
    assert "ED25519 Private-Key" in shown.stdout
    assert openssl("pkey", "-in", ca.path / "ca.key", "-passin", "pass:wrong horse", "-noout").returncode != 0
