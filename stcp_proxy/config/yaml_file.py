"""A YAML file as plain data with line numbers.

This reader deliberately accepts less than standard YAML. Only null, true/false and decimal numbers get a type of their own:
`22:30`, `on` and `2026-01-01` stay text. Keys are always text, a duplicate key is an error, and tags are refused. Aliases count
at their full expansion, so a small file cannot expand into a large one.
"""

from __future__ import annotations

import contextlib
import os
import re
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import yaml

from stcp_proxy.config.file_access import warn_if_open_to_others
from stcp_proxy.config.inputs import digest
from stcp_proxy.config.source import Finding, KeyPath, Source, dotted
from stcp_proxy.errors import ConfigError
from stcp_proxy.redact import without_keys

MAX_FILE: Final = 256 * 1024
MAX_NODES: Final = 100_000
END_MARK: Final = "..."
"""YAML's end mark of a document: the text before it is complete."""


class _Loader(yaml.SafeLoader):
    """A composer of YAML nodes that resolves few types."""

    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012


_NULL, _BOOL, _INT, _FLOAT, _STR = (f"tag:yaml.org,2002:{name}" for name in ("null", "bool", "int", "float", "str"))
_Loader.add_implicit_resolver(_NULL, re.compile(r"(~|null|)$"), ["~", "n", ""])
_Loader.add_implicit_resolver(_BOOL, re.compile(r"(true|false)$"), ["t", "f"])
_Loader.add_implicit_resolver(_INT, re.compile(r"[-+]?[0-9]{1,18}$"), list("-+0123456789"))
_Loader.add_implicit_resolver(_FLOAT, re.compile(r"[-+]?[0-9]+\.[0-9]+([eE][-+]?[0-9]+)?$"), list("-+0123456789"))

_SCALARS: Final[dict[str, Callable[[str], Any]]] = {
    _NULL: lambda _: None,
    _BOOL: lambda text: text == "true",
    _INT: int,
    _FLOAT: float,
    _STR: str,
}
_BARE_ADDRESS: Final = re.compile(r"[\s\[{,](\[[0-9a-fA-F:.%]*:[0-9a-fA-F:.%]*\])?:\d")


_NOT_A_SPACE: Final = re.compile("[\u00a0\u1680\u2000-\u200b\u202f\u205f\u3000\ufeff]")
_COMMENT: Final = re.compile(r"(?:^|\s)#")


def file_source(path: str | Path) -> Source:
    """The content of a YAML file. A file that others can change is a warning on stderr.

    Raises:
        ConfigError: the file cannot be read, or is not YAML in the sense of this module.
    """
    path = Path(path)
    before = digest(path)
    text = _read(path)
    warn_if_open_to_others(path)
    _check_spaces(path, text)
    tree = _Tree(path)
    try:
        root = yaml.compose(text, Loader=_Loader)
        if root is None:
            raise ConfigError(f"{path} is empty", remedy="describe at least one tunnel under 'tunnels:'")
        data = tree.build(root, ())
    except yaml.YAMLError as exc:
        raise _syntax(path, text, exc) from None
    except RecursionError:
        raise ConfigError(f"{path} is nested too deeply", remedy="describe tunnels in plain mappings") from None
    source = Source(str(path), data, path.parent, tree.where, whole=_ends_marked(text), findings=tree.findings)
    source.inputs[os.path.abspath(path)] = before
    if not isinstance(data, dict):
        source.report((), "the file is not a mapping", "start it with 'tunnels:'")
        source.raise_findings()
    return source


def _ends_marked(text: str) -> bool:
    return text.rstrip().endswith(f"\n{END_MARK}")


def _read(path: Path) -> str:
    try:
        with path.open("rb") as file:
            content = file.read(MAX_FILE + 1)
    except FileNotFoundError:
        raise ConfigError(f"{path} does not exist", remedy="name the configuration file") from None
    except (OSError, ValueError) as exc:
        raise ConfigError(
            f"cannot read {path}: {getattr(exc, 'strerror', None) or exc}", remedy="name a file that this user may read"
        ) from None
    if len(content) > MAX_FILE:
        raise ConfigError(f"{path} is larger than {MAX_FILE // 1024} KiB", remedy="name a configuration file")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as exc:
        line = content.count(b"\n", 0, exc.start) + 1
        raise ConfigError(f"{path}:{line}: this is not UTF-8 text", remedy="save the file as UTF-8") from None


def _check_spaces(path: Path, text: str) -> None:
    """Refuse a no-break space, or a similar character that YAML takes for a letter, outside of quotes and comments.

    Such a character comes from a web page or a word processor and looks like a space. YAML reads it as a part of a key or a
    value.
    """
    for match in _NOT_A_SPACE.finditer(text):
        start = text.rfind("\n", 0, match.start()) + 1
        before = text[start : match.start()]
        if before.count('"') % 2 or before.count("'") % 2 or _COMMENT.search(before):
            continue
        line, name = text.count("\n", 0, start) + 1, unicodedata.name(match[0], "a space").lower()
        raise ConfigError(
            f"{path}:{line}: column {match.start() - start + 1} has a {name} (U+{ord(match[0]):04X}), not a space in YAML",
            remedy="replace it by an ordinary space",
        )


def _long_quote(text: str, end: int) -> int | None:
    """The line of the last quote that ends in a later line, before the line `end` of a syntax error; None without one.

    A quote that is not closed takes the next quote of the file for its end. The parser complains there, far from the mistake.
    """
    found = None
    with contextlib.suppress(yaml.YAMLError):
        for token in yaml.scan(text, Loader=yaml.SafeLoader):
            if token.start_mark.line > end:
                break
            if isinstance(token, yaml.ScalarToken) and token.style in ("'", '"') and token.start_mark.line < token.end_mark.line:
                found = token.start_mark.line
    return found


def _syntax(path: Path, text: str, exc: yaml.YAMLError) -> ConfigError:
    """The message for a YAML syntax error, with the two usual causes."""
    mark = getattr(exc, "problem_mark", None)
    if mark is None:
        position = getattr(exc, "position", None)
        line = text.count("\n", 0, position) + 1 if isinstance(position, int) else 1
        return ConfigError(f"{path}:{line}: this is not YAML: it has a character that YAML does not allow", remedy="remove it")
    opened = getattr(exc, "context_mark", None)
    if opened is not None and "quoted scalar" in str(getattr(exc, "context", "")):
        what = f"{path}:{opened.line + 1}: this is not YAML: a quote is not closed"
        return ConfigError(what, remedy="close it in the same line")
    if (begins := _long_quote(text, mark.line)) is not None:
        what = f"{path}:{begins + 1}: this is not YAML: the quote that begins here ends in a later line"
        return ConfigError(what, remedy="close it in the same line")
    written = text.split("\n")[mark.line : mark.line + 1]
    remedy = "check the indentation and the quotes"
    if "'@'" in str(getattr(exc, "problem", "")):
        remedy = 'put a group in quotes: "@apps"'
    if written and "\t" in written[0]:
        remedy = "indent with spaces, not tabs"
    elif written and _BARE_ADDRESS.search(written[0]):
        remedy = "put an address that starts with a bracket or a colon in quotes"
    return ConfigError(
        f"{path}:{mark.line + 1}: this is not YAML: {without_keys(str(getattr(exc, 'problem', exc)))}", remedy=remedy
    )


class _Tree:
    """Converts YAML nodes to plain data, and notes the line of every key path."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.findings: list[Finding] = []
        self._lines: dict[KeyPath, int] = {}
        self._nodes = 0
        self._open: set[int] = set()

    def where(self, path: KeyPath) -> str:
        """`file:line: key.path`; for a missing part, the line of the mapping that should contain it."""
        known = path
        while known and known not in self._lines:
            known = known[:-1]
        place = f"{self.path}:{self._lines.get(known, 1)}"
        return f"{place}: {dotted(path)}" if path else place

    def build(self, node: yaml.Node, path: KeyPath) -> Any:
        """The data of a node at `path`."""
        self._lines.setdefault(path, node.start_mark.line + 1)
        self._nodes += 1
        if self._nodes > MAX_NODES or id(node) in self._open:
            raise ConfigError(f"{self.where(path)}: the aliases of this file are too large", remedy="write it without aliases")
        self._open.add(id(node))
        try:
            if isinstance(node, yaml.MappingNode):
                return self._mapping(node, path)
            if isinstance(node, yaml.SequenceNode):
                return [self.build(item, (*path, index)) for index, item in enumerate(node.value)]
            return self._scalar(node, path)
        finally:
            self._open.discard(id(node))

    def _scalar(self, node: yaml.Node, path: KeyPath) -> Any:
        make = _SCALARS.get(node.tag)
        if make is None:
            self.findings.append(Finding(self.where(path), "YAML tags are not used here", "write the value alone"))
            return None
        try:
            return make(node.value)
        except ValueError:
            self.findings.append(Finding(self.where(path), "this value is not what its tag says", "write the value alone"))
            return None

    def _mapping(self, node: yaml.MappingNode, path: KeyPath) -> dict[str, Any]:
        """The data of a mapping. Merged entries (`<<`) come last and never replace others."""
        found: dict[str, Any] = {}
        merged: list[yaml.Node] = []
        for key, value in node.value:
            line = key.start_mark.line + 1
            if not isinstance(key, yaml.ScalarNode):
                remedy = 'quote it if it starts with "[" or "{"'
                self.findings.append(Finding(f"{self.path}:{line}", "a key must be one word", remedy))
            elif key.value == "<<" and key.style is None:
                merged.extend(value.value if isinstance(value, yaml.SequenceNode) else [value])
            elif key.value in found:
                first = self._lines[(*path, key.value)]
                where = f"{self.path}:{line}: {dotted((*path, key.value))}"
                self.findings.append(Finding(where, f"this key is already set in line {first}", "remove one of them"))
            else:
                self._lines.setdefault((*path, key.value), line)
                found[key.value] = self.build(value, (*path, key.value))
        for part in merged:
            if not isinstance(part, yaml.MappingNode):
                self.findings.append(Finding(self.where(path), "'<<' merges something that is not a mapping", "remove it"))
                continue
            for name, value in self.build(part, path).items():
                found.setdefault(name, value)
        return found
