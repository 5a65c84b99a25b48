"""Podman, as the tests of the manifests use it: its settings, commands, health checks, and what passes on the wire."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

DEADLINE = 300.0
"""Seconds for anything to happen, on a busy machine too."""
ARCHITECTURE = {"x86_64": "amd64", "aarch64": "arm64"}[os.uname().machine]
HOST = "192.0.2.1"
"""The address of this machine that published ports are reached at."""
SECRET = "only-the-two-ends-may-read-this"
STORAGE = """\
[storage]
driver = "overlay"
graphroot = "/work/store"
runroot = "/work/runroot"
"""
CONTAINERS = """\
[containers]
log_driver = "k8s-file"
[engine]
cgroup_manager = "cgroupfs"
events_logger = "file"
runtime = "crun"
[engine.runtimes]
crun = ["/engine/crun"]
"""


def prepare() -> None:
    """Make this root, which has a network of its own, one that Podman can work in."""
    # No systemd is here, which starts Podman's health checks elsewhere: see `HealthChecks`.
    os.environ |= {"DISABLE_HC_SYSTEMD": "true", "PODMAN_IGNORE_CGROUPSV1_WARNING": "1"}
    if Path("/sys/fs/cgroup/unified").is_mount():
        said("umount", "/sys/fs/cgroup/unified")  # crun refuses a hybrid hierarchy
    Path("/etc/containers/storage.conf").write_text(STORAGE, encoding="utf-8")
    Path("/etc/containers/containers.conf").write_text(CONTAINERS, encoding="utf-8")
    said("ip", "link", "add", "host", "type", "bridge")
    said("ip", "address", "add", f"{HOST}/24", "dev", "host")
    said("ip", "link", "set", "host", "up")
    image = {
        "ENV": "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        # As the entry point of the published image: options alone are those of the server.
        "ENTRYPOINT": json.dumps(["sh", "-c", 'case $1 in -*) set -- redis-server "$@" ;; esac; exec "$@"', "redis"]),
        "CMD": json.dumps(["redis-server"]),
    }
    changes = [word for name, value in image.items() for word in ("--change", f"{name} {value}")]
    for archive in sorted(Path("/dist").glob(f"stcp-proxy*-{ARCHITECTURE}.oci.tar")):
        name, version = re.fullmatch(r"(.+?)-(\d+\.\d+\.\d+)-.+", archive.name).groups()  # type: ignore[union-attr]
        said("podman", "load", "--quiet", "--input", str(archive))
        said("podman", "tag", f"localhost/{name}:{version}", f"localhost/{name}:latest")
    said("podman", "import", "--quiet", *changes, "/roots/bookworm-redis.tar", "docker.io/library/redis:7")


def said(*command: str, cwd: Path | None = None) -> str:
    """What a program printed. Raises AssertionError with it where the program fails."""
    done = subprocess.run(command, capture_output=True, text=True, cwd=cwd, timeout=4 * DEADLINE)
    assert done.returncode == 0, f"{' '.join(command)}: {done.returncode}\n{done.stdout}{done.stderr}"
    return done.stdout.strip()


def fails(*command: str) -> bool:
    """Whether a program fails."""
    return subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, timeout=DEADLINE).returncode != 0


def until(condition: Callable[[], bool], otherwise: str) -> None:
    """Wait for a condition."""
    end = time.monotonic() + DEADLINE
    while not condition():
        if time.monotonic() > end:
            raise AssertionError(otherwise)
        time.sleep(0.2)


def inspect(container: str) -> dict[str, Any]:
    found: list[dict[str, Any]] = json.loads(said("podman", "inspect", container))
    return found[0]


def is_running(container: str) -> bool:
    return bool(inspect(container)["State"]["Running"])


def logs(container: str) -> str:
    done = subprocess.run(["podman", "logs", container], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    return done.stdout


def kill_process(container: str) -> None:
    """Kill the container's first process, as the kernel does when memory runs out."""
    os.kill(int(inspect(container)["State"]["Pid"]), 9)


def beside(container: str, *command: str, user: str = "0:0") -> list[str]:
    """A command in a container of its own, in the network of another one."""
    pod = inspect(container)["Pod"]
    where = ["--pod", pod] if pod else []
    return [
        *("podman", "run", "--rm", "--restart", "no", *where, "--network", f"container:{container}", "--user", user),
        *("docker.io/library/redis:7", *command),
    ]


def redis(network_of: str, *words: str, user: str = "0:0") -> list[str]:
    """The command of an unmodified redis-cli in the network of a container."""
    return beside(network_of, "timeout", "20", "redis-cli", *words, user=user)


def uses_redis(network_of: str, host: str, user: str = "0:0") -> None:
    """An unmodified client writes and reads."""
    command = redis(network_of, "-h", host, user=user)
    assert said(*command, "set", "word", SECRET) == "OK"
    assert said(*command, "get", "word") == SECRET


def check_drain(proxy: str, server: str, host: str = "127.0.0.1") -> None:
    """A stop lets an open connection finish: its answer comes after the stop has begun.

    Args:
        proxy: the container of the client's proxy.
        server: the container of Redis.
        host: where the client finds Redis.
    """
    command = redis(proxy, "-h", host, "blpop", "list", "15")
    client = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    until(lambda: "blpop" in said("podman", "exec", server, "redis-cli", "client", "list"), "the client does not wait")
    stop = subprocess.Popen(["podman", "stop", "--time", "40", proxy], stdout=subprocess.DEVNULL)
    until(lambda: '"stopping"' in logs(proxy), "the proxy does not drain")
    said("podman", "exec", server, "redis-cli", "rpush", "list", SECRET)
    answer = client.communicate(timeout=DEADLINE)[0]
    assert answer.split() == ["list", SECRET], f"the stop cut the connection: {answer!r}\n{logs(proxy)}"
    assert stop.wait(DEADLINE) == 0
    assert inspect(proxy)["State"]["ExitCode"] == 0, logs(proxy)


@contextlib.contextmanager
def writing(container: str, host: str, user: str = "0:0") -> Iterator[Callable[[], list[str]]]:
    """A client beside a container that writes all the time. Gives its answers so far, once it has had one."""
    loop = f"while true; do timeout 5 redis-cli -h {host} set word {SECRET} 2>&1; sleep 0.05; done"
    file = Path("/work/writes")

    def answers() -> list[str]:
        return file.read_text(encoding="utf-8").split("\n")[:-1]

    with file.open("w") as output:
        command = beside(container, "timeout", str(DEADLINE), "sh", "-c", loop, user=user)
        client = subprocess.Popen(command, stdout=output, stderr=subprocess.DEVNULL)
        until(lambda: "OK" in answers(), "the client does not write")
        try:
            yield answers
        finally:
            client.terminate()
            client.wait(DEADLINE)


def kill_and_wait(container: str) -> None:
    """Kill a container's first process; the engine starts it again."""
    before = inspect(container)["State"]["Pid"]
    kill_process(container)
    until(lambda: inspect(container)["State"]["Pid"] not in (0, before), f"{container} does not come back")


def check_killed_while_writing(proxy: str, host: str, user: str = "0:0") -> None:
    """A client writes on while its proxy is killed: it is refused meanwhile, and served again."""
    with writing(proxy, host, user) as answers:
        kill_and_wait(proxy)
        until(lambda: any("refused" in each for each in answers()), "an answer without a proxy")
        until(lambda: answers()[-1] == "OK", "the proxy that came back does not serve")


def check_hung_while_writing(proxy: str, host: str, user: str = "0:0") -> None:
    """A proxy that no longer runs is started again by its liveness probe, under a client that writes."""
    with writing(proxy, host, user) as answers:
        before = int(inspect(proxy)["State"]["Pid"])
        os.kill(before, signal.SIGSTOP)
        until(lambda: inspect(proxy)["State"]["Pid"] not in (0, before), f"the liveness probe of {proxy} does not restart it")
        until(lambda: answers()[-1] == "OK", "the proxy that came back does not serve")


def folder_of_keys(name: str) -> tuple[Path, str]:
    """A folder with a key and a token of the image's user, and the public key."""
    folder = Path("/work/keys") / name
    folder.mkdir(parents=True)
    os.chown(folder, 47443, 47443)
    public = said(
        "podman",
        "run",
        "--rm",
        "--volume",
        f"{folder}:/var/lib/stcp",
        "localhost/stcp-proxy",
        "keygen",
        "--out",
        "/var/lib/stcp/host.key",
    )
    token = folder / "admin.token"
    token.write_text(os.urandom(32).hex(), encoding="ascii")
    token.chmod(0o600)
    os.chown(token, 47443, 47443)
    return folder, public_key(public)


def public_key(text: str) -> str:
    return next(word for word in text.replace('"', " ").split() if word.startswith("stcp-pub:"))


class HealthChecks(contextlib.AbstractContextManager["HealthChecks"]):
    """Runs the health check of every container now and then, as systemd's timers do for Podman."""

    def __init__(self) -> None:
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._over.wait(1):
            for name in subprocess.run(["podman", "ps", "--format", "{{.Names}}"], capture_output=True, text=True).stdout.split():
                subprocess.run(["podman", "healthcheck", "run", name], capture_output=True)

    def __exit__(self, *exc: object) -> None:
        self._over.set()
        self._thread.join()


@contextlib.contextmanager
def bait(address: str, *network: str) -> Iterator[None]:
    """A Redis without a proxy, at the address that an intercepted client dials. Whoever gets past the rules gets its answer.

    Args:
        address: where it listens, on port 6379.
        network: options of `podman run` for its network.
    """
    server = ("podman", "run", "--detach", "--name", "bait", *network, "docker.io/library/redis:7")
    said(*server, "--bind", address, "--protected-mode", "no")
    until(lambda: "Ready to accept" in logs("bait"), "the bait does not listen")
    try:
        yield
        assert said("podman", "exec", "bait", "redis-cli", "-h", address, "dbsize") == "0", "a client got past its proxy"
    finally:
        said("podman", "rm", "--force", "--time", "1", "bait")


@contextlib.contextmanager
def watched() -> Iterator[None]:
    """Record what passes between containers; at the end it must be STCP, and nothing of the application unencrypted."""
    file = Path("/work/wire.pcap")
    tcpdump = subprocess.Popen(
        ["tcpdump", "-Z", "root", "-i", "any", "-U", "-w", str(file), "not", "host", "127.0.0.1"], stderr=subprocess.DEVNULL
    )
    until(file.exists, "tcpdump does not start")
    try:
        yield
    finally:
        time.sleep(1)  # for what is under way to the file
        tcpdump.terminate()
        tcpdump.wait()
    found = file.read_bytes()
    file.unlink()
    assert b"STCP" in found, "no STCP was seen on the wire"
    # Seven bytes at least: a hundred megabytes of ciphertext contain given four bytes by chance in one run of some forty.
    for word in (SECRET.encode(), b"GET word", b"*3\r\n$3\r\n", b"+PONG\r\n"):
        at = found.find(word)
        assert at < 0, f"{word!r} was seen on the wire: {found[max(at - 100, 0) : at + 100]!r}"


def fresh(folder: str) -> Path:
    """A copy of a folder of configs/ that the test changes."""
    return Path(shutil.copytree(f"/configs/{folder}", f"/work/files/{folder}"))


def replace(file: Path, **changes: str) -> None:
    """Replace text of a file, each of which it has."""
    text = file.read_text(encoding="utf-8")
    for old, new in changes.items():
        assert old in text, f"{file} has no {old}"
        text = text.replace(old, new)
    file.write_text(text, encoding="utf-8")
