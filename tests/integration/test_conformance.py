"""This proxy passes the conformance kit in both roles, and so does the kit's example. `make conformance` runs all of it."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

KIT = Path(__file__).resolve().parents[2] / "conformance"
EXAMPLE = "examples/node/conformance.toml"


def run_kit(config: str, folder: Path, *options: str) -> list[dict[str, str]]:
    """The results of the cases."""
    report = folder / "report.json"
    command = [sys.executable, "-m", "stcp_conformance", config, "--json", str(report), *options]
    done = subprocess.run(command, cwd=KIT, capture_output=True, text=True, timeout=280)
    assert report.exists(), done.stdout + done.stderr
    results: list[dict[str, str]] = json.loads(report.read_text(encoding="utf-8"))["cases"]
    return results


@pytest.fixture
def node() -> None:
    if shutil.which("node") is None:
        pytest.skip("node is not here, which runs the example: apt-get install nodejs")


@pytest.mark.timeout(300)
def test_this_proxy(tmp_path: Path) -> None:
    results = run_kit("implementations/stcp-proxy.toml", tmp_path, "--quick")
    assert [result for result in results if result["result"] != "passed"] == []
    assert len(results) > 600


@pytest.mark.usefixtures("node")
@pytest.mark.timeout(300)
def test_the_example(tmp_path: Path) -> None:
    """Its honest connections and the ends of both legs; the whole is in `make conformance`."""
    results = run_kit(
        EXAMPLE, tmp_path, "--quick", "--case", "*/suite-[24]/complete", "--case", "*r/reset-*", "--case", "*r/fin-*"
    )
    assert [result for result in results if result["result"] == "FAILED"] == []
    assert sum(result["result"] == "passed" for result in results) > 20


@pytest.mark.usefixtures("node")
@pytest.mark.parametrize("name", ["tag-unchecked", "truncation-is-an-end", "psk-without-mix-key-of-e"])
def test_a_broken_example_is_found(name: str) -> None:
    done = subprocess.run([sys.executable, "mutants.py", name], cwd=KIT, capture_output=True, text=True, timeout=100)
    assert done.stdout.startswith("found "), done.stdout + done.stderr
