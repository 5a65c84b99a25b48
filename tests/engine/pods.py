"""Pods that end under load: a stop, a restart and a replacement of the whole pod, as seen by programs that check every byte.

Kubernetes without native sidecars sends SIGTERM to all containers of a pod at once, and the pod keeps its network until the last
one has ended. So the proxy drains while the application of the same pod still uses it. Podman's own stop takes the network away
and sends a second SIGTERM when the first container has ended: `stop` sends the signals itself.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

from engine import DEADLINE, bait, folder_of_keys, inspect, said, until, uses_redis, watched
from kubernetes import NETWORK, Documents, address_of, healthy, play
from memory import weighed

GRACE = 8.0
"""Seconds that an application goes on after SIGTERM: `GRACE` of application.py."""
REPORTS = Path("/work/reports")


def check() -> None:
    """A server's pod is replaced by another one; then a pod whose client is intercepted is stopped and started again."""
    REPORTS.mkdir(mode=0o777)
    REPORTS.chmod(0o777)
    said("podman", "network", "create", "--ignore", NETWORK)
    server_keys, server_key = folder_of_keys("redis")
    client_keys, client_key = folder_of_keys("application")
    said("podman", "tag", "localhost/stcp-proxy:latest", "localhost/stcp-proxy:next")
    with watched():
        play("server", server_keys, client_key, change=with_stream)
        play("client", client_keys, server_key, change=with_tunnel_for_stream)
        healthy("redis-pod-stcp")
        healthy("app-pod-stcp")
        with beside("fetch", "6380"), beside("load", "8"):
            until(lambda: report("fetch").get("received", 0) > 1e6 and sum(report("load").get("checked", [0])) > 100, "no load")
            with weighed("redis-pod-stcp", "under load"), weighed("app-pod-stcp", "under load"):
                play("server", server_keys, client_key, change=next_version)
                healthy("redis-next-pod-stcp")
            with beside("fresh"):
                check_replaced()
        said("podman", "pod", "rm", "--force", "app-pod")
    check_intercepted(client_keys, server_key)
    said("podman", "pod", "rm", "--force", "redis-next-pod")


def check_replaced() -> None:
    """The first pod is stopped as a whole. What it has begun it ends, and new connections go to the second."""
    until(lambda: len(report("fresh").get("results", [])) > 3, "no new connections")
    began, took = stop("redis-pod")
    until(lambda: all("ended" in report(each) for each in ("fetch", "load")), "the stop cut a client: it reports no end")
    fetched, loaded, streamed = report("fetch"), report("load"), report("stream")
    assert fetched.get("same"), f"the stop cut a connection that the application was about to end: {fetched}"
    assert streamed["ended"] > streamed["asked"] + GRACE - 1, f"the application had no time to end its connections: {streamed}"
    assert not [end for end in loaded["ends"] if end.startswith("wrong")], f"wrong answers: {loaded}"
    assert all(loaded["ends"]), f"connections of the server that has ended are open: {loaded}"
    ended_in_order("redis-pod-stcp", began)
    said("podman", "pod", "rm", "--force", "redis-pod")
    over = time.time()
    until(lambda: report("fresh")["results"][-1][0] > over + 1, "no new connections")
    results = report("fresh")["results"]
    failed = [round(at - began, 2) for at, result in results if result != "answer"]
    late = [at for at in failed if at > 1]
    assert not late, f"a new connection was not answered although the second pod serves: {failed} s after the stop"
    print(
        f"a pod replaced under load: {fetched['received'] / 1e6:.0f} MB in one connection, ended by the application "
        f"{streamed['ended'] - streamed['asked']:.1f} s after SIGTERM; {sum(loaded['checked'])} answers checked; "
        f"{len(results)} new connections, {len(failed)} of them ended by the stop; the stop took {took:.1f} s",
        flush=True,
    )


def check_intercepted(keys: Path, peer: str) -> None:
    """A client that knows nothing of the proxy. Past the proxy a server waits that no answer may come from."""
    address = address_of("redis-next-pod")
    with watched(), bait(address, "--pod", "redis-next-pod"):
        play("intercept", keys, peer, change=with_finishing_application)
        healthy("app-pod-stcp")
        until(lambda: report("finish").get("appended", 0) > 100, "the application does not write")
        began, took = stop("app-pod")
        done = report("finish")
        assert done.get("same"), f"the stop cut the application's connection, or bytes were lost: {done}"
        assert done["ended"] > done["asked"] + GRACE, f"the application had no time: {done}"
        assert len(done["new"]) > 10, done
        assert set(done["new"]) == {"ConnectionRefusedError"}, f"new connections: {done['new']}"
        drained = ended_in_order("app-pod-stcp", began)
        assert drained > done["ended"] - 1, "the proxy ended before the application's connection"
        print(
            f"a pod stopped under load: {done['appended'] * 4 / 1000:.1f} MB written, for {done['ended'] - done['asked']:.1f} s "
            f"after SIGTERM too; {len(done['new'])} new connections refused after it; the stop took {took:.1f} s",
            flush=True,
        )
        check_started_again()
    said("podman", "pod", "rm", "--force", "app-pod")


def check_started_again() -> None:
    """A pod that is started again has a new network: it has the rules again before the application runs."""
    (REPORTS / "finish").unlink()
    said("podman", "pod", "start", "app-pod")
    healthy("app-pod-stcp")
    until(lambda: report("finish").get("appended", 0) > 100, "the application does not write")
    uses_redis("app-pod-stcp", "redis-stcp", user="1000:1000")


# -- what the steps share ------------------------------------------------------------------------------------------------------


def report(name: str) -> dict[str, Any]:
    """What a program has reported so far."""
    with contextlib.suppress(FileNotFoundError):
        found: dict[str, Any] = json.loads((REPORTS / name).read_text(encoding="utf-8"))
        return found
    return {}


@contextlib.contextmanager
def beside(role: str, *arguments: str) -> Iterator[None]:
    """A program of application.py in the network of the client's pod, as an ordinary user."""
    network = f"/proc/{inspect('app-pod-stcp')['State']['Pid']}/ns/net"
    command = ["nsenter", f"--net={network}", "--setuid=1000", "--setgid=1000", "python3", "-B", "/engine/application.py", role]
    program = subprocess.Popen([*command, *arguments, str(REPORTS / role)])
    try:
        yield
    finally:
        program.terminate()
        program.wait(DEADLINE)


def stop(pod: str) -> tuple[float, float]:
    """Stop all containers of a pod at once, as Kubernetes does. Returns when that began, and how many seconds it took."""
    found = said("podman", "ps", "--filter", f"pod={pod}", "--format", "{{.Names}}").split()
    states = [inspect(each)["State"] for each in found if not each.endswith("-infra")]
    assert len(states) > 1, found
    began = time.time()
    for each in states:
        os.kill(each["Pid"], signal.SIGTERM)
    until(lambda: not any(Path(f"/proc/{each['Pid']}").exists() for each in states), f"{pod} does not end")
    took = time.time() - began
    until(lambda: not said("podman", "ps", "--quiet", "--filter", f"pod={pod}"), f"Podman does not see the end of {pod}")
    return began, took


def ended_in_order(proxy: str, began: float) -> float:
    """The proxy heard of the stop at its beginning, cut no connection, and ended by itself. Returns when."""
    found = inspect(proxy)
    text = Path(found["HostConfig"]["LogConfig"]["Path"]).read_text(encoding="utf-8")
    lines = [json.loads(line[line.index("{") :]) for line in text.splitlines() if '"event"' in line]
    (heard,) = (each for each in lines if each["event"] == "stopping")
    stopped = lines[-1]
    assert stopped["event"] == "stopped", text
    assert (found["State"]["ExitCode"], stopped["cut_off"]) == (0, 0), text
    assert seconds(heard) < began + 5, f"the proxy heard of the stop {seconds(heard) - began:.1f} s after its beginning"
    return seconds(stopped)


def seconds(line: dict[str, Any]) -> float:
    """When a line of the log was written."""
    return datetime.fromisoformat(line["timestamp"]).timestamp()


def with_stream(documents: Documents) -> None:
    """Beside Redis, a server that ends its connections after SIGTERM."""
    config, deployment = documents
    ends_once(documents)
    config["data"]["config.yaml"] += '  stream: {mode: listen, bind: ":7380", to: 127.0.0.1:6380, allow: app}\n'
    pod = deployment["spec"]["template"]["spec"]
    pod["containers"].append(program("stream", "6380", str(REPORTS / "stream")))
    pod["volumes"] += volumes()


def with_tunnel_for_stream(documents: Documents) -> None:
    documents[0]["data"]["config.yaml"] += "  stream: {mode: connect, bind: 127.0.0.1:6380, to: redis-stcp:7380, peer: redis}\n"


def next_version(documents: Documents) -> None:
    """A pod beside the first one, with the next image of the proxy."""
    for each in documents:
        each["metadata"]["name"] = each["metadata"]["name"].replace("redis", "redis-next", 1)
    pod = documents[1]["spec"]["template"]["spec"]
    pod["volumes"][0]["configMap"]["name"] = documents[0]["metadata"]["name"]
    assert pod["containers"][0]["name"] == "stcp"
    pod["containers"][0]["image"] = "localhost/stcp-proxy:next"


def ends_once(documents: Documents) -> None:
    """Podman starts no container of the pod again after a signal that it does not know of."""
    documents[1]["spec"]["template"]["spec"]["restartPolicy"] = "Never"


def with_finishing_application(documents: Documents) -> None:
    """In place of redis-cli, a client that ends its connection after SIGTERM."""
    ends_once(documents)
    pod = documents[1]["spec"]["template"]["spec"]
    (application,) = (each for each in pod["containers"] if each["name"] == "app")
    application |= program("finish", "redis-stcp", str(REPORTS / "finish")) | {"name": "app"}
    pod["volumes"] += volumes()


def program(role: str, *arguments: str) -> dict[str, Any]:
    """A container with a program of application.py. The proxy's image has a Python."""
    return {
        "name": role,
        "image": "localhost/stcp-proxy",
        "command": ["python3", "-B", "/engine/application.py", role, *arguments],
        "volumeMounts": [{"name": each["name"], "mountPath": each["hostPath"]["path"]} for each in volumes()],
    }


def volumes() -> list[dict[str, Any]]:
    return [
        {"name": "programs", "hostPath": {"path": "/engine", "type": "Directory"}},
        {"name": "reports", "hostPath": {"path": str(REPORTS), "type": "Directory"}},
    ]
