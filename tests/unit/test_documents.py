"""What the documents point at exists: links and their anchors, paths, tests by name, commands."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from stcp_proxy.cli.commands import app

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")])
SOURCE = "\n".join(
    path.read_text(encoding="utf-8")
    for folder in ("stcp_proxy", "kernel", "configs")
    for path in (ROOT / folder).rglob("*")
    if path.suffix in (".py", ".c", ".h", ".js", ".yaml", ".service", ".socket")
)
OF_LINUX = {
    "tcp_rmem",
    "tcp_wmem",
    "nf_conntrack_max",
    "nr_throttled",
    "ip_local_port_range",
    "max_connect_errors",
    "stop_grace_period",
}
"""Names in documents that belong to the system or to other programs."""
TESTS = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("test_*.py"))
WORDS = {*re.findall(r"\w+", SOURCE), *re.findall(r"\w+", TESTS)}
"""Every name in the code."""


@pytest.fixture(params=DOCUMENTS, ids=lambda path: path.name)
def document(request: pytest.FixtureRequest) -> Path:
    path: Path = request.param
    return path


def test_links(document: Path) -> None:
    links = re.findall(r"\]\(([^)#\s]+)[^)]*\)", document.read_text(encoding="utf-8"))
    assert [link for link in links if "://" not in link and not (document.parent / link).exists()] == []


def anchors(path: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    found: set[str] = set()
    text = re.sub(r"^```.*?^```", "", path.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    for heading in re.findall(r"^#+ (.*)$", text, re.MULTILINE):
        name = re.sub(r"[^\w\- ]", "", re.sub(r"\]\([^)]*\)", "", heading).lower()).replace(" ", "-")
        number = 0
        while (unique := f"{name}-{number}" if number else name) in found:
            number += 1
        found.add(unique)
    return found


def test_anchors(document: Path) -> None:
    missing = []
    for link, anchor in re.findall(r"\]\(([^)#\s]*)#([^)\s]+)\)", document.read_text(encoding="utf-8")):
        if "://" not in link and anchor not in anchors(document.parent / link if link else document):
            missing.append(f"{link}#{anchor}")
    assert missing == []


def test_an_anchor_that_is_not_there_is_found(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "# `/status` and *all* of it\n## Twice\n## Twice\n```sh\n# no heading\n```\n[here](#nowhere) [there](#twice-1)\n"
    )
    assert anchors(page) == {"status-and-all-of-it", "twice", "twice-1"}
    with pytest.raises(AssertionError, match="#nowhere"):
        test_anchors(page)


def test_paths(document: Path) -> None:
    """`a/path` in backquotes: from the root of the tree, of the package, or of a folder of examples."""
    words = re.findall(r"`([\w.-]+/[\w./-]*|[\w-]+\.(?:py|yaml|md|json))`", document.read_text(encoding="utf-8"))
    roots = (ROOT, ROOT / "stcp_proxy", ROOT / "configs")
    assert [word for word in words if not any((root / word).exists() for root in roots)] == []


def test_tests_by_name(document: Path) -> None:
    names = re.findall(r"`(test_\w+)`", document.read_text(encoding="utf-8"))
    assert [name for name in names if not re.search(rf"^(async )?def {name}\b", TESTS, re.MULTILINE)] == []


def test_commands(document: Path) -> None:
    known = {command.name for command in [*app.registered_commands, *app.registered_groups]}
    assert set(re.findall(r"`stcp-proxy ([a-z]+)", document.read_text(encoding="utf-8"))) <= known


def test_names_of_the_code(document: Path) -> None:
    """`a_name` in backquotes: a setting, a reason, a metric, a field. KERNEL.md has names of the kernel too."""
    if document.name == "KERNEL.md":
        return
    names = set(re.findall(r"`(?:stcp_proxy/)?([a-z]+(?:_[a-z0-9]+)+)`", document.read_text(encoding="utf-8"))) - OF_LINUX
    assert names - WORDS == set()


def test_every_room_and_every_file_of_a_tunnel_stands_in_the_tables_of_the_architecture() -> None:
    text, package = (ROOT / "docs" / "ARCHITECTURE.md").read_text(encoding="utf-8"), ROOT / "stcp_proxy"
    rooms = {path.parent.name for path in package.glob("*/__init__.py")}
    assert {room for room in rooms if f"\n| `{room}/` |" not in text} == set()
    files = {path.name for path in (package / "tunnel").glob("*.py")} - {"__init__.py"}
    assert {name for name in files if f"`tunnel/{name}`" not in text} == set()


def test_messages_of_troubleshooting() -> None:
    """The messages in the table of a proxy that does not start are those of the code."""
    text = (ROOT / "docs" / "TROUBLESHOOTING.md").read_text(encoding="utf-8")
    table = text.partition("## It does not start")[2].partition("\n## ")[0]
    messages = [
        message for row in re.findall(r"^\| (`[^|]*)\|", table, re.MULTILINE) for message in re.findall(r"`([^`]+)`", row)
    ]
    assert len(messages) >= 6
    literals = re.sub(r"\"\s+f?\"", "", SOURCE)
    assert [message for message in messages if max(message.split("…"), key=len).strip(" :") not in literals] == []
