"""The reduced YAML: what its values are, where they stand, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stcp_proxy.config import yaml_file
from stcp_proxy.config.source import KeyPath, dotted
from stcp_proxy.config.yaml_file import file_source
from stcp_proxy.errors import ConfigError


def read(tmp_path: Path, text: str | bytes) -> yaml_file.Source:
    path = tmp_path / "c.yaml"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return file_source(path)


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ("22:30", "22:30"),
        (":7443", ":7443"),
        ("on", "on"),
        ("no", "no"),
        ("2026-01-01", "2026-01-01"),
        ("0x10", "0x10"),
        ("1_000", "1_000"),
        (".inf", ".inf"),
        ("1e3", "1e3"),
        ("30s", "30s"),
        ("30", 30),
        ("-1", -1),
        ("0.5", 0.5),
        ("true", True),
        ("null", None),
        ("~", None),
        ("", None),
        ('"30"', "30"),
        ("'true'", "true"),
        ("[a, 1]", ["a", 1]),
        ("1" * 5000, "1" * 5000),
    ],
)
def test_values(tmp_path: Path, written: str, value: Any) -> None:
    assert read(tmp_path, f"key: {written}\n").data == {"key": value}


def test_keys_are_text(tmp_path: Path) -> None:
    assert read(tmp_path, "on: 1\n5: 2\n~: 3\n").data == {"on": 1, "5": 2, "~": 3}


def test_byte_order_mark_and_windows_lines(tmp_path: Path) -> None:
    assert read(tmp_path, b"\xef\xbb\xbfa: 1\r\nb: 2\r\n").data == {"a": 1, "b": 2}


def test_merge_keys_never_replace(tmp_path: Path) -> None:
    text = "x: &x {a: 1, b: 2}\ny: &y {b: 3, c: 4}\nz: {<<: [*x, *y], a: 0}\n"
    assert read(tmp_path, text).data["z"] == {"a": 0, "b": 2, "c": 4}


@pytest.mark.parametrize(
    ("path", "where"),
    [
        ((), "c.yaml:1"),
        (("tunnels", "db"), "c.yaml:3: tunnels.db"),
        (("tunnels", "db", "to", 1), "c.yaml:6: tunnels.db.to[1]"),
        (("tunnels", "db", "bind"), "c.yaml:3: tunnels.db.bind"),  # missing: where it should be
        (("tunnels", "db", "mode", 0), "c.yaml:7: tunnels.db.mode"),  # one value, taken as a list of one
    ],
)
def test_where(tmp_path: Path, path: KeyPath, where: str) -> None:
    source = read(tmp_path, "\ntunnels:\n  db:\n    to:\n      - a\n      - b\n    mode: x\n")
    source.report(path, "…")
    assert source.findings[0].where == str(tmp_path / where) if path else source.findings[0].where.endswith("c.yaml:2")


def test_a_key_in_a_key_path_is_not_shown() -> None:
    assert "AAECAwQF" not in dotted(("tunnels", "stcp-key:AAECAwQF"))
    assert dotted(("tunnels", "two words", "to", 0)) == "tunnels.'two words'.to[0]"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "is empty"),
        ("# only this\n", "is empty"),
        ("- a\n", ":1: the file is not a mapping"),
        ("text\n", ":1: the file is not a mapping"),
        ("a: 1\n\tb: 2\n", ":2: this is not YAML"),
        ("a:\n\tb: 2\n", "indent with spaces, not tabs"),
        ("a: 1\n b: 2\n", ":2: this is not YAML"),
        ("a: {b: 1\n", "this is not YAML"),
        (
            "a: 1\nbind: [::1]:80\n",
            "c.yaml:2: this is not YAML: expected the node content, but found ':'; put",
        ),
        ("a: {bind: :80, to: x}\n", "put an address that starts with a bracket or a colon in quotes"),
        ("a: 1\n---\nb: 2\n", "this is not YAML"),
        ("a: *b\n", "undefined alias"),
        (b"a: 1\nb: \xff\n", "c.yaml:2: this is not UTF-8"),
        ("a: 1\nb: \x07\n", "c.yaml:2: this is not YAML: it has a character"),
        (
            "a: 1\nb:\u00a0c\n",
            "c.yaml:2: column 3 has a no-break space (U+00A0), not a space in YAML; replace it",
        ),
        ("a:\n\u00a0 b: 1\n", "c.yaml:2: column 1 has a no-break space"),
        ("a: 1\u3000\n", "c.yaml:1: column 5 has a ideographic space"),
        ("a: &a [*a]\n", "the aliases of this file are too large"),
        ("a: &a\n  b: *a\n", "the aliases of this file are too large"),
        ("a: " + "[" * 5000, "nested too deeply"),
        ("a: 1\n" + "#" * yaml_file.MAX_FILE, "larger than 256 KiB"),
    ],
)
def test_refused(tmp_path: Path, text: str | bytes, says: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read(tmp_path, text)
    assert says in str(caught.value)


def test_a_no_break_space_in_quotes_or_a_comment_is_let_through(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text('# a\u00a0comment\na: "b\u00a0c"  # and\u00a0another\n', encoding="utf-8")
    assert yaml_file.file_source(path).data == {"a": "b\u00a0c"}


def test_a_small_file_does_not_unfold_into_a_large_one(tmp_path: Path) -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 12)]
    with pytest.raises(ConfigError, match="the aliases of this file are too large"):
        read(tmp_path, "\n".join(lines))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("a: 1\nb:\n  c: 1\n  c: 2\n", "c.yaml:4: b.c: this key is already set in line 3; remove one of them"),
        ("a: !!python/object:os.system x\n", "c.yaml:1: a: YAML tags are not used here"),
        ("a: !secret x\n", "YAML tags are not used here"),
        ("a: !!int x\n", "not what its tag says"),
        ("[a, b]: 1\n", "c.yaml:1: a key must be one word"),
        ("a: {<<: 5}\n", "'<<' merges something that is not a mapping"),
    ],
)
def test_found_and_read_on(tmp_path: Path, text: str, says: str) -> None:
    assert says in str(read(tmp_path, text).findings[0])


def test_file_that_cannot_be_read(tmp_path: Path) -> None:
    for name, says in [("missing.yaml", "does not exist"), (".", "cannot read"), ("a\0b", "cannot read")]:
        with pytest.raises(ConfigError, match=says):
            file_source(tmp_path / name)


@settings(deadline=None)
@given(st.recursive(st.text(max_size=5), lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner)))
def test_any_tree_survives(tmp_path_factory: pytest.TempPathFactory, tree: Any) -> None:
    import yaml

    path = tmp_path_factory.mktemp("y") / "c.yaml"
    path.write_text(yaml.safe_dump({"root": tree}, default_style='"'))
    assert file_source(path).data == {"root": tree}
