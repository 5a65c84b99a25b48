"""The folder of a unix socket has to exist, unless the unit that a file is checked for makes it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from stcp_proxy.config import Plan, unix_folder
from stcp_proxy.errors import ConfigError

from .plan_files import HEAD

PLACES = {
    "takeover": "takeover: unix:{}/unit/socket\n",
    "admin": "admin: unix:{}/unit/socket\n",
    "bind": "tunnels: {{out: {{mode: connect, bind: 'unix:{}/unit/socket', to: db1:7443, peer: db-host}}}}\n",
}


@pytest.fixture
def loaded(folder: Path, load: Callable[[str], Plan], monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Plan]:
    """Load a file with a socket in a folder that does not exist, below a folder that stands for /run."""
    monkeypatch.setattr(unix_folder, "RUNTIME", folder)
    for name in ("CREDENTIALS_DIRECTORY", "RUNTIME_DIRECTORY"):
        monkeypatch.delenv(name, raising=False)
    head = HEAD.partition("tunnels:")[0]
    other = "tunnels: {out: {mode: connect, bind: 127.0.0.1:7001, to: db1:7443, peer: db-host}}\n"
    return lambda place: load(head + PLACES[place].format(folder) + (other if place != "bind" else ""))


@pytest.mark.parametrize("place", PLACES)
def test_a_missing_folder_is_a_mistake(place: str, loaded: Callable[[str], Plan], folder: Path) -> None:
    with pytest.raises(ConfigError, match=f"the folder {folder}/unit of the unix socket does not exist; create it"):
        loaded(place)


@pytest.mark.parametrize("place", PLACES)
def test_a_check_outside_the_unit_leaves_the_folder_to_the_unit(
    place: str, loaded: Callable[[str], Plan], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", "/run/credentials/run-u1.service")
    assert loaded(place).tunnels


def test_the_unit_itself_needs_its_folder(loaded: Callable[[str], Plan], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", "/run/credentials/stcp-proxy.service")
    monkeypatch.setenv("RUNTIME_DIRECTORY", "/run/stcp-proxy")
    with pytest.raises(ConfigError, match="of the unix socket does not exist"):
        loaded("takeover")


def test_a_folder_elsewhere_is_nothing_that_a_unit_makes(
    loaded: Callable[[str], Plan], monkeypatch: pytest.MonkeyPatch, folder: Path
) -> None:
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", "/run/credentials/run-u1.service")
    monkeypatch.setattr(unix_folder, "RUNTIME", folder / "elsewhere")
    with pytest.raises(ConfigError, match="of the unix socket does not exist"):
        loaded("takeover")
