"""The chart for Helm, the component for kustomize, injection, and the rules of the Prometheus Operator.

Helm renders the chart. The objects are right by the published schemas, and the sidecar is the same in all of them.
"""

from __future__ import annotations

import copy
import re
import shutil
from pathlib import Path
from typing import Any

import helm_python as helm
import kubernetes_validate
import pytest
import yaml
from harness.certificates import TestAuthority

from stcp_proxy import keys
from stcp_proxy.config import load_plan

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
CHART = CONFIGS / "helm" / "stcp-proxy"
LEAST: dict[str, Any] = {
    "secret": {"existing": "own"},
    "config": {
        "peers": {"app": str(keys.PrivateKey.generate().public)},
        "tunnels": {"redis": {"mode": "listen", "bind": ":7379", "to": "redis:6379", "allow": "app"}},
    },
    "gateway": {"ports": [{"name": "redis", "port": 7379}]},
}
CERTIFIED: dict[str, Any] = {
    "certificate": {"enabled": True, "issuerRef": {"name": "internal"}, "uris": ["spiffe://prod/ns/shop/sa/app"]},
    "config": {"tunnels": {"redis": {"mode": "listen", "bind": ":7379", "to": "redis:6379", "allow": "spiffe://prod/**"}}},
}
METRICS: dict[str, Any] = {"metrics": {"enabled": True, "podMonitor": {"enabled": True}, "rules": {"enabled": True}}}
SPANS: dict[str, Any] = {
    "config": LEAST["config"] | {"otlp": {"insecure": True, "headers_file": "/var/lib/stcp/otlp.headers"}},
    "env": [
        {"name": "NODE", "valueFrom": {"fieldRef": {"fieldPath": "status.hostIP"}}},
        {"name": "OTEL_EXPORTER_OTLP_ENDPOINT", "value": "http://$(NODE):4318"},
    ],
}
PUBLISHED = {"Deployment", "Service", "ConfigMap", "Secret", "NetworkPolicy"}
"""Kinds whose schemas Kubernetes publishes."""


def render(values: dict[str, Any], chart: Path = CHART) -> dict[str, Any]:
    """The objects of the chart by kind."""
    with helm.Chart.load(str(chart)) as found:
        texts = found.render(values, name="demo", namespace="shop")
    documents = [each for name, text in texts.items() if name.endswith(".yaml") for each in yaml.safe_load_all(text) if each]
    return {each["kind"]: each for each in documents}


def document(path: Path, number: int = 0) -> dict[str, Any]:
    found: dict[str, Any] = list(yaml.safe_load_all(path.read_text(encoding="utf-8")))[number]
    return found


@pytest.mark.parametrize(
    ("values", "kinds"),
    [
        ({}, {"ConfigMap", "Deployment", "Service", "NetworkPolicy"}),
        ({"secret": {"hostKey": "k", "adminToken": "t"}}, {"ConfigMap", "Deployment", "Service", "NetworkPolicy", "Secret"}),
        (METRICS, {"ConfigMap", "Deployment", "Service", "NetworkPolicy", "PodMonitor", "PrometheusRule"}),
        (CERTIFIED, {"ConfigMap", "Deployment", "Service", "NetworkPolicy", "Certificate"}),
        (SPANS, {"ConfigMap", "Deployment", "Service", "NetworkPolicy"}),
        ({"gateway": {"enabled": False}}, {"ConfigMap"}),
    ],
    ids=["least", "secret", "metrics", "certificate", "spans", "sidecar"],
)
def test_objects(values: dict[str, Any], kinds: set[str]) -> None:
    found = render({**LEAST, **values})
    assert found.keys() == kinds
    for kind in kinds & PUBLISHED:
        kubernetes_validate.validate(found[kind], "1.33", strict=True)


@pytest.mark.parametrize("values", [{}, METRICS, CERTIFIED], ids=["key", "metrics", "certificate"])
def test_its_configuration_is_one_that_the_proxy_reads(values: dict[str, Any], tmp_path: Path) -> None:
    text = render({**LEAST, **values})["ConfigMap"]["data"]["config.yaml"]
    keys.write_secret_file(tmp_path / "host.key", keys.format_private_key(keys.PrivateKey.generate()))
    keys.write_secret_file(tmp_path / "admin.token", "0123456789abcdef")
    if "certificate" in text:
        authority = TestAuthority()
        authority.bundle(tmp_path / "ca.crt")
        authority.issue("spiffe://prod/ns/shop/sa/app").write(tmp_path, "tls")
        (tmp_path / "tls-tls.key").rename(tmp_path / "tls.key")
    text = text.replace("/var/lib/stcp", str(tmp_path)).replace("/run/stcp", str(tmp_path))
    (tmp_path / "config.yaml").write_text(text)
    admin = load_plan(tmp_path / "config.yaml").admin
    assert admin is not None
    assert admin.token is not None


def test_spans_by_an_agent_on_the_node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The example of docs/HELM.md: the address of the node in a variable, a token in the Secret."""
    found = render({**LEAST, **SPANS})
    (container,) = found["Deployment"]["spec"]["template"]["spec"]["containers"]
    assert container["env"] == SPANS["env"]
    text = found["ConfigMap"]["data"]["config.yaml"].replace("/var/lib/stcp", str(tmp_path))
    for name in ("host.key", "admin.token", "otlp.headers"):
        content = keys.format_private_key(keys.PrivateKey.generate()) if name == "host.key" else "authorization: 0123456789abcdef"
        keys.write_secret_file(tmp_path / name, content if name != "admin.token" else "0123456789abcdef")
    (tmp_path / "config.yaml").write_text(text)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://10.1.2.3:4318")
    plan = load_plan(tmp_path / "config.yaml").otlp
    assert plan is not None
    assert plan.endpoint == "http://10.1.2.3:4318/v1/traces"
    assert [name for name, _ in plan.headers] == ["authorization"]


@pytest.mark.parametrize(
    ("values", "why"),
    [
        ({"secret": {}}, "name an existing Secret"),
        ({"config": {"tunnels": {}}}, "name at least one tunnel"),
        ({"config": {"identity": "x", "tunnels": {}}}, "config"),
        ({"imgae": {}}, "imgae"),
        ({"env": [{"value": "x"}]}, "name"),
        ({"gateway": {"ports": [{"name": "redis", "port": 70000}]}}, "port"),
        ({"certificate": {"enabled": True}}, "issuerRef"),
    ],
)
def test_mistakes_are_refused(values: dict[str, Any], why: str) -> None:
    with pytest.raises(helm.HelmError, match=why):
        render({**copy.deepcopy(LEAST), **values})


def test_helm_finds_no_mistake() -> None:
    found = helm.lint(str(CHART))
    assert found["errors"] == []
    assert [each["error"] for each in found["messages"]] == ["icon is recommended"]


def sidecar_of(found: dict[str, Any]) -> dict[str, Any]:
    """The part that is the same wherever the sidecar stands."""
    names = ("startupProbe", "readinessProbe", "livenessProbe", "securityContext", "resources", "restartPolicy", "image")
    return {name: found.get(name) for name in names}


@pytest.fixture
def dependent(tmp_path: Path) -> Path:
    """A chart that includes the sidecar, as templates/_sidecar.tpl tells."""
    told = re.findall(r"^  (.*)$", (CHART / "templates" / "_sidecar.tpl").read_text(encoding="utf-8").partition("*/")[0], re.M)
    (tmp_path / "templates").mkdir()
    (tmp_path / "Chart.yaml").write_text(
        'apiVersion: v2\nname: shop\nversion: 1.0.0\ndependencies: [{name: stcp-proxy, version: "*"}]\n'
    )
    pod = "".join(f"  {line}\n" for line in told)
    container = "  containers: [{name: app, image: app}]\n"
    (tmp_path / "templates" / "pod.yaml").write_text(
        f"apiVersion: v1\nkind: Pod\nmetadata: {{name: app}}\nspec:\n{pod}{container}"
    )
    shutil.copytree(CHART, tmp_path / "charts" / "stcp-proxy")
    return tmp_path


def test_another_chart_includes_the_sidecar(dependent: Path) -> None:
    pod = render({"stcp-proxy": {**LEAST, "gateway": {"enabled": False}}}, dependent)["Pod"]
    kubernetes_validate.validate(pod, "1.33", strict=True)
    (proxy,) = pod["spec"]["initContainers"]
    sample = document(CONFIGS / "kubernetes" / "client.yaml", 1)["spec"]["template"]["spec"]
    assert sidecar_of(proxy) == sidecar_of(sample["initContainers"][0])
    assert pod["spec"]["securityContext"] == sample["securityContext"]
    assert {each["name"] for each in proxy["volumeMounts"]} == {each["name"] for each in pod["spec"]["volumes"]}


def test_the_component_has_the_sidecar_of_the_sample() -> None:
    component = document(CONFIGS / "kubernetes" / "component" / "kustomization.yaml")
    assert component["kind"] == "Component"
    (patch,) = component["patches"]
    spec = document(CONFIGS / "kubernetes" / "component" / patch["path"])["spec"]["template"]["spec"]
    sample = document(CONFIGS / "kubernetes" / "client.yaml", 1)["spec"]["template"]["spec"]
    assert spec["initContainers"] == sample["initContainers"]
    assert spec["volumes"] == sample["volumes"]
    assert spec["securityContext"] == sample["securityContext"]


def test_one_list_of_alerts() -> None:
    alerts = document(CONFIGS / "prometheus" / "alerts.yaml")
    assert document(CHART / "files" / "alerts.yaml") == alerts
    assert document(CONFIGS / "prometheus" / "operator.yaml")["spec"] == alerts
    assert render({**LEAST, **METRICS})["PrometheusRule"]["spec"] == alerts
