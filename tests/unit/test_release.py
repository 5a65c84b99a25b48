"""Preparing a release, and the manual pages that a package has."""

from __future__ import annotations

import datetime
import importlib.util
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from types import ModuleType

import pytest
from packaging.requirements import Requirement

from stcp_proxy import __version__

ROOT = Path(__file__).resolve().parents[2]
DAY = datetime.date(2026, 12, 1)


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, ROOT / "tools" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


release = load("release")


def test_the_changelog_moves() -> None:
    text = "# Changelog\n\n## [Unreleased]\n\n### Added\n\n- a\n\n## [0.1.0] - 2026-01-01\n\n- b\n"
    assert release.released(text, "0.2.0", DAY) == (
        "# Changelog\n\n## [Unreleased]\n\n## [0.2.0] - 2026-12-01\n\n### Added\n\n- a\n\n## [0.1.0] - 2026-01-01\n\n- b\n"
    )


@pytest.mark.parametrize("text", ["# Changelog\n", "## [Unreleased]\n\n\n## [0.1.0] - 2026-01-01\n\n- b\n"])
def test_nothing_to_release(text: str) -> None:
    with pytest.raises(release.Refused):
        release.released(text, "0.2.0", DAY)


def test_every_place_gets_the_version(tmp_path: Path) -> None:
    for place in ("stcp_proxy/__init__.py", "CHANGELOG.md", "configs/kubernetes", "configs/helm"):
        target = tmp_path / place
        target.parent.mkdir(parents=True, exist_ok=True)
        (shutil.copytree if (ROOT / place).is_dir() else shutil.copy)(ROOT / place, target)
    release.prepare(tmp_path, "97.0.0", DAY)
    assert release.current_version((tmp_path / "stcp_proxy/__init__.py").read_text(encoding="utf-8")) == "97.0.0"
    manifests = "".join(path.read_text(encoding="utf-8") for path in (tmp_path / "configs/kubernetes").rglob("*.yaml"))
    assert set(re.findall(r'image: "?stcp-proxy[a-z-]*:([\d.]+)', manifests)) == {"97.0.0"}
    chart = (tmp_path / "configs/helm/stcp-proxy/Chart.yaml").read_text(encoding="utf-8")
    assert re.findall(r'(?:^version|^appVersion): "?([\d.]+)', chart, re.M) == ["97.0.0"] * 2
    assert "## [97.0.0] - 2026-12-01\n" in (tmp_path / "CHANGELOG.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("version", ["0.2", "v1.2.3", "1.2.3-rc1", __version__, "0.0.1"])
def test_a_version_that_is_none_or_not_later(version: str) -> None:
    with pytest.raises(release.Refused):
        release.refuse_unclean(version)


def test_a_machine_that_could_not_finish(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is told everything that it lacks before the checks, which take long."""
    for name in ("git", "bash", "cat"):
        (tmp_path / name).symlink_to(shutil.which(name) or pytest.skip(f"{name} is missing"))
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("PYENV_ROOT", str(tmp_path))
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", "/dev/null")
    monkeypatch.setenv("GIT_CONFIG_SYSTEM", "/dev/null")
    monkeypatch.setenv("GIT_COMMITTER_NAME", "")
    with pytest.raises(release.Refused) as refused:
        release.refuse_incomplete(checks=True, dist=True)
    for what in ("user.name", "npm", "buildah (apt-get install buildah)", "mmdebstrap"):
        assert what in str(refused.value)
    if not Path("/usr/bin/python3.12").exists():
        assert "CPython 3.12" in str(refused.value)


@pytest.mark.skipif(shutil.which("make") is None, reason="make is missing")
def test_the_checks_do_not_get_the_arguments_of_the_release(tmp_path: Path) -> None:
    (tmp_path / "Makefile").write_text("outer:\n\t@$(CALL)\ninner:\n\t@echo 'ARGS are <$(ARGS)>' >found\n", encoding="utf-8")
    script = tmp_path / "call.py"
    script.write_text(
        f"import sys\nfrom pathlib import Path\nsys.path.insert(0, {str(ROOT / 'tools')!r})\nsys.dont_write_bytecode = True\n"
        "import release\nrelease.run('make', 'inner', cwd=Path('.'))\n",
        encoding="utf-8",
    )
    subprocess.run(["make", "outer", "ARGS=--no-dist", f"CALL={sys.executable} {script}"], cwd=tmp_path, check=True, timeout=60)
    assert (tmp_path / "found").read_text(encoding="utf-8") == "ARGS are <>\n"


def test_the_lock_file_has_every_library() -> None:
    """`make lock` renews it."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    lines = re.findall(r"^([a-z0-9-]+)==(\S+)", (ROOT / "packaging/requirements.txt").read_text(encoding="utf-8"), re.MULTILINE)
    locked = dict(lines)
    for requirement in map(Requirement, [*project["dependencies"], *project["optional-dependencies"]["otlp"]]):
        assert locked.get(requirement.name) in requirement.specifier, f"{requirement}: make lock"


def test_a_manual_page_for_each_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from stcp_proxy.cli.commands import app

    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
    load("man_pages").main(tmp_path)
    commands = {command.name or command.callback.__name__ for command in app.registered_commands if command.callback}
    for group in app.registered_groups:
        inner = group.typer_instance.registered_commands if group.typer_instance else []
        commands |= {f"{group.name}", *(f"{group.name}-{command.name}" for command in inner)}
    names = {f"stcp-proxy-{name}.1" for name in commands}
    assert {path.name for path in (tmp_path / "man1").iterdir()} == {"stcp-proxy.1", *names}
    listen = (tmp_path / "man1/stcp-proxy-listen.1").read_text(encoding="utf-8")
    assert listen.startswith('.TH "STCP-PROXY-LISTEN" 1 "2023-11-14"')
    assert "\n.B \\-\\-bind ADDR\n" in listen
    assert "[bold]" not in "".join(path.read_text(encoding="utf-8") for path in (tmp_path / "man1").iterdir())
    assert "_STCP_PROXY_COMPLETE" in (tmp_path / "bash/stcp-proxy").read_text(encoding="utf-8")
