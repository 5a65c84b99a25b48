"""`stcp-proxy ca`: a fleet in four commands, what each prints, and that a mistake is a sentence."""

from __future__ import annotations

import getpass
import io
import sys
from pathlib import Path

import pytest
from harness.command import Result, Run, command_line

from stcp_proxy import keys

PASSPHRASE = "correct horse"
ISSUE = ("--name", "dns:App-7.prod.internal", "--uri", "spiffe://Prod/app", "--for", "connect,listen", "--valid", "30d")


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Run:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "stdin", io.StringIO())  # no terminal
    return command_line(monkeypatch, capsys)


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    keys.write_secret_file(tmp_path / "passphrase", PASSPHRASE + "\n")
    return tmp_path / "passphrase"


@pytest.fixture
def ca(run: Run) -> Path:
    assert run("ca", "init", "--out", "ca", "--name", "prod", "--no-passphrase").status == 0
    return Path("ca")


def test_a_fleet_in_four_commands(run: Run, secret: Path) -> None:
    end = ("--passphrase-file", secret)
    made = run("ca", "init", "--out", "ca/", "--name", "prod", *end)
    assert (made.status, made.err) == (0, "")
    assert "authority\n  subject     CN=prod\n" in made.out
    assert "3650 days left" in made.out
    issued = run("ca", "issue", "--ca", "ca/", *ISSUE, "--out", "app-7/", *end)
    assert (issued.status, issued.err) == (0, "")
    assert sorted(path.name for path in Path("app-7").iterdir()) == ["ca.crl", "ca.crt", "tls.crt", "tls.key"]
    assert run("ca", "show", "app-7/tls.crt").out == issued.out
    for says in (
        "name        dns:app-7.prod.internal\n",
        "spiffe://prod/app\n",
        "connect, listen\n",
        "30 days left\n",
        "Ed25519\n",
    ):
        assert says in issued.out
    serial = issued.out.split("serial")[1].split()[0]
    assert run("ca", "show", "ca").out.endswith(f"  {serial}  dns:app-7.prod.internal, spiffe://prod/app  30 days left\n")
    revoked = run("ca", "revoke", "--ca", "ca", serial, *end)
    assert (revoked.status, revoked.out, revoked.err) == (0, f"revoked {serial}\ncopy ca/ca.crl to every host\n", "")
    assert run("ca", "revoke", "--ca", "ca", "app-7/tls.crt", *end).out == "revoked before; nothing has changed\n"
    assert f"revoked     {serial} at 20" in run("ca", "show", "ca/ca.crl").out
    assert run("ca", "show", "ca").out.endswith("revoked\n")


def test_show(run: Run, ca: Path) -> None:
    assert run("ca", "show", "ca").out.endswith("\nnothing issued yet\n")
    assert run("ca", "show", "ca/ca.crl").out.endswith("  revoked     nothing\n")
    key = str(keys.PrivateKey.generate().public)
    issued = run("ca", "issue", "--ca", ca, "--name", "dns:x", "--valid", "90m", "--public-key", key, "--out", "x")
    assert f"  key         {key}\n" in issued.out
    assert "2 hours left" in issued.out
    run("ca", "issue", "--ca", ca, "--uri", "spiffe://a/b", "--for", "listen", "--valid", "1m", "--out", "y")
    assert "for         listen\n" in run("ca", "show", "y/tls.crt").out
    Path("both").write_text(Path("x/tls.crt").read_text() + Path("x/ca.crt").read_text())
    assert run("ca", "show", "both").out.count("serial") == 2


def test_the_passphrase_at_a_terminal(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    typed = ["correct horse", "correct hose", "short", "short", "correct horse", "correct horse", "wrong horse", "correct horse"]
    monkeypatch.setattr(getpass, "getpass", lambda prompt: typed.pop(0))
    monkeypatch.setattr(sys, "stdin", Terminal())
    init = ("ca", "init", "--out", "ca", "--name", "prod")
    issue = ("ca", "issue", "--ca", "ca", "--name", "dns:x", "--out", "x")
    assert run(*init) == Result(2, "", "stcp-proxy: the two passphrases differ; try again\n")
    assert run(*init).err == "stcp-proxy: a passphrase has at least 8 characters; choose a longer one\n"
    assert not Path("ca").exists()
    assert run(*init).status == 0
    assert run(*issue).err == "stcp-proxy: the passphrase does not open ca/ca.key; try again\n"
    assert run(*issue).status == 0
    assert typed == []


@pytest.mark.parametrize(
    ("args", "says"),
    [
        ("init --name x", "Missing option '--out'"),
        ("init --out new", "Missing option '--name'"),
        ("init --out new --name x", "no terminal is here to ask for it; give --passphrase-file FILE, or --no-passphrase"),
        (
            "init --out new --name x --no-passphrase --passphrase-file p",
            "--no-passphrase and --passphrase-file exclude each other",
        ),
        ("init --out ca --name x", "ca exists, and nothing in it is overwritten; choose another name"),
        (
            "init --out new --name x --passphrase-file none",
            "the passphrase file none does not exist; write the passphrase into it",
        ),
        (f"init --out new --name {'x' * 65} --no-passphrase", "--name: this is no name"),
        ("init --out new --name x --no-passphrase --valid 51y", "--valid: '51y' is not a time; write a number of days"),
        ("issue --ca ca --out x", "the certificate would name nobody; give --name dns:NAME or --uri URI"),
        ("issue --ca ca --out x --name app", "--name: 'app' is no DNS name; write --name dns:app"),
        ("issue --ca ca --out x --uri dns:app", "--uri: 'dns:app' is no URI; write --name dns:app"),
        ("issue --ca ca --out x --name dns:*.prod", "'dns:*.prod' is no name of a certificate"),
        ("issue --ca ca --out x --uri spiffe:prod", "'spiffe:prod' is no name of a certificate"),
        ("issue --ca ca --out x --name dns:a --for connect,serve", "--for: 'connect,serve' is no purpose"),
        ("issue --ca ca --out x --name dns:a --valid 0", "--valid: '0' is too short"),
        ("issue --ca ca --out x --name dns:a --valid 4000d", "the authority ends at"),
        ("issue --ca ca --out ca --name dns:a", "ca exists, and nothing in it is overwritten"),
        ("issue --ca none --out x --name dns:a", "none is not the folder of an authority: it has no ca.crt"),
        ("issue --ca ca --out x --name dns:a --public-key stcp-key:AA", "consider it exposed"),
        ("revoke --ca ca 1234", "ca/issued has no certificate with the serial number 1234"),
        ("revoke --ca ca", "Missing argument"),
        ("show ca/ca.key", "ca/ca.key contains a private key, which is not shown"),
        ("show none", "cannot read none: No such file or directory"),
        ("show passphrase", "passphrase contains neither a certificate nor a revocation list"),
        ("show .", ". is not the folder of an authority"),
    ],
)
def test_mistakes(run: Run, ca: Path, secret: Path, args: str, says: str) -> None:
    before = sorted(Path().rglob("*"))
    refused = run("ca", *args.split())
    assert (refused.status, refused.out) == (2, "")
    assert says in refused.err
    assert "Traceback" not in refused.err
    assert PASSPHRASE not in refused.err
    assert [path for path in sorted(Path().rglob("*")) if path != Path("ca/issued")] == before
