"""The installation that the README shows: into a new virtual environment, without a compiler and with one."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from harness.software import require

ROOT = Path(__file__).resolve().parents[2]


def test_install(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    shutil.copytree(ROOT / "stcp_proxy", source / "stcp_proxy", ignore=shutil.ignore_patterns("__pycache__", "*.so"))
    subprocess.run([sys.executable, ROOT / "tools/make_venv.py", tmp_path / "venv"], check=True)
    scripts = tmp_path / "venv/bin"
    require("gcc")
    for compiler, options, said in (
        ("false", [], "python, not compiled"),
        ("gcc", ["--force-reinstall", "--no-deps"], "python, compiled"),
    ):
        environment = os.environ | {"CC": compiler, "STCP_COMPILED": ""}
        command = [scripts / "pip", "install", "--no-compile", *options, "."]
        run = subprocess.run(command, cwd=source, capture_output=True, text=True, env=environment)
        assert run.returncode == 0, run.stdout + run.stderr
        program = "from stcp_proxy.relay.engine_choice import describe_kernel; print(describe_kernel())"
        finding = [scripts / "python", "-c", program]
        found = subprocess.run(finding, cwd=tmp_path, capture_output=True, text=True, check=True, env=environment)
        assert said in found.stdout
    version = subprocess.run([scripts / "stcp-proxy", "--version"], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert version.stdout.startswith("stcp-proxy ")
    (installed,) = (tmp_path / "venv/lib").glob("python3.*/site-packages/stcp_proxy")
    assert files(installed) == files(ROOT / "stcp_proxy"), "add the missing files to the package data of pyproject.toml"


def files(package: Path) -> set[str]:
    """The files in a folder of the package, without byte-code, built libraries and their sources."""
    every = {path.relative_to(package).as_posix() for path in package.rglob("*") if path.is_file()}
    return {name for name in every if not name.endswith((".pyc", ".so")) and not name.startswith("relay/lane/")}
