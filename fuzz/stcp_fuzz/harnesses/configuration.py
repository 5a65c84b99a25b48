"""A configuration file through the whole plan: YAML, models, keys, access rules, addresses.

Promises: only a ConfigError refuses, with text that shows no secret; a plan goes to another process and back unchanged, and does
not differ from itself.
"""

from __future__ import annotations

import functools
import os
import tempfile
import warnings
from pathlib import Path

from stcp_proxy.config.diff import difference
from stcp_proxy.config.load import load_plan
from stcp_proxy.config.plan_bytes import dump, load
from stcp_proxy.errors import ConfigError
from stcp_proxy.keys import PrivateKey, format_private_key, format_psk
from stcp_proxy.protocol.secret import Secret

SECRET, PSK = PrivateKey(Secret(bytes(range(32)))), Secret(bytes(range(100, 132)))


@functools.cache
def _folder() -> Path:
    """A folder with a key, a shared secret, a token and a directory of peers, which files of the corpus name."""
    folder = Path(tempfile.mkdtemp(prefix="stcp-fuzz-"))
    folder.chmod(0o700)
    for name, content in (
        ("key", format_private_key(SECRET)),
        ("psk", format_psk(PSK)),
        ("token", "0123456789abcdef0123456789abcdef\n"),
    ):
        file = folder / name
        file.write_text(content)
        file.chmod(0o600)
    (folder / "peers").mkdir()
    (folder / "peers" / "app.pub").write_text(str(SECRET.public) + "\n")
    return folder


def one(data: bytes) -> None:
    """Run one input: the bytes of a file."""
    file = _folder() / "config.yaml"
    file.write_bytes(data)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            plan = load_plan(file)
    except ConfigError as exc:
        said = str(exc)
    else:
        again = load(dump(plan))
        assert again == plan
        assert difference(plan, again).empty
        said = ""
    assert _secret_words().isdisjoint(said.split())


@functools.cache
def _secret_words() -> frozenset[str]:
    return frozenset({line for name in ("key", "psk") for line in (_folder() / name).read_text().split() if len(line) > 30})


def clean() -> None:
    """Remove the folder."""
    for path in sorted(_folder().rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else os.unlink(path)
    _folder().rmdir()
    _folder.cache_clear()
