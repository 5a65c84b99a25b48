"""Read a file that holds a secret, and refuse it when another user can read or replace it. ``new_file`` writes such files.

Invariants:
- A file is checked through its open descriptor: its name may refer to a different file a moment later.
- No message shows the content of a file.
"""

from __future__ import annotations

import contextlib
import grp
import os
import pwd
import stat
from pathlib import Path
from typing import Final

from stcp_proxy import acl
from stcp_proxy.errors import KeyFileError
from stcp_proxy.keys.text import PRIVATE_PREFIX, PSK_PREFIX

_MAX_FILE: Final = 4096


def check_file_name(path: str | Path) -> None:
    """Refuse a file name that contains a key. Call this before the name appears in a message.

    Raises:
        KeyFileError: the name contains text that looks like a secret.
    """
    lowered = str(path).lower()
    if PRIVATE_PREFIX in lowered or PSK_PREFIX in lowered:
        raise KeyFileError(
            "a secret stands where the name of its file belongs: consider it exposed",
            remedy="make a new one with 'stcp-proxy keygen --out FILE' and name FILE here",
        )


CREDENTIALS: Final = Path("/run/credentials")
"""The folder in which systemd has a folder for each unit with credentials. Such a folder exists while its unit runs."""
_AS_UNIT: Final = (
    "run this command with the credential: systemd-run --pipe --wait --quiet -p LoadCredential={name}:FILE stcp-proxy check "
    "CONFIG; docs/SYSTEMD.md has an example"
)


def credential_file(path: str | Path) -> Path:
    """The file of a credential for this process.

    A file below `CREDENTIALS` is the copy that systemd makes for one unit. `check` and `doctor` run outside this unit, with
    a copy of their own in $CREDENTIALS_DIRECTORY: that file is meant then.

    Args:
        path: the file as configured.
    """
    file, own = Path(path), os.environ.get("CREDENTIALS_DIRECTORY")
    if own and _is_credential(file) and file.parent != Path(own) and (Path(own) / file.name).exists():
        return Path(own) / file.name
    return file


def _is_credential(file: Path) -> bool:
    return file.parent.parent == CREDENTIALS


MAKE_REMEDY: Final = {
    "key": "make one with 'stcp-proxy keygen --out {path}'",
    "certificate key": "name the private key of the certificate, often tls.key",
    "token": "make one with '(umask 077; openssl rand -hex 32 >{path})'",
    "headers": "write 'authorization: Bearer …' into it with an editor, with mode 600",
    "passphrase": "write the passphrase into it with an editor, with mode 600",
    "authority's key": "name the folder that 'stcp-proxy ca init' made",
}


def read_secret_file(path: str | Path, *, kind: str = "key") -> bytes:
    """Read a small file after checking that it is private.

    Symbolic links are followed: Kubernetes mounts Secrets through two of them. O_NONBLOCK keeps `open` from waiting
    when the name is a FIFO.

    Args:
        path: the file.
        kind: one of `MAKE_REMEDY`, for messages.

    Raises:
        KeyFileError: the file is missing, too large, open to other users, or owned by another user.
    """
    check_file_name(path)
    path = credential_file(path)
    outside = _AS_UNIT.format(name=path.name) if _is_credential(path) else ""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    except FileNotFoundError:
        raise KeyFileError(
            f"the {kind} file {path} does not exist", remedy=outside or MAKE_REMEDY[kind].format(path=path)
        ) from None
    except PermissionError:
        raise KeyFileError(
            f"the {kind} file {path} may not be read by user {os.geteuid()}",
            remedy=outside or "make the user that runs stcp-proxy its owner",
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
    """Refuse a file that another user can read or replace."""
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
    elif mode & 0o077 == stat.S_IRGRP and status.st_uid == 0 and _is_given_by(status.st_gid):
        _check_group(path, status.st_gid, kind)
    elif mode & 0o077:
        raise KeyFileError(
            f"the {kind} file {path} has mode {mode:04o}: others on this machine can get at it",
            remedy=_narrow(path, fd, kind),
        )


def _is_given_by(group: int) -> bool:
    """Whether this process may have access to a file of root through a group.

    Root reads every file, so its groups are no evidence. In a pod with `fsGroup`, root is a member of that group.
    """
    return os.geteuid() != 0 or (group not in (0, os.getegid()) and group in os.getgroups())


def _narrow(path: str | Path, fd: int, kind: str) -> str:
    """The instruction that makes an open file private on its file system."""
    if os.fstatvfs(fd).f_flag & os.ST_RDONLY:
        return "its mount is read-only: mount it with mode 0400 (in Kubernetes: defaultMode), or name a copy of mode 600"
    return f"'chmod 600 {path}', or make a new {kind} if they may have read it"


def _check_group(path: str | Path, group: int, kind: str) -> None:
    """Refuse a group-readable file of root, unless this user is the group's only member.

    The files of a Kubernetes Secret in a pod with `fsGroup` look like this: owner root, mode 0440, and a group that the
    pod's processes are in and that no group database knows.
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
    """Names of the users in `group`, without root and the user of this process, from the user and group databases."""
    names = {user.pw_name for user in pwd.getpwall() if user.pw_gid == group}
    with contextlib.suppress(KeyError):
        names.update(grp.getgrgid(group).gr_mem)
    ours = {user.pw_name for user in pwd.getpwall() if user.pw_uid in (0, os.geteuid())}
    return sorted(names - ours)
