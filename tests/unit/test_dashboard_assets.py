"""The dashboard's files: nothing from elsewhere, nothing inline, nothing that parses text; the vendored ones unchanged."""

from __future__ import annotations

import hashlib
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

ASSETS = Path(__file__).resolve().parents[2] / "stcp_proxy" / "admin" / "assets"
VENDOR = ASSETS / "vendor"
OWN = sorted(path for path in ASSETS.iterdir() if path.is_file())
SERVED = sorted(path for path in ASSETS.rglob("*") if path.suffix in {".html", ".css", ".js", ".svg"})


def test_vendored_files_are_unchanged() -> None:
    said = dict(re.findall(r"^ {4}([0-9a-f]{64})  (\S+)$", (VENDOR / "README.md").read_text(encoding="utf-8"), re.MULTILINE))
    found = {hashlib.sha256(path.read_bytes()).hexdigest(): path.name for path in VENDOR.iterdir() if path.name != "README.md"}
    assert found == said


def test_the_vendored_version_is_the_one_that_is_said() -> None:
    version = re.search(r"`uplot` ([\d.]+)", (VENDOR / "README.md").read_text(encoding="utf-8"))
    assert version is not None
    assert f"uPlot (v{version[1]})" in (VENDOR / "uPlot.iife.min.js").read_text(encoding="utf-8")[:200]


@pytest.mark.parametrize("path", OWN, ids=lambda path: path.name)
def test_no_address_elsewhere(path: Path) -> None:
    """The namespace of SVG is a name, not an address."""
    text = path.read_text(encoding="utf-8").replace("http://www.w3.org/2000/svg", "")
    assert re.findall(r"(?:https?:)?//[\w.-]+\.\w+|@import|url\(", text) == []


@pytest.mark.parametrize("path", [path for path in OWN if path.suffix == ".js"], ids=lambda path: path.name)
def test_scripts_never_parse_text(path: Path) -> None:
    sinks = (
        r"innerHTML|outerHTML\s*=|insertAdjacentHTML|document\.write|\beval\b|new Function|setTimeout\(\s*[\"'`]|srcdoc|DOMParser"
    )
    assert re.findall(sinks, path.read_text(encoding="utf-8")) == []


class _Page(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.files: list[str] = []
        self.inline: list[str] = []
        self.ids: list[str] = []
        self.refers: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        self.inline += [f"<{tag} {name}>" for name in found if name.startswith("on") or name == "style"]
        if tag == "style" or (tag == "script" and "src" not in found):
            self.inline.append(f"<{tag}>")
        if tag in {"script", "link", "img"}:
            self.files.append(found.get("src") or found.get("href") or "")
        if found.get("id"):
            self.ids.append(found["id"] or "")
        self.refers += [found[name] or "" for name in ("for", "aria-labelledby") if found.get(name)]


@pytest.fixture(scope="module")
def page() -> _Page:
    found = _Page()
    found.feed((ASSETS / "index.html").read_text(encoding="utf-8"))
    return found


def test_the_page_has_nothing_inline(page: _Page) -> None:
    assert page.inline == []


def test_every_file_is_asked_for_and_there(page: _Page) -> None:
    """Relative, so that the page works below a path of somebody's reverse proxy."""
    asked = {name.removeprefix("assets/") for name in page.files if name.startswith("assets/")}
    assert len(asked) == len(page.files)
    for path in OWN:
        if path.suffix == ".js":
            asked |= set(re.findall(r'^(?:import|\}) .*?from "\./([\w.-]+)"', path.read_text(encoding="utf-8"), re.MULTILINE))
    assert asked == {path.relative_to(ASSETS).as_posix() for path in SERVED} - {"index.html"}


def test_ids(page: _Page) -> None:
    """Each once; labels point at what is there, and so do the scripts."""
    assert len(set(page.ids)) == len(page.ids)
    scripts = "".join(path.read_text(encoding="utf-8") for path in OWN if path.suffix == ".js")
    wanted = {*page.refers, *re.findall(r'(?:\$|getElementById)\("([\w-]+)"\)', scripts)}
    assert wanted - set(page.ids) == set()
