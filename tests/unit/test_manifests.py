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
from stcp_proxy.config.intercept import load_capture
from stcp_proxy.intercept import rules_for
from stcp_proxy.intercept.users import exempt_users

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
    *rules, stcp = pod["initContainers"]
    assert stcp["restartPolicy"] == "Always"
    assert all("restartPolicy" not in one for one in rules)
    assert {"startupProbe", "readinessProbe", "livenessProbe"} <= stcp.keys()
    assert stcp["securityContext"]["readOnlyRootFilesystem"]
    assert pod["securityContext"]["fsGroup"] == stcp["securityContext"]["runAsGroup"]


def test_every_pod_has_the_same_sidecar() -> None:
    """Requests and limits, probes and rights of client.yaml; chart, component and injection are compared with it elsewhere."""
    sidecars = [{**pod["initContainers"][-1], "ports": None} for pod in PODS]
    assert len(sidecars) == 3
    assert all(each == sidecars[0] for each in sidecars)


def test_one_container_of_a_pod_may_change_its_network_and_it_has_no_key() -> None:
    """It ends before the proxy starts; the application is not whom its rules leave alone."""
    (pod,) = [pod for pod in PODS if len(pod["initContainers"]) > 1]
    rules, stcp = pod["initContainers"]
    (app,) = pod["containers"]
    assert rules["securityContext"]["capabilities"] == {"drop": ["ALL"], "add": ["NET_ADMIN"]}
    assert [one["securityContext"]["capabilities"] for one in (stcp, app)] == [{"drop": ["ALL"]}] * 2
    assert [mount["name"] for mount in rules["volumeMounts"]] == ["config"]
    assert_rules_for(rules["args"], stcp["securityContext"]["runAsUser"])
    assert app["securityContext"]["runAsUser"] != stcp["securityContext"]["runAsUser"]


def test_podman_installs_the_rules_at_every_start_of_the_pod() -> None:
    """Without the annotation it runs init containers once. A pod that is started again has a new network, without rules."""
    (deployment,) = (one for name, one in KUBERNETES if name == "intercept.yaml" and one["kind"] == "Deployment")
    assert deployment["metadata"]["annotations"] == {"io.podman.annotations.init.container.type": "always"}


def test_one_service_of_a_host_may_change_its_network_and_it_has_no_key() -> None:
    services = yaml.safe_load((CONFIGS / "compose/intercept/compose.yaml").read_text())["services"]
    assert {name: one.get("cap_add") for name, one in services.items()} == {"stcp": None, "rules": ["NET_ADMIN"], "app": None}
    assert all(one["cap_drop"] == ["ALL"] for one in services.values())
    assert services["rules"]["volumes"] == ["./stcp.yaml:/etc/stcp/config.yaml:ro"]
    assert services["rules"]["depends_on"] == {"stcp": {"condition": "service_started"}}
    assert services["app"]["depends_on"] == {
        "rules": {"condition": "service_completed_successfully"},
        "stcp": {"condition": "service_healthy"},
    }
    assert "restart" not in services["app"]
    assert_rules_for(services["rules"]["command"], 47443)
    assert services["app"]["user"] != "47443:47443"


def assert_rules_for(command: list[str], user: int) -> None:
    """They are the image's own, and `user` is the image's."""
    dockerfile = (CONFIGS.parent / "Dockerfile").read_text()
    assert f"\nUSER {user}:{user}\n" in dockerfile
    assert command == ["intercept", "/etc/stcp/config.yaml", "--uid", str(user), "--apply"]
    assert f"\nCMD {json.dumps(command)}\n" in dockerfile


@pytest.mark.parametrize(
    "text",
    [
        (CONFIGS / "compose/intercept/stcp.yaml").read_text(),
        *[one["data"]["config.yaml"] for name, one in KUBERNETES if name == "intercept.yaml" and one["kind"] == "ConfigMap"],
    ],
    ids=["compose", "kubernetes"],
)
def test_what_the_rules_send(text: str, tmp_path: Path) -> None:
    """Read without the key that the file names."""
    (tmp_path / "config.yaml").write_text(text)
    capture = load_capture(tmp_path / "config.yaml")
    rules = rules_for(capture, exempt_users(["47443"], capture), table="stcp_proxy").nft
    assert "47443" in rules
    assert "15001" in rules


@pytest.mark.parametrize("name", ["client.yaml", "server.yaml", "intercept.yaml"])
def test_no_other_pod_can_take_the_pace_of_the_probes(name: str) -> None:
    """The admin address is on loopback, and the kubelet runs a command."""
    documents = [document for file, document in KUBERNETES if file == name]
    (config,) = [document["data"]["config.yaml"] for document in documents if document["kind"] == "ConfigMap"]
    assert "admin: 127.0.0.1:9901" in config
    (pod,) = [document["spec"]["template"]["spec"] for document in documents if "template" in document.get("spec", {})]
    (proxy,) = [each for each in pod.get("initContainers", []) + pod["containers"] if "livenessProbe" in each]
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        assert proxy[probe]["exec"]["command"][0] == "stcp-proxy"
        assert "httpGet" not in proxy[probe]


def test_the_policy_admits_the_stcp_port_alone() -> None:
    (policy,) = [document for _, document in KUBERNETES if document["kind"] == "NetworkPolicy"]
    assert policy["spec"]["ingress"] == [{"ports": [{"protocol": "TCP", "port": 7379}]}]


@pytest.mark.parametrize(
    "document",
    [document for _, document in KUBERNETES if document["kind"] == "ConfigMap"],
    ids=[name for name, document in KUBERNETES if document["kind"] == "ConfigMap"],
)
def test_files_in_config_maps(document: dict[str, Any], tmp_path: Path) -> None:
    keys.write_secret_file(tmp_path / "host.key", keys.format_private_key(keys.PrivateKey.generate()))
    keys.write_secret_file(tmp_path / "admin.token", "0123456789abcdef")
    (tmp_path / "config.yaml").write_text(document["data"]["config.yaml"].replace("/var/lib/stcp", str(tmp_path)))
    assert load_plan(tmp_path / "config.yaml").admin is not None
