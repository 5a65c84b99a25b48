"""A file with a public key where a private one belongs: its mode is not what is wrong with it."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from stcp_proxy.errors import KeyFileError
from stcp_proxy.keys import PrivateKey, load_private_key, load_psk


@pytest.mark.parametrize("mode", [0o600, 0o644])
@pytest.mark.parametrize("load", [load_private_key, load_psk])
def test_it_is_named(tmp_path: Path, load: Callable[[Path], object], mode: int) -> None:
    path = tmp_path / "host.pub"
    path.write_text(f"{PrivateKey.generate().public}\n")
    path.chmod(mode)
    with pytest.raises(KeyFileError, match="this is a public key, where a "):
        load(path)


@pytest.mark.parametrize("text", ["stcp-key:x\n", "stcp-pub:x\nstcp-key:y\n", "", "\xff"])
def test_every_other_file_is_refused_by_its_mode(tmp_path: Path, text: str) -> None:
    path = tmp_path / "host.key"
    path.write_text(text, encoding="latin-1")
    path.chmod(0o644)
    with pytest.raises(KeyFileError, match="has mode 0644"):
        load_private_key(path)


def test_nobody_waits_for_a_pipe(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe", 0o644)
    with pytest.raises(KeyFileError):
        load_private_key(tmp_path / "pipe")
