"""The manifests for Compose and Kubernetes: right by the published schemas, and their stcp-proxy files are what it reads."""

from __future__ import annotations

import importlib.resources
import json
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml

from stcp_proxy import keys
from stcp_proxy.config import load_plan

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
COMPOSE = sorted((CONFIGS / "compose").rglob("compose.yaml"))
KUBERNETES = [
    (path.name, document)
    for path in sorted((CONFIGS / "kubernetes").glob("*.yaml"))
    for document in yaml.safe_load_all(path.read_text())
]
NAMES = [f"{name}-{document['kind']}" for name, document in KUBERNETES]
PODS = [document["spec"]["template"]["spec"] for _, document in KUBERNETES if document["kind"] == "Deployment"]


def check_compose(document: Any) -> None:
    schema = importlib.resources.files("check_jsonschema") / "builtin_schemas" / "vendor" / "compose-spec.json"
    jsonschema.validate(document, json.loads(schema.read_text(encoding="utf-8")))


@pytest.mark.parametrize("path", COMPOSE, ids=lambda path: path.parent.name)
def test_compose(path: Path) -> None:
    document = yaml.safe_load(path.read_text())
    check_compose(document)
    document["services"]["stcp"]["read_onyl"] = True
    with pytest.raises(jsonschema.ValidationError):
        check_compose(document)


@pytest.mark.parametrize("document", [document for _, document in KUBERNETES], ids=NAMES)
def test_kubernetes(document: dict[str, Any]) -> None:
    kubernetes_validate.validate(document, "1.33", strict=True)
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate({**document, "spce": {}}, "1.33", strict=True)


@pytest.mark.parametrize("pod", PODS)
def test_a_sidecar_that_lives_longer_than_its_neighbours(pod: dict[str, Any]) -> None:
    (stcp,) = pod["initContainers"]
    assert stcp["restartPolicy"] == "Always"
    assert {"startupProbe", "readinessProbe", "livenessProbe"} <= stcp.keys()
    assert stcp["securityContext"]["readOnlyRootFilesystem"]
    assert pod["securityContext"]["fsGroup"] == stcp["securityContext"]["runAsGroup"]


def test_the_policy_admits_the_stcp_port_alone() -> None:
    (policy,) = [document for _, document in KUBERNETES if document["kind"] == "NetworkPolicy"]
    assert policy["spec"]["ingress"] == [{"ports": [{"protocol": "TCP", "port": 7379}]}]


@pytest.mark.parametrize(
    "document",
    [document for _, document in KUBERNETES if document["kind"] == "ConfigMap"],
    ids=lambda one: one["metadata"]["name"],
)
def test_files_in_config_maps(document: dict[str, Any], tmp_path: Path) -> None:
    keys.write_secret_file(tmp_path / "host.key", keys.format_private_key(keys.PrivateKey.generate()))
    keys.write_secret_file(tmp_path / "admin.token", "0123456789abcdef")
    (tmp_path / "config.yaml").write_text(document["data"]["config.yaml"].replace("/var/lib/stcp", str(tmp_path)))
    assert load_plan(tmp_path / "config.yaml").admin is not None
