"""configs/compose: the two hosts, then the application's host with interception."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from engine import (
    HOST,
    SECRET,
    bait,
    check_drain,
    fails,
    fresh,
    inspect,
    kill_and_wait,
    logs,
    public_key,
    redis,
    replace,
    said,
    until,
    uses_redis,
    watched,
    writing,
)


def check() -> None:
    """The walk of docs/SIDECAR.md, and what happens when a container ends."""
    db, app = fresh("compose/db-host"), fresh("compose/app-host")
    db_key, app_key = keygen(db), keygen(app)
    replace(db / "stcp.yaml", **{example_key(db): app_key})
    replace(app / "stcp.yaml", **{example_key(app): db_key, "db.example": HOST})
    with watched():
        up(db)
        starts_in_order("stcp-db_stcp_1", "stcp-db_redis_1")
        up(app)
        starts_in_order("stcp-app_stcp_1", "stcp-app_app_1")
        until(lambda: "PONG" in logs("stcp-app_app_1"), "the application had no answer")
        uses_redis("stcp-app_stcp_1", "127.0.0.1")
        check_killed(app)
        check_drain("stcp-app_stcp_1", "stcp-db_redis_1")
    compose(app, "down", "--volumes")
    check_interception(db_key, db)
    compose(db, "down", "--volumes")


def check_killed(app: Path) -> None:
    """A client gets nothing past a proxy that was killed; the engine starts the proxy again, and 'up' its neighbours."""
    with writing("stcp-app_stcp_1", "127.0.0.1") as answers:
        kill_and_wait("stcp-app_stcp_1")
        check_no_answer(answers)
    up(app, "--force-recreate")
    uses_redis("stcp-app_stcp_1", "127.0.0.1")


def check_interception(db_key: str, db: Path) -> None:
    """A client that dials the database's own address: through the proxy, and never past it."""
    folder = fresh("compose/intercept")
    key = keygen(folder)
    replace(db / "stcp.yaml", **{example_key(db): key})
    compose(db, "exec", "stcp", "stcp-proxy", "reload", "/etc/stcp/config.yaml")
    replace(folder / "stcp.yaml", **{example_key(folder): db_key, "db.example:": f"{HOST}:"})
    replace(folder / "compose.yaml", **{"db.example": HOST})
    with watched(), bait(HOST, "--network", "host"):
        # Podman 5.4 starts nothing that depends on a container that has ended and depends on one that runs.
        compose(folder, "up", "--detach", "--no-build", "stcp", "rules")
        said("podman", "wait", "stcp-intercept_rules_1")
        replace(folder / "compose.yaml", **{"      rules: {condition: service_completed_successfully}\n": ""})
        compose(folder, "up", "--detach", "--no-build", "app")
        until(lambda: "PONG" in logs("stcp-intercept_app_1"), "the application had no answer")
        assert inspect("stcp-intercept_rules_1")["State"]["ExitCode"] == 0
        uses_redis("stcp-intercept_stcp_1", HOST, user="1000:1000")
        said("podman", "pause", "stcp-intercept_stcp_1")
        assert fails(*redis("stcp-intercept_stcp_1", "-h", HOST, "set", "word", SECRET)), "an answer without a proxy"
        said("podman", "unpause", "stcp-intercept_stcp_1")
        assert fails(*redis("stcp-intercept_stcp_1", "-h", HOST, "-p", "6380", "set", "word", SECRET)), (
            "a destination without a route"
        )
        check_killed_intercepted(folder)
    compose(folder, "down", "--volumes")


def check_killed_intercepted(folder: Path) -> None:
    """The network goes with the proxy's container: a client in it gets no answer at all, until 'up' makes all of it again."""
    with writing("stcp-intercept_stcp_1", HOST, "1000:1000") as answers:
        kill_and_wait("stcp-intercept_stcp_1")
        check_no_answer(answers)
    assert inspect("stcp-intercept_stcp_1")["State"]["Health"]["Status"] != "healthy", "healthy without its rules"
    compose(folder, "down")
    up(folder, "stcp", "rules")
    until(lambda: inspect("stcp-intercept_stcp_1")["State"]["Health"]["Status"] == "healthy", "its rules did not come back")
    uses_redis("stcp-intercept_stcp_1", HOST, user="1000:1000")


def check_no_answer(answers: Callable[[], list[str]]) -> None:
    """A client in the network of a proxy that was replaced has no answer, for the network went with the proxy."""
    before = len(answers())
    until(lambda: len(answers()) > before + 3, "the client does not go on")
    assert "OK" not in answers()[before:], "an answer without a proxy"


# -- what the steps share ------------------------------------------------------------------------------------------------------


def compose(folder: Path, *arguments: str) -> str:
    return said("python3", "/work/tools/podman_compose.py", *arguments, cwd=folder)


def up(folder: Path, *options: str) -> None:
    compose(folder, "up", "--detach", "--no-build", *options)


def keygen(folder: Path) -> str:
    """Make the key in its volume, as docs/SIDECAR.md tells. Returns the public key."""
    return public_key(compose(folder, "run", "--rm", "--no-deps", "stcp", "keygen", "--out", "/var/lib/stcp/host.key"))


def example_key(folder: Path) -> str:
    """The key of the example that has to be replaced."""
    return public_key((folder / "stcp.yaml").read_text(encoding="utf-8"))


def starts_in_order(proxy: str, neighbour: str) -> None:
    """The neighbour was started when the proxy was healthy."""
    first, second = inspect(proxy), inspect(neighbour)
    healthy = [each["End"] for each in first["State"]["Health"]["Log"] if each["ExitCode"] == 0]
    assert healthy, f"{proxy} was never healthy"
    assert first["State"]["StartedAt"] < second["State"]["StartedAt"], f"{neighbour} was started before {proxy}"
    assert first["State"]["Health"]["Status"] == "healthy"
