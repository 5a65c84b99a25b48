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
    check_hung_while_writing,
    check_killed_while_writing,
    fails,
    folder_of_keys,
    inspect,
    is_running,
    logs,
    public_key,
    redis,
    said,
    until,
    uses_redis,
    watched,
)
from memory import weighed

NETWORK = "cluster"


def check() -> None:
    """Both pods, a killed sidecar, a stop, and interception."""
    said("podman", "network", "create", NETWORK)
    server_keys, server_key = folder_of_keys("server")
    client_keys, client_key = folder_of_keys("client")
    with watched():
        play("server", server_keys, client_key, "--start=false")
        start_in_order("redis-pod", "redis")
        play("client", client_keys, server_key, "--start=false")
        start_in_order("app-pod", "app")
        until(lambda: "PONG" in logs("app-pod-app"), "the application had no answer")
        assert "refused" not in logs("app-pod-app"), "the proxy was ready before it accepted connections"
        uses_redis("app-pod-stcp", "127.0.0.1")
        with weighed("app-pod-stcp", "at rest, with its probes"):
            pass
        check_killed_while_writing("app-pod-stcp", "127.0.0.1")
        healthy("app-pod-stcp")  # until its startup probe has succeeded, no liveness probe runs
        check_hung_while_writing("app-pod-stcp", "127.0.0.1")
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
    check_pod_restart()
    said("podman", "kube", "down", "/work/files/intercept.yaml")
    said("podman", "kube", "down", "/work/files/server.yaml")


def start_in_order(pod: str, application: str) -> None:
    """Start a pod as a kubelet does, which Podman does not: the application when the startup probe of its sidecar succeeds."""
    said("podman", "start", f"{pod}-stcp")
    healthy(f"{pod}-stcp")
    assert not is_running(f"{pod}-{application}")
    said("podman", "start", f"{pod}-{application}")


def check_pod_restart() -> None:
    """`podman pod restart` runs no init container. The proxy says so and is not ready, until a stop and a start of the pod."""
    said("podman", "stop", "--time", "1", "app-pod-app")
    said("podman", "pod", "restart", "app-pod")
    until(lambda: "the rules of interception are missing" in logs("app-pod-stcp"), "the proxy does not miss its rules")
    ready = ("podman", "exec", "app-pod-stcp", "stcp-proxy", "wait", "/etc/stcp/config.yaml", "--timeout", "5s")
    assert fails(*ready), "ready without its rules"
    said("podman", "pod", "stop", "--time", "1", "app-pod")
    said("podman", "pod", "start", "app-pod")
    healthy("app-pod-stcp")
    uses_redis("app-pod-stcp", "redis-stcp", user="1000:1000")


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


def play(name: str, keys: Path, peer: str, *options: str, change: Callable[[Documents], None] = lambda _: None) -> None:
    """Run one file of configs/kubernetes.

    Args:
        name: the file without its ending.
        keys: the folder with the key and the token.
        peer: the public key of the other side.
        options: of `podman kube play`.
        change: what this test changes in the documents that Podman knows.
    """
    text = Path(f"/configs/kubernetes/{name}.yaml").read_text(encoding="utf-8")
    documents = as_podman_knows(list(yaml.safe_load_all(text)), keys, peer)
    change(documents)
    file = Path(f"/work/files/{name}.yaml")
    file.parent.mkdir(exist_ok=True)
    file.write_text(yaml.safe_dump_all(documents), encoding="utf-8")
    alias = f"{NETWORK}:alias=redis-stcp" if name == "server" else NETWORK
    said("podman", "kube", "play", "--network", alias, *options, str(file))


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
