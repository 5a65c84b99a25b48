"""The workflow of a public host: right by the published schema, and what it runs exists. No such host has run it."""

from __future__ import annotations

import importlib.resources
import json
import re
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
WORKFLOW = ROOT / ".github" / "workflows" / "release.yml"


@pytest.fixture
def workflow() -> dict[str, Any]:
    # YAML reads the key `on` as true.
    found: dict[Any, Any] = yaml.safe_load(WORKFLOW.read_text(encoding="utf-8"))
    return {"on" if key is True else key: value for key, value in found.items()}


def test_schema(workflow: dict[str, Any]) -> None:
    text = (importlib.resources.files("check_jsonschema") / "builtin_schemas" / "vendor" / "github-workflows.json").read_text(
        "utf-8"
    )
    jsonschema.validate(workflow, json.loads(text))
    workflow["jobs"]["make"]["step"] = []
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(workflow, json.loads(text))


def test_what_it_runs_exists(workflow: dict[str, Any]) -> None:
    commands = [step["run"] for job in workflow["jobs"].values() for step in job["steps"] if "run" in step]
    targets = set(re.findall(r"^([a-z0-9-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    called = {target for command in commands for target in re.findall(r"^make (\S+)", command, re.MULTILINE)}
    assert called
    assert called <= targets
    assert all((ROOT / script).exists() for command in commands for script in re.findall(r"\bpackaging/\w+", command))


def test_both_processors_have_a_machine_of_their_kind(workflow: dict[str, Any]) -> None:
    machines = {each["arch"]: each["machine"] for each in workflow["jobs"]["make"]["strategy"]["matrix"]["include"]}
    assert machines.keys() == {"amd64", "arm64"}
    assert machines["arm64"].endswith("-arm")
