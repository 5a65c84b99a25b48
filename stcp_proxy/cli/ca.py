"""`stcp-proxy ca`: a small certificate authority for those who have none."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from stcp_proxy.cli import completion

if TYPE_CHECKING:
    import datetime
    from collections.abc import Callable

_MIN_PASSPHRASE = 8
_PURPOSES = ("connect", "listen")

Folder = Annotated[
    Path,
    typer.Option("--ca", metavar="FOLDER", help="The authority's folder.", autocompletion=completion.files, show_default=False),
]
NewFolder = Annotated[
    Path,
    typer.Option(
        "--out", metavar="FOLDER", help="Make this folder; never overwrites.", autocompletion=completion.files, show_default=False
    ),
]
PassphraseFile = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="Read the passphrase from the first line of this file.",
        autocompletion=completion.files,
        show_default="ask at the terminal",
    ),
]

group = typer.Typer(
    help="Issue and revoke certificates for hosts: a small authority for those who have none.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.add_typer(group, name="ca")


@group.command("init")
def init(
    out: NewFolder,
    name: Annotated[
        str, typer.Option(metavar="NAME", help="The authority's name, for people.", autocompletion=completion.words())
    ],
    valid: Annotated[
        str, typer.Option(metavar="TIME", help="How long the authority is valid.", autocompletion=completion.words())
    ] = "3650d",
    passphrase_file: PassphraseFile = None,
    no_passphrase: Annotated[bool, typer.Option("--no-passphrase", help="Do not encrypt the authority's key.")] = False,
) -> None:
    """Make a new authority: a certificate, an encrypted key, and an empty revocation list.

    Keep the folder on a machine that serves nothing, and a copy of it in a safe place. Every host gets ca.crt and ca.crl from it.
    """
    from stcp_proxy.ca import folder
    from stcp_proxy.ca.description import text_of
    from stcp_proxy.errors import ConfigError

    if no_passphrase and passphrase_file is not None:
        raise ConfigError("--no-passphrase and --passphrase-file exclude each other", remedy="give one of them")
    if not name.isprintable() or not 0 < len(name.strip()) <= 64:  # RFC 5280: ub-common-name
        raise ConfigError("--name: this is no name", remedy="use 1 to 64 printable characters")
    validity = _validity(valid)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):  # before anybody types a passphrase
        raise ConfigError(f"{out} exists, and nothing in it is overwritten", remedy="choose another name")
    passphrase = None if no_passphrase else _passphrase(passphrase_file, new=True)
    now = _now()
    print(text_of(folder.create(out, name.strip(), passphrase=passphrase, now=now, validity=validity), now))


@group.command("issue")
def issue(
    ca: Folder,
    out: NewFolder,
    name: Annotated[
        list[str] | None,
        typer.Option(metavar="dns:NAME", help="A DNS name of the host; repeat it for more.", autocompletion=completion.words()),
    ] = None,
    uri: Annotated[
        list[str] | None,
        typer.Option(metavar="URI", help="A URI that names the host; repeat it for more.", autocompletion=completion.words()),
    ] = None,
    purposes: Annotated[
        str,
        typer.Option(
            "--for",
            metavar="connect,listen",
            help="What the certificate may be used for.",
            autocompletion=completion.words(*_PURPOSES),
        ),
    ] = ",".join(_PURPOSES),
    valid: Annotated[
        str, typer.Option(metavar="TIME", help="How long the certificate is valid.", autocompletion=completion.words())
    ] = "365d",
    public_key: Annotated[
        str | None,
        typer.Option(
            metavar="PUBKEY",
            help="The host's own public key, which 'stcp-proxy pubkey' prints there.",
            autocompletion=completion.words(),
            show_default="make a new key",
        ),
    ] = None,
    passphrase_file: PassphraseFile = None,
) -> None:
    """Issue a certificate for a host: a folder with tls.crt, tls.key, ca.crt and ca.crl.

    With --public-key, the private key stays on the host, and the folder has no tls.key.
    """
    from stcp_proxy.ca.description import text_of
    from stcp_proxy.ca.folder import AuthorityFolder, Order
    from stcp_proxy.keys import PublicKey

    order = Order(
        names=_names(name or [], uri or []),
        purposes=_chosen(purposes),
        validity=_validity(valid),
        public=None if public_key is None else PublicKey.parse(public_key),
    )
    now = _now()
    certificate = AuthorityFolder(ca).issue(order, out, ask=_asker(passphrase_file), now=now)
    print(text_of(certificate, now))


@group.command("revoke")
def revoke(
    ca: Folder,
    which: Annotated[
        list[str],
        typer.Argument(
            metavar="SERIAL|CERT", help="Serial number, or certificate file.", show_default=False, autocompletion=completion.files
        ),
    ],
    force: Annotated[
        bool, typer.Option("--force", help="Revoke a serial number of which the folder has no certificate.")
    ] = False,
    passphrase_file: PassphraseFile = None,
) -> None:
    """Revoke certificates: write them into ca.crl of the authority's folder.

    Copy ca.crl to every host afterwards. A host with 'watch' then refuses the certificate and ends its connections.
    """
    from stcp_proxy.ca.folder import REVOKED, AuthorityFolder

    new = AuthorityFolder(ca).revoke(which, ask=_asker(passphrase_file), now=_now(), force=force)
    for serial in new:
        print(f"revoked {serial:x}")
    print(f"copy {ca / REVOKED} to every host" if new else "revoked before; nothing has changed")


@group.command("show")
def show(
    file: Annotated[
        Path,
        typer.Argument(
            metavar="FILE",
            help="A certificate, a revocation list, or an authority's folder.",
            show_default=False,
            autocompletion=completion.files,
        ),
    ],
) -> None:
    """Print what a certificate or a revocation list says, or what an authority has issued."""
    from stcp_proxy.ca.description import describe

    print(describe(file, _now()))


# -- arguments -----------------------------------------------------------------------------------------------------------------


def _names(dns: list[str], uris: list[str]) -> tuple[str, ...]:
    """The names of a certificate, in the form that rules match."""
    from stcp_proxy.credentials.names import DNS, MAX_NAMES_LEN, parse_name
    from stcp_proxy.errors import ConfigError

    for option, texts, right in (("--name", dns, True), ("--uri", uris, False)):
        for text in texts:
            if text.lower().startswith(DNS) is not right:
                remedy = f"write --name dns:{text}" if right else f"write --name {text}"
                raise ConfigError(f"{option}: {text!r} is no {'DNS name' if right else 'URI'}", remedy=remedy)
    try:
        names = tuple(dict.fromkeys(map(parse_name, [*dns, *uris])))
    except ValueError as exc:
        raise ConfigError(str(exc), remedy="names in certificates have no wildcards") from None
    if not names:
        raise ConfigError("the certificate would name nobody", remedy="give --name dns:NAME or --uri URI")
    if sum(map(len, names)) > MAX_NAMES_LEN:
        raise ConfigError(f"the names have more than {MAX_NAMES_LEN} characters together", remedy="give fewer names")
    return names


def _chosen(text: str) -> tuple[str, ...]:
    from stcp_proxy.errors import ConfigError

    purposes = tuple(dict.fromkeys(text.split(",")))
    if not set(purposes) <= set(_PURPOSES):
        raise ConfigError(f"--for: {text!r} is no purpose", remedy="write connect, listen, or connect,listen")
    return purposes


def _validity(text: str) -> datetime.timedelta:
    import datetime

    from stcp_proxy.config.duration import parse_duration
    from stcp_proxy.errors import ConfigError

    longest, shortest = 50 * 365 * 86400, 60
    try:
        seconds = parse_duration(text, most=longest)
    except ConfigError as exc:
        raise ConfigError(f"--valid: {exc.what}", remedy="write a number of days such as 30d") from None
    if seconds < shortest:
        raise ConfigError(f"--valid: {text!r} is too short", remedy="write a number of days such as 30d")
    return datetime.timedelta(seconds=seconds)


def _now() -> datetime.datetime:
    """The time, in whole seconds as certificates have them."""
    import datetime

    return datetime.datetime.now(datetime.UTC).replace(microsecond=0)


# -- the passphrase ------------------------------------------------------------------------------------------------------------


def _asker(file: Path | None) -> Callable[[], bytes]:
    return lambda: _passphrase(file)


def _passphrase(file: Path | None, *, new: bool = False) -> bytes:
    """The passphrase of the authority's key, from a file or from the terminal; twice where it is new."""
    import getpass
    import sys

    from stcp_proxy.errors import ConfigError, KeyFileError
    from stcp_proxy.keys import read_secret_file

    if file is not None:
        lines = read_secret_file(file, kind="passphrase").splitlines()
        passphrase = lines[0] if lines else b""
    elif not sys.stdin.isatty():
        remedy = "give --passphrase-file FILE" + (", or --no-passphrase" if new else "")
        raise ConfigError("the authority's key needs a passphrase, and no terminal is here to ask for it", remedy=remedy)
    else:
        passphrase = getpass.getpass("Passphrase of the authority's key: ").encode()
        if new and passphrase != getpass.getpass("The same again: ").encode():
            raise ConfigError("the two passphrases differ", remedy="try again")
    if new and len(passphrase) < _MIN_PASSPHRASE:
        raise KeyFileError(f"a passphrase has at least {_MIN_PASSPHRASE} characters", remedy="choose a longer one")
    return passphrase
