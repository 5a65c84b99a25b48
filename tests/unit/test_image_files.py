"""What the Dockerfile and the files beside it say twice is the same; and what the image without a shell leaves out."""

from __future__ import annotations

import importlib.util
import json
import re
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
DOCKERFILE = (ROOT / "Dockerfile").read_text(encoding="utf-8")
COMPOSE = sorted((ROOT / "configs" / "compose").rglob("compose.yaml"))
SCRIPT = ROOT / "tools" / "distroless.py"
SPEC = importlib.util.spec_from_file_location("distroless", SCRIPT)
assert SPEC is not None
assert SPEC.loader is not None
distroless = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(distroless)


def stage(name: str) -> str:
    """The instructions of a stage."""
    return re.split(r"^FROM ", DOCKERFILE.partition(f" AS {name}\n")[2], maxsplit=1, flags=re.MULTILINE)[0]


def test_both_images_start_alike() -> None:
    for instruction in ("USER", "HEALTHCHECK", "ENTRYPOINT", "CMD"):
        (ordinary,) = re.findall(rf"^{instruction} .*$", stage("proxy"), re.MULTILINE)
        assert re.findall(rf"^{instruction} .*$", stage("distroless"), re.MULTILINE) == [ordinary]
    assert "\nRUN " not in stage("distroless")


@pytest.mark.parametrize("path", COMPOSE, ids=lambda path: path.parent.name)
def test_compose_repeats_the_health_check(path: Path) -> None:
    """An archive of the OCI format cannot carry it."""
    check = yaml.safe_load(path.read_text(encoding="utf-8"))["services"]["stcp"]["healthcheck"]
    options, command = re.findall(r"^HEALTHCHECK (--.*) CMD (.*)$", stage("proxy"), re.MULTILINE)[0]
    assert check.pop("test") == ["CMD", *json.loads(command)]
    assert {f"--{name.replace('_', '-')}={value}" for name, value in check.items()} == set(options.split())


def test_the_user_is_the_same() -> None:
    (user,) = set(re.findall(r"^USER (\d+):\d+$", stage("proxy"), re.MULTILINE))
    assert int(user) == distroless.USER
    assert f":x:{user}:{user}:" in stage("proxy")


@pytest.mark.parametrize(
    ("name", "left_out"),
    [
        ("pydoc.py", True),
        ("config-3.11-x86_64-linux-gnu", True),
        ("_sqlite3.cpython-311-x86_64-linux-gnu.so", True),
        ("_codecs_jp.cpython-311-x86_64-linux-gnu.so", True),
        ("_ctypes.cpython-311-x86_64-linux-gnu.so", False),
        ("_ctypes_test.cpython-311-x86_64-linux-gnu.so", True),
        ("contextlib.py", False),
        ("ssl.py", False),
    ],
)
def test_modules_that_are_left_out(name: str, left_out: bool) -> None:
    assert bool(distroless.MODULES_LEFT_OUT.fullmatch(name)) is left_out
