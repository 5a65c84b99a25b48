"""Keys as text, and the files that hold the secret ones.

A key is one line: a prefix that says what it is, and 32 bytes in standard base64.

    stcp-pub:…   a host's public key: give it to the other side
    stcp-key:…   its private key: stays in a file that only the user who runs the proxy can read
    stcp-psk:…   a shared secret: the same file on both sides

A key file is that line; blank lines and lines that start with `#` are ignored. No message of this module repeats what it
was given: text that does not parse may be a mistyped secret.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import errno
import grp
import os
import pwd
import secrets
import stat
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Final

from stcp_proxy import acl
from stcp_proxy.errors import KeyFileError
from stcp_proxy.protocol.secret import Secret
from stcp_proxy.protocol.wire import KEY_LEN

PUBLIC_PREFIX: Final = "stcp-pub:"
PRIVATE_PREFIX: Final = "stcp-key:"
PSK_PREFIX: Final = "stcp-psk:"

_NAMES: Final = {PUBLIC_PREFIX: "a public key", PRIVATE_PREFIX: "a private key", PSK_PREFIX: "a shared secret"}
_MAX_FILE: Final = 4096
_SECRET_MODE: Final = 0o600
_MIN_DISTINCT: Final = 8
"""32 random bytes with fewer distinct values than this do not occur."""


@dataclass(frozen=True, slots=True, repr=False)
class PublicKey:
    """A host's X25519 public key.

    Args:
        raw: exactly 32 bytes.

    Raises:
        ValueError: on any other length.
    """

    raw: bytes

    def __post_init__(self) -> None:
        if len(self.raw) != KEY_LEN:
            raise ValueError(f"a public key is {KEY_LEN} bytes, not {len(self.raw)}")

    @classmethod
    def parse(cls, text: str) -> PublicKey:
        """The key that `text` spells.

        Raises:
            KeyFileError: it is not a public key; where it is a secret, the message says so.
        """
        lowered = text.lower()
        if PRIVATE_PREFIX in lowered or PSK_PREFIX in lowered:
            raise KeyFileError(
                "a secret stands where a public key belongs: command lines show in ps and configuration files travel, "
                "so consider it exposed",
                remedy="make a new one with 'stcp-proxy keygen --out FILE' and put what 'stcp-proxy pubkey FILE' prints here",
            )
        raw = _decode(text.strip(), PUBLIC_PREFIX)
        if _low_order(raw):
            raise KeyFileError("this public key is not usable: nobody can hold its private key", remedy="ask its owner again")
        return cls(raw)

    def __str__(self) -> str:
        return PUBLIC_PREFIX + _encode(self.raw)

    def __repr__(self) -> str:
        return f"PublicKey({str(self)!r})"


@dataclass(frozen=True, repr=False)
class PrivateKey:
    """A host's X25519 private key. Its repr shows the public half only."""

    secret: Secret

    @classmethod
    def generate(cls) -> PrivateKey:
        """A new key from the system's random source."""
        return cls(Secret(secrets.token_bytes(KEY_LEN)))

    @classmethod
    def parse(cls, text: str) -> PrivateKey:
        """The key that `text` spells.

        Raises:
            KeyFileError: it is not a private key; the message does not repeat the text.
        """
        return cls(Secret(_decode(text.strip(), PRIVATE_PREFIX)))

    @cached_property
    def public(self) -> PublicKey:
        """The public key that belongs to it."""
        from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

        return PublicKey(X25519PrivateKey.from_private_bytes(self.secret.reveal()).public_key().public_bytes_raw())

    def __repr__(self) -> str:
        return f"PrivateKey(…, public={str(self.public)!r})"


def parse_psk(text: str) -> Secret:
    """The shared secret that `text` spells.

    Raises:
        KeyFileError: it is not one, or clearly not random: message 1 lets an observer test guesses (PROTOCOL.md section 1),
            so a passphrase must not pass for a secret.
    """
    raw = _decode(text.strip(), PSK_PREFIX)
    if len(set(raw)) < _MIN_DISTINCT or all(0x20 <= byte < 0x7F for byte in raw):
        raise KeyFileError(
            "this shared secret is not random: an eavesdropper could guess it",
            remedy="make one with 'stcp-proxy keygen --psk --out FILE' and copy the file to both sides",
        )
    return Secret(raw)


def generate_psk() -> Secret:
    """A new shared secret from the system's random source."""
    return Secret(secrets.token_bytes(KEY_LEN))


def format_private_key(key: PrivateKey) -> str:
    """The line of a key file that `PrivateKey.parse` reads."""
    return PRIVATE_PREFIX + _encode(key.secret.reveal())


def format_psk(secret: Secret) -> str:
    """The line of a key file that `parse_psk` reads."""
    return PSK_PREFIX + _encode(secret.reveal())


def check_file_name(path: str | Path) -> None:
    """Refuse a key itself where the name of its file belongs, before the name appears in a message.

    Raises:
        KeyFileError: the name holds what looks like a secret.
    """
    lowered = str(path).lower()
    if PRIVATE_PREFIX in lowered or PSK_PREFIX in lowered:
        raise KeyFileError(
            "a secret stands where the name of its file belongs: consider it exposed",
            remedy="make a new one with 'stcp-proxy keygen --out FILE' and name FILE here",
        )


# -- files -----------------------------------------------------------------------------------------------------------------


def load_private_key(path: str | Path) -> PrivateKey:
    """The private key in a file.

    Raises:
        KeyFileError: the file is missing, malformed, open to others, or somebody else's.
    """
    text = only_line(path, read_secret_file(path))
    try:
        return PrivateKey.parse(text)
    except KeyFileError as exc:
        raise KeyFileError(f"{path}: {exc.what}", remedy=exc.remedy) from None


def load_psk(path: str | Path) -> Secret:
    """The shared secret in a file.

    Raises:
        KeyFileError: the file is missing, malformed, open to others, or somebody else's.
    """
    text = only_line(path, read_secret_file(path))
    try:
        return parse_psk(text)
    except KeyFileError as exc:
        raise KeyFileError(f"{path}: {exc.what}", remedy=exc.remedy) from None


def write_secret_file(path: str | Path, text: str) -> None:
    """Write a new file that only its owner can read, and have it on disk when this returns.

    Args:
        path: must not exist; nothing is ever overwritten.
        text: the whole content.

    Raises:
        KeyFileError: it exists, or cannot be written; no partial file is left.
    """
    check_file_name(path)
    path = Path(path)
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, _SECRET_MODE)
    except FileExistsError:
        raise KeyFileError(f"{path} exists, and a key file is never overwritten", remedy="choose another name") from None
    except OSError as exc:
        raise KeyFileError(f"cannot create {path}: {exc.strerror}", remedy="choose a folder that you can write to") from None
    try:
        with open(fd, "w", encoding="ascii") as file:
            os.fchmod(fd, _SECRET_MODE)  # whatever the umask took away
            file.write(text)
            file.flush()
            os.fsync(fd)
        _sync_folder(path.parent)
    except OSError as exc:
        path.unlink(missing_ok=True)
        raise KeyFileError(f"cannot write {path}: {exc.strerror}", remedy="make room for it and try again") from None


def _sync_folder(folder: Path) -> None:
    """Make a new name in `folder` survive a power cut."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    except OSError as exc:
        if exc.errno != errno.EINVAL:  # a file system without directory sync
            raise
    finally:
        os.close(fd)


_MAKE: Final = {
    "key": "make one with 'stcp-proxy keygen --out {path}'",
    "token": "make one with '(umask 077; openssl rand -hex 32 >{path})'",
}


def read_secret_file(path: str | Path, *, kind: str = "key") -> bytes:
    """The content of a small file, once the *open* file has proved to be private.

    Symbolic links are followed, because Kubernetes mounts Secrets through two of them. What counts is the descriptor: the
    name may point elsewhere a moment later. O_NONBLOCK keeps a FIFO in the way from holding us up.

    Args:
        path: the file.
        kind: what it holds, for messages: "key" or "token".

    Raises:
        KeyFileError: the file is missing, too large, open to others, or somebody else's.
    """
    check_file_name(path)
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    except FileNotFoundError:
        raise KeyFileError(f"the {kind} file {path} does not exist", remedy=_MAKE[kind].format(path=path)) from None
    except PermissionError:
        raise KeyFileError(
            f"the {kind} file {path} may not be read by user {os.geteuid()}",
            remedy="make the user that runs stcp-proxy its owner",
        ) from None
    except (OSError, ValueError) as exc:
        raise KeyFileError(
            f"cannot open the {kind} file {path}: {getattr(exc, 'strerror', None) or exc}", remedy="name a file that can be read"
        ) from None
    try:
        _check_private(path, fd, kind)
        with open(fd, "rb", closefd=False) as file:
            content = file.read(_MAX_FILE + 1)
    except OSError as exc:
        raise KeyFileError(
            f"cannot read the {kind} file {path}: {exc.strerror}", remedy="check the file system that it is on"
        ) from None
    finally:
        os.close(fd)
    if len(content) > _MAX_FILE:
        raise KeyFileError(f"{path} is larger than {_MAX_FILE} bytes: not a {kind} file", remedy="name the right file")
    return content


def _check_private(path: str | Path, fd: int, kind: str) -> None:
    """Refuse a file that somebody else can read or exchange."""
    status = os.fstat(fd)
    if not stat.S_ISREG(status.st_mode):
        raise KeyFileError(f"{path} is not a regular file", remedy=f"name the {kind} file itself")
    if status.st_uid not in (0, os.geteuid()):
        raise KeyFileError(
            f"the {kind} file {path} belongs to user {status.st_uid}, who can read and replace it",
            remedy=f"run this as that user, or 'chown {os.geteuid()} {path}' if the {kind} is this user's alone",
        )
    mode = stat.S_IMODE(status.st_mode)
    listed = acl.admits_only(fd, os.geteuid()) if mode & 0o077 == stat.S_IRGRP and status.st_uid == 0 else None
    if listed is not None:
        if not listed:
            raise KeyFileError(
                f"the {kind} file {path} has an access list that lets others in",
                remedy=f"see it with 'getfacl {path}', take it off with 'setfacl -b {path}'",
            )
    elif mode & 0o077 == stat.S_IRGRP and status.st_uid == 0 and os.geteuid() != 0:
        _check_group(path, status.st_gid, kind)
    elif mode & 0o077:
        raise KeyFileError(
            f"the {kind} file {path} has mode {mode:04o}: others on this machine can get at it",
            remedy=f"'chmod 600 {path}', or make a new {kind} if they may have read it",
        )


def _check_group(path: str | Path, group: int, kind: str) -> None:
    """Refuse a file of root's that a group may read, unless that is how this user alone was given it.

    So are the files of a Kubernetes Secret in a pod with `fsGroup`: root's, mode 0440, of a group that the pod's processes are in
    and that no group database knows. On a host, a group of this user alone is as good.
    """
    if group not in (os.getegid(), *os.getgroups()):
        raise KeyFileError(
            f"the {kind} file {path} may be read by group {group}, of which user {os.geteuid()} is not a member",
            remedy="give it to a group of this user's own ('chgrp'), or make this user its owner with mode 600",
        )
    others = _others_in(group)
    if others:
        raise KeyFileError(
            f"the {kind} file {path} may be read by group {group}, and so by user '{others[0]}'",
            remedy="give it to a group that only the user who runs stcp-proxy is in, or make this user its owner with mode 600",
        )


def _others_in(group: int) -> list[str]:
    """Users in `group`, as far as the user and group databases tell, other than root and the one that runs this process."""
    names = {user.pw_name for user in pwd.getpwall() if user.pw_gid == group}
    with contextlib.suppress(KeyError):
        names.update(grp.getgrgid(group).gr_mem)
    ours = {user.pw_name for user in pwd.getpwall() if user.pw_uid in (0, os.geteuid())}
    return sorted(names - ours)


def only_line(path: str | Path, content: bytes, *, kind: str = "key") -> str:
    """The one line of a small file that is neither blank nor a comment.

    Args:
        path: its name, for messages.
        content: its content.
        kind: what it holds, for messages: "key" or "token".

    Raises:
        KeyFileError: there is not exactly one.
    """
    lines = [line.strip() for line in content.decode("utf-8", "replace").splitlines()]
    lines = [line for line in lines if line and not line.startswith("#")]
    if len(lines) != 1:
        found = f"no {kind}" if not lines else f"{len(lines)} lines"
        raise KeyFileError(f"{path} holds {found} where one {kind} belongs", remedy=_MAKE[kind].format(path="FILE"))
    return lines[0]


# -- text ------------------------------------------------------------------------------------------------------------------


def _encode(raw: bytes) -> str:
    return base64.b64encode(raw).decode("ascii")


def _decode(text: str, prefix: str) -> bytes:
    """The 32 bytes behind `prefix`; only the one canonical spelling is taken."""
    if not text.startswith(prefix):
        raise _wrong_prefix(text, prefix)
    body = text.removeprefix(prefix)
    try:
        raw = base64.b64decode(body.encode("ascii"), validate=True)
    except (binascii.Error, UnicodeEncodeError):
        raw = b""
    if len(raw) != KEY_LEN or _encode(raw) != body:
        raise KeyFileError(
            f"{_NAMES[prefix]} is '{prefix}' and {KEY_LEN} bytes in base64 (44 characters); this one is damaged or cut short",
            remedy="copy the whole line again",
        )
    return raw


def _wrong_prefix(text: str, wanted: str) -> KeyFileError:
    """What to say about text that does not start with `wanted`, without repeating it."""
    for prefix, name in _NAMES.items():
        if text.lower().startswith(prefix):
            if prefix == wanted:
                return KeyFileError(f"the prefix '{wanted}' is written in small letters", remedy="correct it")
            return KeyFileError(f"this is {name}, where {_NAMES[wanted]} belongs", remedy=_SWAPPED[wanted])
    return KeyFileError(f"this is not {_NAMES[wanted]}: it does not start with '{wanted}'", remedy=_SWAPPED[wanted])


_SWAPPED: Final = {
    PUBLIC_PREFIX: "put what 'stcp-proxy pubkey FILE' prints here",
    PRIVATE_PREFIX: "name a file made with 'stcp-proxy keygen --out FILE'",
    PSK_PREFIX: "name a file made with 'stcp-proxy keygen --psk --out FILE'",
}


def _low_order(raw: bytes) -> bool:
    """Whether X25519 with this public key gives zero for every private key: a point of small order."""
    from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey

    try:
        X25519PrivateKey.from_private_bytes(bytes(KEY_LEN)).exchange(X25519PublicKey.from_public_bytes(raw))
    except ValueError:
        return True
    return False
