"""The folder that a unix socket is in. It has to exist before a proxy can listen there."""

from __future__ import annotations

import os
from pathlib import PurePath
from typing import Final

from stcp_proxy.config.source import KeyPath, Source
from stcp_proxy.net.address import UnixAddress

RUNTIME: Final = PurePath("/run")
"""The folder in which systemd makes a unit's `RuntimeDirectory=` when the unit starts."""


def check_folder(source: Source, path: KeyPath, address: object) -> None:
    """Note in the source when the address is a unix socket in a folder that does not exist."""
    if not isinstance(address, UnixAddress):
        return
    folder = os.path.dirname(address.path)
    if not os.path.isdir(folder) and not _comes_later(folder):
        source.report(path, f"the folder {folder} of the unix socket does not exist", "create it, or correct the path")


def _comes_later(folder: str) -> bool:
    """Whether the unit that this process checks a file for makes the folder when it starts.

    `systemd-run -p LoadCredential=… stcp-proxy check` checks the file of a unit that may be stopped. The unit's own process has
    $RUNTIME_DIRECTORY.
    """
    for_a_unit = "CREDENTIALS_DIRECTORY" in os.environ and "RUNTIME_DIRECTORY" not in os.environ
    return for_a_unit and PurePath(folder).parent == RUNTIME
