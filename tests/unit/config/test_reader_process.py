"""A configuration file read by a child process: the plan, the mistakes, and what a broken child comes to."""

from __future__ import annotations

import io
import sys
from pathlib import Path

import pytest

from stcp_proxy import keys
from stcp_proxy.config import load_plan, reader_process
from stcp_proxy.config.reader_process import FileReading
from stcp_proxy.errors import ConfigError


@pytest.fixture
def file(tmp_path: Path) -> Path:
    keys.write_secret_file(tmp_path / "a.psk", keys.format_psk(keys.generate_psk()))
    path = tmp_path / "c.yaml"
    path.write_text("psk: a.psk\ntunnels: {a: {mode: listen, bind: 127.0.0.1:1, to: 127.0.0.1:2}}\n")
    return path


def test_the_child_reads_what_this_process_would(file: Path) -> None:
    assert FileReading(str(file)).begin()() == load_plan(file)
    admin = FileReading(str(file), admin="127.0.0.1:9").begin()().admin
    assert admin == load_plan(file, admin="127.0.0.1:9").admin is not None


def test_mistakes_arrive_in_the_same_words(file: Path) -> None:
    file.write_text(file.read_text().replace("to:", "too:") + "\ndrian: 5\n")
    with pytest.raises(ConfigError) as here:
        load_plan(file)
    with pytest.raises(ConfigError) as there:
        FileReading(str(file)).begin()()
    assert str(there.value) == str(here.value)
    assert "2 mistakes" in str(there.value)


def test_a_child_that_cannot_start(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", str(file.parent / "no-python"))
    with pytest.raises(ConfigError, match=r"reads the configuration failed: .*no-python: No such file"):
        FileReading(str(file)).begin()


def test_a_child_that_fails(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As where the program's files have gone."""
    monkeypatch.setattr(sys, "path", [])
    with pytest.raises(
        ConfigError, match=r"reads the configuration failed: ModuleNotFoundError.*restart the proxy if its program was updated"
    ):
        FileReading(str(file)).begin()()


def test_a_message_cut_short_is_none() -> None:
    whole = io.BytesIO()
    reader_process.send(whole, reader_process.STATUS, b"17")
    for length in range(len(whole.getvalue())):
        assert reader_process.receive(io.BytesIO(whole.getvalue()[:length])) is None
    assert reader_process.receive(io.BytesIO(whole.getvalue() + b"more")) == (b"S", b"17")
