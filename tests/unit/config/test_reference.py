"""What is made of the models: docs/SETTINGS.md, the JSON schema, the options of the commands."""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from stcp_proxy.config import Mode, flags, reference
from stcp_proxy.config.setting import settings
from stcp_proxy.config.yaml_file import file_source
from stcp_proxy.process.reload import RESTART

ROOT = Path(__file__).parents[3]


def files() -> Iterator[tuple[str, Any]]:
    """The data of every configuration in configs/, those within manifests too."""
    for path in sorted((ROOT / "configs").rglob("*.yaml")):
        if "templates" in path.parts:  # Helm's: YAML once they are rendered
            continue
        for number, document in enumerate(yaml.safe_load_all(path.read_text())):
            name = f"{path.relative_to(ROOT / 'configs')}-{number}"
            if isinstance(document, dict) and "tunnels" in document:
                yield name, file_source(path).data
            elif isinstance(document, dict) and document.get("kind") == "ConfigMap":
                yield name, yaml.safe_load(document["data"]["config.yaml"])


FILES = dict(files())
EVERYTHING = FILES["many-tunnels.yaml-0"]


@pytest.fixture(scope="module")
def validator() -> Any:
    schema = reference.json_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema)


def test_the_page_is_current() -> None:
    """Run: stcp-proxy schema --markdown >docs/SETTINGS.md"""
    assert (ROOT / "docs" / "SETTINGS.md").read_text() == reference.page()


def test_every_setting_is_on_the_page() -> None:
    page = reference.page()
    for _, model in reference.TABLES:
        for key, _, setting in settings(model):
            assert f"| `{key}` |" in page
            assert setting.text.replace("|", "\\|") in page


@pytest.mark.parametrize("name", FILES)
def test_the_schema_takes_every_file_of_configs(validator: Any, name: str) -> None:
    assert [error.message for error in validator.iter_errors(FILES[name])] == []


def test_there_are_files_of_every_kind() -> None:
    assert {name.split("/")[0] for name in FILES} >= {"kubernetes", "compose", "postgres", "redis"}


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("drian",), 5),
        (("workers",), 65),
        (("workers",), "2"),
        (("drain",), "5 days"),
        (("tunnels", "postgres", "mode"), "client"),
        (("tunnels", "postgres", "max_connections"), 0),
        (("tunnels", "redis-in", "allow"), []),
        (("tunnels", "apps-in", "services", "web"), {"allow": "app-host"}),
        (("tunnels", "edge", "accept_proxy_protocol"), {"form": "x"}),
        (("tunnels",), {}),
        (("identity",), 5),
    ],
)
def test_the_schema_refuses(validator: Any, path: tuple[str, ...], value: object) -> None:
    data = copy.deepcopy(EVERYTHING)
    part = data
    for step in path[:-1]:
        part = part[step]
    part[path[-1]] = value
    assert list(validator.iter_errors(data))


def test_the_schema_describes_every_setting() -> None:
    schema = reference.json_schema()
    for model in (schema, *schema["$defs"].values()):
        for name, part in model["properties"].items():
            assert part.get("description"), f"{model['title']}.{name}"


def test_many_tunnels_has_every_setting() -> None:
    """So says docs/SETTINGS.md."""
    text = (ROOT / "configs" / "many-tunnels.yaml").read_text()
    for title, model in reference.TABLES:
        for key, _, _ in settings(model):
            if title.startswith("The whole file") and key == "psk":
                continue  # a second secret beside the keys
            assert re.search(rf"\b{key}:", text), f"{title}: {key}"


def test_what_needs_a_restart() -> None:
    """What the models say, and what a reload refuses to change."""
    told = {key for _, model in reference.TABLES for key, _, setting in settings(model) if setting.restart}
    assert told == set(RESTART)


@pytest.mark.parametrize("mode", list(Mode))
def test_an_option_for_each_flag(mode: Mode) -> None:
    found = flags.options(mode)
    names = [option.name for option in found]
    assert len(set(names)) == len(names)
    wanted = [
        (setting.flag.name or key).replace("_", "-")
        for _, model in reference.TABLES
        if model.__name__ in ("ConfigModel", "TunnelModel", "LogModel", "CertificateModel")
        for key, _, setting in settings(model)
        if setting.flag is not None and setting.mode in (None, mode.value)
    ]
    assert sorted(names) == sorted(wanted)
    assert ("peer" in names, "allow" in names) == (mode is Mode.CONNECT, mode is Mode.LISTEN)
