"""The MutatingAdmissionPolicy, evaluated: its conditions choose pods, and its patches make a pod with the sample's sidecar.

The expressions are CEL, which a library evaluates. It has no types of Kubernetes, so `Object…{name: value}` is read as a map.
"""

from __future__ import annotations

import copy
import re
from pathlib import Path
from typing import Any

import cel
import kubernetes_validate
import pytest
import yaml

FOLDER = Path(__file__).resolve().parents[2] / "configs" / "kubernetes"
POLICY, BINDING = yaml.safe_load_all((FOLDER / "injection" / "policy.yaml").read_text(encoding="utf-8"))
APPLICATION: dict[str, Any] = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {"name": "app", "annotations": {"stcp-proxy/config": "app-stcp"}},
    "spec": {"containers": [{"name": "app", "image": "app"}]},
}


def evaluated(expression: str, **variables: Any) -> Any:
    return cel.evaluate(expression, cel.Context(variables=variables))


def as_maps(expression: str) -> str:
    """An expression whose objects of Kubernetes are maps."""
    return re.sub(r"(?<=[{,\s])(\w+): ", r'"\1": ', re.sub(r"\b(?:Object[.\w]*|JSONPatch)\{", "{", expression))


def is_chosen(pod: dict[str, Any]) -> bool:
    # A condition that fails is an error, which `failurePolicy: Fail` makes a refusal: none of them may.
    return all(evaluated(each["expression"], object=pod) for each in POLICY["spec"]["matchConditions"])


def injected(pod: dict[str, Any]) -> dict[str, Any]:
    """The pod as the API server makes it."""
    spec = POLICY["spec"]
    variables = {each["name"]: evaluated(each["expression"], object=pod) for each in spec["variables"]}
    found = copy.deepcopy(pod)
    for mutation in spec["mutations"]:
        for patch in evaluated(as_maps(mutation["jsonPatch"]["expression"]), object=pod, variables=variables):
            add(found, patch)
    return found


def add(document: dict[str, Any], patch: dict[str, Any]) -> None:
    """Apply one operation `add` of JSON Patch. Raises KeyError where the place has no parent, as the API server refuses it."""
    assert patch["op"] == "add"
    *parents, last = patch["path"].split("/")[1:]
    where: Any = document
    for name in parents:
        where = where[name]
    if last == "-":
        where.append(patch["value"])
    else:
        where[last] = patch["value"]


def pod(**spec: Any) -> dict[str, Any]:
    return {**APPLICATION, "spec": {**APPLICATION["spec"], **spec}}


@pytest.mark.parametrize(
    "before",
    [
        pod(),
        pod(initContainers=[{"name": "first", "image": "first"}]),
        pod(volumes=[{"name": "data", "emptyDir": {}}], securityContext={"runAsNonRoot": True}),
    ],
    ids=["bare", "init", "volumes"],
)
def test_the_sidecar_of_the_sample(before: dict[str, Any]) -> None:
    after = injected(before)
    kubernetes_validate.validate(after, "1.36", strict=True)
    *kept, sidecar = after["spec"]["initContainers"]
    assert kept == before["spec"].get("initContainers", [])
    assert after["spec"]["containers"] == before["spec"]["containers"]
    assert {**sidecar, "volumeMounts": []} == {**sidecar_of_the_sample(), "volumeMounts": []}
    assert after["spec"]["volumes"][: len(before["spec"].get("volumes", []))] == before["spec"].get("volumes", [])
    assert {each["name"] for each in sidecar["volumeMounts"]} <= {each["name"] for each in after["spec"]["volumes"]}
    assert after["spec"]["securityContext"] == {**before["spec"].get("securityContext", {}), "fsGroup": 47443}


def sidecar_of_the_sample() -> dict[str, Any]:
    documents = yaml.safe_load_all((FOLDER / "client.yaml").read_text(encoding="utf-8"))
    (deployment,) = (each for each in documents if each["kind"] == "Deployment")
    (found,) = deployment["spec"]["template"]["spec"]["initContainers"]
    sidecar: dict[str, Any] = found
    return sidecar


def test_where_the_keys_and_the_configuration_are_from() -> None:
    volumes = {each["name"]: each for each in injected(APPLICATION)["spec"]["volumes"]}
    assert volumes["stcp-config"]["configMap"] == {"name": "app-stcp"}
    assert volumes["stcp-keys"]["secret"] == {"secretName": "app-stcp", "defaultMode": 0o400}


def test_pods_that_it_changes() -> None:
    assert is_chosen(APPLICATION)
    assert not is_chosen(injected(APPLICATION)), "a second run would add a second sidecar"
    assert not is_chosen({**APPLICATION, "metadata": {"name": "app"}})
    assert not is_chosen({**APPLICATION, "metadata": {"name": "app", "annotations": {"team": "shop"}}})


def test_schema() -> None:
    for each in (POLICY, BINDING):
        kubernetes_validate.validate(each, "1.36", strict=True)
    assert BINDING["spec"]["policyName"] == POLICY["metadata"]["name"]
