"""Podman runs the files of configs/compose and configs/kubernetes, and the wire between the containers is watched.

    python -m tests.engine.story WORK REDIS_TAR

Called by tests/engine/run, in namespaces of its own. WORK has the store with the images of the proxy. REDIS_TAR is the root file
system of an unmodified Redis.
"""

from __future__ import annotations

import base64
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

from tests.engine.manifests import for_podman
from tests.engine.podman import Podman, until

ROOT = Path(__file__).resolve().parents[2]
HOST = "192.0.2.1"
"""This host's address, where the database's host publishes its port."""
SECRET = "only-the-two-ends-may-read-this"
USER = 47443
ENTRYPOINT = '#!/bin/sh\ncase "$1" in -*) set -- redis-server "$@" ;; esac\nexec "$@"\n'
"""What the public image of Redis does with its arguments."""
KEYS = {
    "db-host": "stcp-pub:sm7wkzvkwS5UriUZG505HAlsQ63DDVhungSBgUE6QmM=",
    "app-host": "stcp-pub:nxv6/J6Gx8agWo6CBgBCGrWaQ1f7M6+HxK0Tw/lgzyg=",
}
"""The examples' public keys, which each reader replaces."""
CLIENT = ("redis-cli", "-h", HOST)
START = time.monotonic()


def main(work: Path, redis: Path) -> None:
    """All of it, in order."""
    podman = Podman(work)
    subprocess.run(["ip", "link", "add", "outside", "type", "dummy"], check=True)
    subprocess.run(["ip", "address", "add", f"{HOST}/24", "dev", "outside"], check=True)
    subprocess.run(["ip", "link", "set", "outside", "up"], check=True)
    images(podman, work, redis)
    capture = work / "wire.pcap"
    watcher = subprocess.Popen(
        ["tcpdump", "-i", "any", "-U", "-w", capture, "tcp"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    until(capture.exists, lambda: "tcpdump does not run")
    compose(podman, work)
    pods(podman, work)
    watcher.terminate()
    watcher.wait()
    wire = capture.read_bytes()
    assert b"STCP" in wire, "the wire was not watched"
    for word in (SECRET.encode(), b"PING", b"PONG"):
        assert word not in wire, f"{word!r} on the wire"
    step(f"{len(wire)} bytes on the wire, none of them Redis's")


def images(podman: Podman, work: Path, redis: Path) -> None:
    """The image of Redis, and the names that the files have for those of the proxy."""
    step("images")
    context = work / "redis"
    context.mkdir()
    (context / "entrypoint").write_text(ENTRYPOINT, encoding="utf-8")
    change = ("--change", "ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
    podman("import", *change, redis, "localhost/redis-base")
    container = podman("create", "localhost/redis-base", "true")
    (context / "entrypoint").chmod(0o755)
    podman("cp", context / "entrypoint", f"{container}:/usr/local/bin/entrypoint")
    podman("commit", "--change", 'ENTRYPOINT ["entrypoint"]', "--change", 'CMD ["redis-server"]', container, "localhost/redis:7")
    podman("rm", container)
    version = re.findall(r'__version__ = "(.+)"', (ROOT / "stcp_proxy/__init__.py").read_text(encoding="utf-8"))[0]
    for image in ("stcp-proxy", "stcp-proxy-intercept"):
        podman("tag", f"localhost/{image}", f"localhost/{image}:{version}")


def compose(podman: Podman, work: Path) -> None:
    """configs/compose: each folder is a host."""
    folders = work / "compose"
    shutil.copytree(ROOT / "configs/compose", folders)
    step("compose: keys")
    public = {}
    for host in ("db-host", "app-host", "intercept"):
        said = podman.compose(
            folders / host, *("run", "--rm", "--no-deps", "-T", "stcp", "keygen", "--out", "/var/lib/stcp/host.key")
        )
        public[host] = re.findall(r"stcp-pub:\S+", said)[0]
    for host, other in (("db-host", "app-host"), ("app-host", "db-host"), ("intercept", "db-host")):
        file = folders / host / "stcp.yaml"
        text = file.read_text(encoding="utf-8").replace(KEYS[other], public[other]).replace("db.example", HOST)
        file.write_text(text, encoding="utf-8")
        manifest = folders / host / "compose.yaml"
        manifest.write_text(manifest.read_text(encoding="utf-8").replace("db.example", HOST), encoding="utf-8")

    step("compose: db-host and app-host")
    up(podman, folders / "db-host", "stcp", "redis")
    database = name(podman, "stcp-db", "stcp")
    until(lambda: podman("exec", name(podman, "stcp-db", "redis"), "redis-cli", "ping", fails=True) == "PONG", lambda: "no Redis")
    up(podman, folders / "app-host", "stcp", "app")
    application = name(podman, "stcp-app", "app")
    until(lambda: not podman.state(application)["Running"], lambda: "redis-cli does not end")
    assert "PONG" in podman.logs(application), podman.logs(application)
    client = ("run", "--rm", "--network", f"container:{name(podman, 'stcp-app', 'stcp')}", "localhost/redis:7", "redis-cli")
    assert podman(*client, "set", "word", SECRET) == "OK"
    assert podman(*client, "get", "word") == SECRET

    step("compose: a proxy that is killed comes back")
    first = podman.state(database)["Pid"]
    os.kill(first, signal.SIGKILL)
    until(lambda: podman.state(database)["Pid"] not in (0, first), lambda: f"not restarted: {podman.state(database)}")
    until(lambda: podman.healthy(database), lambda: podman.logs(database))
    podman.compose(folders / "db-host", "down")
    podman.compose(folders / "app-host", "down")

    step("compose: intercept")
    folder = folders / "db-host"
    text = (folder / "stcp.yaml").read_text(encoding="utf-8").replace(public["app-host"], public["intercept"])
    (folder / "stcp.yaml").write_text(text, encoding="utf-8")
    up(podman, folder, "stcp", "redis")
    until(lambda: podman.healthy(name(podman, "stcp-db", "stcp")), lambda: podman.logs(name(podman, "stcp-db", "stcp")))
    up(podman, folders / "intercept", "stcp", "rules")
    rules = name(podman, "stcp-intercept", "rules")
    until(lambda: not podman.state(rules)["Running"], lambda: "the rules' container does not end")
    assert podman.state(rules)["ExitCode"] == 0, podman.logs(rules)
    proxy = name(podman, "stcp-intercept", "stcp")
    until(lambda: podman.healthy(proxy), lambda: podman.logs(proxy))
    up(podman, folders / "intercept", "app")
    application = name(podman, "stcp-intercept", "app")
    until(lambda: not podman.state(application)["Running"], lambda: "redis-cli does not end")
    assert "PONG" in podman.logs(application), podman.logs(application)
    client = (
        "run",
        "--rm",
        "--network",
        f"container:{proxy}",
        "--user",
        "1000:1000",
        "localhost/redis:7",
        "redis-cli",
        "-h",
        HOST,
    )
    podman("kill", "--signal", "STOP", proxy)
    os.kill(podman.state(proxy)["Pid"], signal.SIGKILL)
    assert SECRET not in podman(*client, "set", "word", SECRET, fails=True)
    podman.compose(folders / "intercept", "down")
    podman.compose(folder, "down")


def up(podman: Podman, folder: Path, *services: str) -> None:
    """Start services; the engine keeps no order without the timers of systemd, so wait for the health of the proxy here."""
    project = re.findall(r"^name: (\S+)$", (folder / "compose.yaml").read_text(encoding="utf-8"), re.MULTILINE)[0]
    for service in services:
        podman.compose(folder, *("--project-name", project), "up", "--no-build", "--no-deps", "--detach", service)
        if service == "stcp" and "rules" not in services:
            proxy = name(podman, project, service)
            until(lambda proxy=proxy: podman.healthy(proxy), lambda proxy=proxy: podman.logs(proxy))


def name(podman: Podman, project: str, service: str) -> str:
    """The container of a service."""
    found = podman("ps", "--all", "--noheading", "--format", "{{.Names}}", "--filter", f"name={project}.{service}.")
    assert found, podman("ps", "--all")
    return found.split()[0]


def pods(podman: Podman, work: Path) -> None:
    """configs/kubernetes, pod by pod."""
    step("pods: keys")
    public, folders = {}, {}
    for side in ("redis", "app"):
        folders[side] = folder = work / f"{side}-keys"
        folder.mkdir(mode=0o700)
        os.chown(folder, USER, USER)
        said = podman("run", "--rm", "--volume", f"{folder}:/keys", "localhost/stcp-proxy", "keygen", "--out", "/keys/host.key")
        public[side] = re.findall(r"stcp-pub:\S+", said)[0]
        token = folder / "admin.token"
        token.write_text(base64.b16encode(os.urandom(32)).decode().lower() + "\n", encoding="utf-8")
        token.chmod(0o600)
        os.chown(token, USER, USER)
    podman("network", "create", "pods")
    server = for_podman(
        ROOT / "configs/kubernetes/server.yaml", keys=folders["redis"], replaced={KEYS["app-host"]: public["app"]}
    )
    step("pods: server.yaml")
    play(podman, server, "redis-stcp")
    ready(podman, "redis-pod")
    for file in ("client.yaml", "intercept.yaml"):
        step(f"pods: {file}")
        manifest = for_podman(
            ROOT / "configs/kubernetes" / file, keys=folders["app"], replaced={KEYS["db-host"]: public["redis"]}
        )
        play(podman, manifest, "app")
        ready(podman, "app-pod")
        until(lambda: "PONG" in podman.logs("app-pod-app"), lambda: podman.logs("app-pod-app") + podman.logs("app-pod-stcp"))
        killed(podman)
        stopped(podman, manifest)
    podman("kube", "down", "-", stdin=server.encode())


def play(podman: Podman, manifest: str, alias: str) -> None:
    """Play documents on the network of the pods, where `alias` is a name of the pod."""
    podman("kube", "play", "--network", f"pods:alias={alias}", "-", stdin=manifest.encode())


def ready(podman: Podman, pod: str) -> None:
    """Ask the probes' questions from outside the pod, as a kubelet does."""
    infra = podman("pod", "inspect", "--format", "{{.InfraContainerID}}", pod)
    address = podman("inspect", "--format", "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}", infra)
    for path in ("healthz", "readyz"):
        until(lambda path=path: answers(f"http://{address}:9901/{path}"), lambda: podman.logs(f"{pod}-stcp"))


def answers(url: str) -> bool:
    """Whether a probe by HTTP succeeds."""
    try:
        with urllib.request.urlopen(url, timeout=5) as reply:
            return 200 <= reply.status < 400
    except OSError:
        return False


def killed(podman: Podman) -> None:
    """The application's proxy is killed: the engine starts it again, and the application's traffic goes on."""
    first = podman.state("app-pod-stcp")["Pid"]
    os.kill(first, signal.SIGKILL)
    until(lambda: podman.state("app-pod-stcp")["Pid"] not in (0, first), lambda: str(podman.state("app-pod-stcp")))
    ready(podman, "app-pod")
    answered = podman.logs("app-pod-app").count("PONG")
    until(lambda: podman.logs("app-pod-app").count("PONG") > answered, lambda: podman.logs("app-pod-stcp"))


def stopped(podman: Podman, manifest: str) -> None:
    """The pod's stop lets the proxy stop in order."""
    podman("pod", "stop", "--time", "60", "app-pod")
    log = podman.logs("app-pod-stcp")
    assert '"event": "stopped"' in log, log
    assert podman.state("app-pod-stcp")["ExitCode"] == 0, podman.state("app-pod-stcp")
    podman("kube", "down", "-", stdin=manifest.encode())


def step(words: str) -> None:
    """One line about what happens."""
    print(f"-- {words} ({time.monotonic() - START:.0f} s)", flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
