"""What Podman's subset of Kubernetes does not know, and what this test does in its place.

| in configs/kubernetes | here |
|---|---|
| a sidecar: an init container with `restartPolicy: Always` | the first of the containers; the test waits for its readiness |
| probes by HTTP: Podman runs curl inside the container | removed; the test asks as the kubelet does, from outside the pod |
| a Secret's `defaultMode` and the pod's `fsGroup` | a folder of the host with the same owner and mode |
| `replicas: 2` | one pod |
| a headless Service | the Service's name as an alias of the pod on its network |
| NetworkPolicy | left out: nothing in Podman enforces it |
| `preStop` with `sleep` | left out |
| image names without a registry | localhost/ before them |
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

SIDECAR = "stcp"
PROBES = ("startupProbe", "readinessProbe", "livenessProbe")


def for_podman(source: Path, *, keys: Path, replaced: dict[str, str]) -> str:
    """A file of configs/kubernetes as Podman can play it.

    Args:
        source: the file.
        keys: the folder on this machine in place of the Secret.
        replaced: texts that the file's reader is told to replace, and what comes in their place.

    Returns:
        The documents, as YAML.
    """
    text = source.read_text(encoding="utf-8")
    for old, new in replaced.items():
        assert old in text, f"{source.name} does not have {old}"
        text = text.replace(old, new)
    documents = [document for document in yaml.safe_load_all(text) if document["kind"] in ("ConfigMap", "Deployment")]
    for document in documents:
        if document["kind"] == "Deployment":
            document["spec"]["replicas"] = 1
            adapt(document["spec"]["template"]["spec"], keys)
    return yaml.safe_dump_all(documents, sort_keys=False)


def adapt(pod: dict[str, Any], keys: Path) -> None:
    """Change the specification of one pod in place."""
    *rules, sidecar = pod["initContainers"]
    assert sidecar.pop("restartPolicy") == "Always"
    pod["initContainers"] = rules
    pod["containers"] = [sidecar, *pod["containers"]]
    pod.pop("securityContext")
    for container in [*rules, *pod["containers"]]:
        container["image"] = f"localhost/{container['image']}"
        container["imagePullPolicy"] = "Never"
        container.pop("lifecycle", None)
        for probe in PROBES:
            container.pop(probe, None)
    if not rules:
        del pod["initContainers"]
    for volume in pod["volumes"]:
        if "secret" in volume:
            del volume["secret"]
            volume["hostPath"] = {"path": str(keys), "type": "Directory"}
