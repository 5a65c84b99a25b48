"""The unit files: systemd understands every line of them, and finds little that is exposed."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
UNITS = sorted((ROOT / "configs" / "systemd").iterdir())
SERVICES = [path for path in UNITS if path.suffix == ".service"]
THRESHOLD = 15
"""Tenths of systemd's measure from 0 (safe) to 10 (unsafe)."""
HIGHER = {"stcp-intercept.service": 17}
"""Units that need a capability: CAP_NET_ADMIN for rules."""


def analyze(*args: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    program = shutil.which("systemd-analyze")
    if program is None:
        pytest.skip("systemd-analyze is not installed")
    return subprocess.run([program, *args], cwd=cwd, capture_output=True, text=True, timeout=60)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Copies of the units in which the command is one that exists here; an instance of each template."""
    for path in UNITS:
        text = path.read_text(encoding="utf-8").replace("/usr/bin/stcp-proxy ", "/bin/true ")
        (tmp_path / path.name.replace("@.", "@redis.")).write_text(text)
    return tmp_path


@pytest.mark.parametrize("unit", [path.name.replace("@.", "@redis.") for path in UNITS])
def test_systemd_understands_it(folder: Path, unit: str) -> None:
    done = analyze("verify", "--man=no", f"./{unit}", cwd=folder)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("Type=notify", "Type=notfy"),
        ("ProtectHome=", "ProtectHom="),
        ("WatchdogSec=30s", "WatchdogSec=soon"),
        ("/bin/true", "/no"),
    ],
)
def test_a_mistake_in_a_unit_is_found(folder: Path, right: str, wrong: str) -> None:
    unit = folder / "stcp-proxy.service"
    unit.write_text(unit.read_text().replace(right, wrong))
    assert analyze("verify", "--man=no", f"./{unit.name}", cwd=folder).stderr


@pytest.mark.parametrize("unit", [path.name.replace("@.", "@redis.") for path in SERVICES])
def test_little_is_exposed(folder: Path, unit: str) -> None:
    done = analyze(
        "security", "--offline=true", f"--threshold={HIGHER.get(unit, THRESHOLD)}", "--no-pager", f"./{unit}", cwd=folder
    )
    assert done.returncode == 0, done.stdout


def test_what_is_exposed_is_found(folder: Path) -> None:
    unit = folder / "stcp-proxy.service"
    unit.write_text("".join(line for line in unit.read_text().splitlines(True) if not line.startswith("Protect")))
    done = analyze("security", "--offline=true", f"--threshold={THRESHOLD}", "--no-pager", f"./{unit.name}", cwd=folder)
    assert done.returncode != 0


def test_the_template_is_the_same_service() -> None:
    """But for what an instance is called."""

    def settings(name: str) -> list[str]:
        text = (ROOT / "configs" / "systemd" / name).read_text(encoding="utf-8")
        return [line for line in text.splitlines() if re.match(r"[A-Z]", line) and "%i" not in line]

    one, every = settings("stcp-proxy.service"), settings("stcp-proxy@.service")
    assert set(every) < set(one)
    assert len(one) - len(every) == 4
