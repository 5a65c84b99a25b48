"""configs/kubernetes: Redis and its client in pods, one after the other; then the client with interception.

`podman kube play` knows a part of Kubernetes. What the files say and Podman does not know is changed in `as_podman_knows`, and
listed in docs/SIDECAR.md.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml
from engine import (
    SECRET,
    bait,
    check_drain,
    check_killed_while_writing,
    fails,
    folder_of_keys,
    inspect,
    logs,
    public_key,
    redis,
    said,
    until,
    uses_redis,
    watched,
)

NETWORK = "cluster"


def check() -> None:
    """Both pods, a killed sidecar, a stop, and interception."""
    said("podman", "network", "create", NETWORK)
    server_keys, server_key = folder_of_keys("server")
    client_keys, client_key = folder_of_keys("client")
    with watched():
        play("server", server_keys, client_key)
        healthy("redis-pod-stcp")
        play("client", client_keys, server_key)
        healthy("app-pod-stcp")
        until(lambda: "PONG" in logs("app-pod-app"), "the application had no answer")
        uses_redis("app-pod-stcp", "127.0.0.1")
        check_killed_while_writing("app-pod-stcp", "127.0.0.1")
        said("podman", "stop", "--time", "1", "app-pod-app")  # its connection never ends
        check_drain("app-pod-stcp", "redis-pod-redis")
    said("podman", "kube", "down", "/work/files/client.yaml")
    with watched(), bait(address_of("redis-pod"), "--pod", "redis-pod"):
        play("intercept", client_keys, server_key)
        healthy("app-pod-stcp")  # which it is not without its rules
        until(lambda: "PONG" in logs("app-pod-app"), "the application had no answer, intercepted")
        uses_redis("app-pod-stcp", "redis-stcp", user="1000:1000")
        check_killed_while_writing("app-pod-stcp", "redis-stcp", user="1000:1000")
        said("podman", "pause", "app-pod-stcp")
        assert fails(*redis("app-pod-stcp", "-h", "redis-stcp", "set", "word", SECRET, user="1000:1000")), (
            "an answer without a proxy"
        )
        said("podman", "unpause", "app-pod-stcp")
    said("podman", "kube", "down", "/work/files/intercept.yaml")
    said("podman", "kube", "down", "/work/files/server.yaml")


def address_of(pod: str) -> str:
    """Where other pods find it."""
    infra = json.loads(said("podman", "pod", "inspect", pod))
    found = infra[0] if isinstance(infra, list) else infra
    address: str = inspect(found["InfraContainerID"])["NetworkSettings"]["Networks"][NETWORK]["IPAddress"]
    return address


def healthy(container: str) -> None:
    """Wait until the probes find the container well."""
    until(lambda: inspect(container)["State"]["Health"]["Status"] == "healthy", f"{container} is not healthy")


Documents = list[dict[str, Any]]


def play(name: str, keys: Path, peer: str, change: Callable[[Documents], None] = lambda _: None) -> None:
    """Run one file of configs/kubernetes.

    Args:
        name: the file without its ending.
        keys: the folder with the key and the token.
        peer: the public key of the other side.
        change: what this test changes in the documents that Podman knows.
    """
    text = Path(f"/configs/kubernetes/{name}.yaml").read_text(encoding="utf-8")
    documents = as_podman_knows(list(yaml.safe_load_all(text)), keys, peer)
    change(documents)
    file = Path(f"/work/files/{name}.yaml")
    file.parent.mkdir(exist_ok=True)
    file.write_text(yaml.safe_dump_all(documents), encoding="utf-8")
    alias = f"{NETWORK}:alias=redis-stcp" if name == "server" else NETWORK
    said("podman", "kube", "play", "--network", alias, str(file))


def as_podman_knows(documents: Documents, keys: Path, peer: str) -> Documents:
    """The documents without Service and NetworkPolicy, with the keys as a folder of the host, and with the peer's key."""
    found = [each for each in documents if each["kind"] in ("ConfigMap", "Deployment")]
    for each in found:
        if each["kind"] == "ConfigMap":
            text = each["data"]["config.yaml"]
            each["data"]["config.yaml"] = text.replace(public_key(text), peer)
            continue
        each["spec"]["replicas"] = 1
        pod = each["spec"]["template"]["spec"]
        # A sidecar of Kubernetes is an init container with probes, which Podman refuses: here it is the first container.
        sidecars = [one for one in pod["initContainers"] if one.pop("restartPolicy", None)]
        pod["initContainers"] = [one for one in pod["initContainers"] if one not in sidecars]
        pod["containers"] = sidecars + pod["containers"]
        for volume in pod["volumes"]:
            if "secret" in volume:  # fsGroup is not known: root alone could read the Secret
                del volume["secret"]
                volume["hostPath"] = {"path": str(keys), "type": "Directory"}
    return found
