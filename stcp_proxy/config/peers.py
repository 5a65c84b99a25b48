"""The peers of a configuration: those of the file, and those of peer directories.

A peer directory contains a file for each peer. NAME.pub is the peer NAME; other files are ignored:

    # groups: apps, prod
    stcp-pub:…

A file may have several keys while one replaces the other. In `allow`, `@apps` means every peer of the group.
An empty file and an empty directory are mistakes, because they may be incomplete: somebody may still be writing them.
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from stcp_proxy.config.file_access import warn_if_open_to_others, warn_if_others_add_files
from stcp_proxy.config.inputs import PEER_SUFFIX, peer_files
from stcp_proxy.config.source import Finding, KeyPath, Source
from stcp_proxy.config.value_types import GROUP_MARK, NAME
from stcp_proxy.errors import ConfigError
from stcp_proxy.keys import PublicKey
from stcp_proxy.protocol.handshake import MAX_RING
from stcp_proxy.redact import shown

MAX_PEERS: Final = 100_000
"""The largest number of files in a peer directory."""
_MAX_FILE: Final = 4096
_GROUPS: Final = re.compile(r"#\s*groups\s*:(.*)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class PeerFile:
    """One file of a peer directory.

    Attributes:
        keys: the peer's public keys, at least one.
        groups: names of its groups.
    """

    keys: tuple[PublicKey, ...]
    groups: tuple[str, ...]


class Peers:
    """Every peer that the rules of a configuration may name. Mistakes are noted in the source.

    Args:
        source: collects the mistakes.
        named: keys of the peers in the file itself, by name.
        directories: names of peer directories.

    Attributes:
        names: the name of each key.
        included: the keys from peer directories, with their names.
    """

    def __init__(self, source: Source, named: dict[str, list[PublicKey]], directories: Sequence[str]) -> None:
        self._source = source
        self._keys: dict[str, Sequence[PublicKey]] = dict(named)
        self._groups: dict[str, list[PublicKey]] = {}
        self._places: dict[str, str] = {}
        self.names: dict[PublicKey, str] = {}
        self.included: dict[PublicKey, str] = {}
        for name, keys in named.items():
            self._check_name(name)
            self._add(name, keys)
        for index, directory in enumerate(directories):
            self._include(("peers", "include", index), source.file(directory))

    def find(self, path: KeyPath, entry: str) -> Sequence[PublicKey]:
        """The keys of a peer, or of a group. An unknown name is noted.

        Args:
            path: the key path of the entry.
            entry: a peer's name, or `@` and a group's name.
        """
        group = entry.removeprefix(GROUP_MARK)
        known = self._keys if group == entry else self._groups
        keys = known.get(group)
        if keys is None:
            self._source.report(path, *(self._unknown_name(entry) if group == entry else self._unknown_group(group)))
        return keys or ()

    def _unknown_name(self, name: str) -> tuple[str, str]:
        if self._source.from_flags:
            return f"{shown(name)} is no public key", "give what 'stcp-proxy pubkey FILE' prints on the other side"
        close = difflib.get_close_matches(name, self._keys, n=1)
        remedy = f"did you mean '{close[0]}'?" if close else "add it there, or write the public key itself (stcp-pub:…)"
        return f"{shown(name)} is not in 'peers'", remedy

    def _unknown_group(self, group: str) -> tuple[str, str]:
        close = difflib.get_close_matches(group, self._groups, n=1)
        write = f"write '# groups: {group}' into a NAME.pub file of the directory that 'peers: {{include: …}}' names"
        return f"no peer is in the group {shown(group)}", f"did you mean '@{close[0]}'?" if close else write

    # -- the file ----------------------------------------------------------------------------------------------------------

    def _check_name(self, name: str) -> None:
        if not re.fullmatch(NAME, name):
            what = f"{shown(name)} is not a name"
            self._source.report(("peers", name), what, "use letters, digits, '.', '_' and '-', at most 63")

    def _add(self, name: str, keys: Sequence[PublicKey], file: str | None = None) -> None:
        """Add a peer. Note keys that a different peer has, and keys that are listed twice."""
        for index, key in enumerate(keys):
            known = self.names.setdefault(key, name)
            what, remedy = "", ""
            if known != name:
                what, remedy = f"'{known}' has the same key", "keep one name for a key"
            elif keys.index(key) != index:
                what, remedy = "this key is there already", "name it once"
            if what and file is not None:
                self._source.findings.append(Finding(file, what, remedy))
            elif what:
                self._source.report(("peers", name, index), what, remedy)

    # -- a directory -------------------------------------------------------------------------------------------------------

    def _include(self, path: KeyPath, folder: Path) -> None:
        try:
            names = peer_files(folder)
        except OSError as exc:
            what = f"cannot read the peer directory {folder}: {exc.strerror}"
            self._source.report(path, what, "name a directory with a file NAME.pub for each peer")
            return
        if not 0 < len(names) <= MAX_PEERS:
            what = f"{folder} contains {len(names) or 'no'} {PEER_SUFFIX} files"
            remedy = f"keep at most {MAX_PEERS}" if names else "write a file NAME.pub with the public key of each peer"
            self._source.report(path, what, remedy)
            return
        for name in names:
            try:
                self._include_file(folder / name)
            except ConfigError as exc:
                self._source.findings.append(Finding(str(folder / name), exc.what, exc.remedy))
        if not warn_if_others_add_files(folder):  # each further file is a further peer
            any(warn_if_open_to_others(folder / name) for name in names)  # one warning is enough

    def _include_file(self, file: Path) -> None:
        name = file.name.removesuffix(PEER_SUFFIX)
        if not re.fullmatch(NAME, name):
            raise ConfigError(f"{shown(name)} is not a name", remedy="use letters, digits, '.', '_' and '-', at most 63")
        if name in self._keys:
            other = self._places.get(name, "'peers'")
            raise ConfigError(f"'{name}' is in {other} already", remedy="keep one of them, or rename the file")
        found = read_peer_file(file)
        self._keys[name], self._places[name] = found.keys, str(file)
        self._add(name, found.keys, str(file))
        self.included.update(dict.fromkeys(found.keys, name))
        for group in found.groups:
            self._groups.setdefault(group, []).extend(found.keys)


def read_peer_file(file: Path) -> PeerFile:
    """Read one file of a peer directory.

    Raises:
        ConfigError: the file cannot be read, contains no key, or has a line of another form.
    """
    try:
        with open(file, "rb", opener=_open) as opened:
            content = opened.read(_MAX_FILE + 1)
    except OSError as exc:
        raise ConfigError(f"it cannot be read: {exc.strerror}", remedy="let the user of stcp-proxy read it") from None
    if len(content) > _MAX_FILE:
        raise ConfigError(f"it is larger than {_MAX_FILE} bytes", remedy="keep the public keys of one peer in it")
    keys: list[PublicKey] = []
    groups: list[str] = []
    for number, line in enumerate(content.decode("utf-8-sig", "replace").splitlines(), start=1):
        text = line.strip()
        if (match := _GROUPS.fullmatch(text)) is not None:
            groups += _groups(match[1], number)
        elif text and not text.startswith("#"):
            keys.append(_key(text, number))
    if not keys:
        raise ConfigError("it contains no public key", remedy="write what 'stcp-proxy pubkey' prints on that host into it")
    if len(keys) > MAX_RING:
        raise ConfigError(f"it contains {len(keys)} keys; a peer has at most {MAX_RING}", remedy="remove the old ones")
    return PeerFile(tuple(keys), tuple(dict.fromkeys(groups)))


def _open(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK | os.O_NOCTTY)  # a FIFO must not stop the reader


def _key(text: str, number: int) -> PublicKey:
    try:
        return PublicKey.parse(text)
    except ConfigError as exc:
        raise ConfigError(f"line {number}: {exc.what}", remedy=exc.remedy) from None


def _groups(text: str, number: int) -> list[str]:
    groups = [each.strip() for each in text.split(",")]
    wrong = next((each for each in groups if not re.fullmatch(NAME, each)), None)
    if wrong is not None:
        remedy = "write names with commas between: '# groups: apps, prod'"
        raise ConfigError(f"line {number}: {shown(wrong)} is no name of a group", remedy=remedy)
    return groups
