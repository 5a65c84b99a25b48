"""Every message says what to do: each failure has a remedy, and docs/MESSAGES.md explains each label that a log can show."""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from stcp_proxy import errors
from stcp_proxy.errors import Code, EndReason, PeerRejected, StcpError, UnknownPeer
from stcp_proxy.errors.judgement import LogClass

ROOT = Path(__file__).resolve().parents[3]
PACKAGE = ROOT / "stcp_proxy"
MESSAGES = (ROOT / "docs" / "MESSAGES.md").read_text(encoding="utf-8")


def kinds(error: type[StcpError] = StcpError) -> Iterator[type[StcpError]]:
    yield error
    for kind in error.__subclasses__():
        yield from kinds(kind)


KINDS = {kind.__name__: kind for kind in kinds() if kind.__module__.startswith(errors.__name__)}
KNOWS_ITSELF = {UnknownPeer.__name__, PeerRejected.__name__}
"""Their constructors choose the remedy."""


def without_remedy(source: str) -> list[str]:
    """Failures that are made without saying what to do, and whose kind has no usual remedy."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in KINDS.keys() - KNOWS_ITSELF:
            said = any(keyword.arg == "remedy" for keyword in node.keywords)
            if not said and KINDS[node.func.id].usual_remedy is None:
                found.append(f"line {node.lineno}: {ast.unparse(node)}")
    return found


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_every_failure_has_a_remedy(path: Path) -> None:
    assert without_remedy(path.read_text(encoding="utf-8")) == []


def test_a_failure_without_one_is_found() -> None:
    assert without_remedy("raise ConfigError('no')")
    assert not without_remedy("raise ConfigError('no', remedy='say yes')")
    assert not without_remedy("raise Truncated('gone')")


def test_what_the_peer_says_has_a_remedy() -> None:
    for code in Code:
        assert PeerRejected(code, "").remedy
    assert PeerRejected(4711, "").remedy
    assert UnknownPeer(bytes(32)).remedy


def test_every_end_has_a_remedy() -> None:
    assert {reason for reason in EndReason if not reason.remedy} == {EndReason.FINISHED, EndReason.PEER_RESET}


def labels() -> set[str]:
    return {kind.label for kind in KINDS.values()} | {reason.value for reason in EndReason}


@pytest.mark.parametrize("label", sorted(labels()))
def test_label_is_explained(label: str) -> None:
    assert f"\n| `{label}` |" in MESSAGES


def classes(label: str) -> set[str]:
    """The classes that silence the log lines of a label."""
    judgements = [kind.judgement for kind in KINDS.values() if kind.label == label]
    judgements += [reason.judgement for reason in EndReason if reason.value == label]
    return {judgement.log_class.value if judgement.log_class else "never silenced" for judgement in judgements}


@pytest.mark.parametrize("label", sorted(labels() - {"config", "key_file", "rules_refused"}))
def test_label_has_its_classes(label: str) -> None:
    """The last column of the table; a failure before anything starts is in no log."""
    (row,) = re.findall(rf"^\| `{label}` \|.*\| ([^|]+) \|$", MESSAGES, re.MULTILINE)
    assert set(re.findall("|".join((*LogClass, "never silenced")), row)) == classes(label)


def test_nothing_else_is_explained() -> None:
    assert set(re.findall(r"^\| `([a-z_]+)` \|", MESSAGES, re.MULTILINE)) == labels()


def test_kinds_are_the_modules() -> None:
    known = {name for name, kind in vars(errors).items() if inspect.isclass(kind) and issubclass(kind, StcpError)}
    assert known == KINDS.keys()
