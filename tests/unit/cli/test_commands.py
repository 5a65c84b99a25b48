"""The command line: what each command prints and where, its exit status, and that a mistake is a sentence."""

from __future__ import annotations

import datetime
import importlib.util
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from harness.command import Result, Run, command_line

import stcp_proxy
from stcp_proxy import keys, process
from stcp_proxy.config import KeyAuth, Mode, Plan
from stcp_proxy.errors import OverLimit
from stcp_proxy.protocol.wire import Suite


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    return command_line(monkeypatch, capsys)


@pytest.fixture
def plans(monkeypatch: pytest.MonkeyPatch) -> list[Plan]:
    """The plans that a command has handed to the tunnels, which end with status 0."""
    seen: list[Plan] = []

    def fake(plan: Plan, *_: object, **__: object) -> int:
        seen.append(plan)
        return 0

    monkeypatch.setattr(process, "run", fake)
    return seen


@pytest.fixture
def key_file(tmp_path: Path) -> Path:
    path = tmp_path / "host.key"
    keys.write_secret_file(path, keys.format_private_key(keys.PrivateKey.generate()))
    return path


PEER = str(keys.PrivateKey.generate().public)


# -- keys ------------------------------------------------------------------------------------------------------------------


def test_keygen_to_a_file(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "host.key"
    made = run("keygen", "--out", path)
    assert (made.status, made.err) == (0, "")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert made.out == f"{keys.load_private_key(path).public}\n"
    assert run("pubkey", path).out == made.out
    again = run("keygen", "--out", path)
    assert (again.status, again.out) == (2, "")
    assert again.err == f"stcp-proxy: {path} exists, and a key file is never overwritten; choose another name\n"


def test_keygen_to_standard_output(run: Run) -> None:
    made = run("keygen")
    assert made.status == 0
    assert f"{keys.PrivateKey.parse(made.out).public}\n" == made.err


def test_keygen_of_a_shared_secret(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "shared.psk"
    assert run("keygen", "--psk", "--out", path) == Result(0, "", "")
    assert keys.load_psk(path) != keys.parse_psk(run("keygen", "--psk").out)


def test_keygen_into_a_file_that_others_can_read(tmp_path: Path) -> None:
    path = tmp_path / "host.key"
    path.touch(0o644)
    with path.open("w") as file:
        made = subprocess.run(
            [sys.executable, "-m", "stcp_proxy", "keygen"], stdout=file, stderr=subprocess.PIPE, text=True, check=True
        )
    assert "is open to others; 'chmod 600' it" in made.stderr


def test_pubkey_of_what_is_no_key_file(run: Run, tmp_path: Path) -> None:
    assert run("pubkey", tmp_path / "no").err.startswith(f"stcp-proxy: the key file {tmp_path}/no does not exist")
    secret = keys.format_private_key(keys.PrivateKey.generate())
    refused = run("pubkey", secret)
    assert refused.status == 2
    assert "a secret stands where the name of its file belongs" in refused.err
    assert secret[9:20] not in refused.err


# -- tunnels ---------------------------------------------------------------------------------------------------------------


def test_listen(run: Run, plans: list[Plan], key_file: Path) -> None:
    options = "--suite hybrid --suite classic --engine python --max-connections 5 --max-handshakes 3 --handshake-timeout 5s"
    options += " --dial-timeout 4s --idle-timeout 1m --half-close-timeout 2m --drain 3 --log-level debug --log-format json"
    assert (
        run("listen", "--bind", ":7443", "--to", ":80", "--key", key_file, "--allow", f"app={PEER}", *options.split()).status == 0
    )
    (plan,) = plans
    (made,) = plan.tunnels
    assert isinstance(made.auth, KeyAuth)
    assert {str(key): name for key, name in made.auth.peers.items()} == {PEER: "app"}
    assert (made.mode, made.suites, made.engine) == (Mode.LISTEN, (Suite.HYBRID_KEYS, Suite.CLASSIC_KEYS), "python")
    assert (made.max_connections, made.max_handshakes, made.handshake_timeout, made.dial_timeout) == (5, 3, 5, 4)
    assert (made.idle_timeout, made.half_close_timeout) == (60, 120)
    assert (plan.drain, plan.log.level, plan.log.format) == (3, "debug", "json")


def test_connect(run: Run, plans: list[Plan], key_file: Path) -> None:
    command = ["connect", "--bind", ":5432", "--to", "db1:7443", "--to", "db2:7443", "--key", key_file, "--peer", PEER]
    assert run(*command, "--suite", "classic").status == 0
    (made,) = plans[0].tunnels
    assert (made.mode, made.suites, [str(target) for target in made.to]) == (
        Mode.CONNECT,
        (Suite.CLASSIC_KEYS,),
        ["db1:7443", "db2:7443"],
    )


def test_run_and_check(run: Run, plans: list[Plan], key_file: Path) -> None:
    config = key_file.with_name("c.yaml")
    config.write_text(
        f"identity: host.key\ntunnels:\n  db:\n    mode: connect\n    bind: :5432\n    to: db:7443\n    peer: {PEER}\n"
    )
    checked = run("check", config)
    assert (checked.status, checked.err, plans) == (0, "", [])
    assert PEER in checked.out
    assert run("run", config).status == 0
    assert plans[0].tunnels[0].name == "db"


def test_status_is_the_tunnels_own(run: Run, monkeypatch: pytest.MonkeyPatch, key_file: Path) -> None:
    command = ("connect", "--bind", ":5432", "--to", "db:7443", "--key", key_file, "--peer", PEER)
    monkeypatch.setattr(process, "run", lambda plan, read, **_: 1)
    assert run(*command).status == 1

    def fail(plan: Plan, read: object, **_: object) -> int:
        raise OverLimit("no descriptor left", remedy="raise the limit")

    monkeypatch.setattr(process, "run", fail)
    assert run(*command) == Result(1, "", "stcp-proxy: no descriptor left; raise the limit\n")


# -- mistakes --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["connect", "--bind", ":1"], "Missing option '--to'"),
        (["listen", "--bind", ":1"], "--to: 'to' is missing; name the target of the connections"),
        (["turbo"], "No such command 'turbo'"),
        (["listen", "--turbo"], "No such option"),
        (["listen", "--bind", ":1", "--to", ":2", "--psk", "no.psk"], "stcp-proxy: --psk: the key file no.psk does not exist"),
        (["connect", "--bind", ":1", "--to", ":2", "--suite", "x", "--engine", "y"], "stcp-proxy: 2 mistakes in the flags\n  --"),
        (["run", "no.yaml"], "stcp-proxy: no.yaml does not exist"),
        (["check", "no.yaml"], "stcp-proxy: no.yaml does not exist"),
        (["listen", "--bind", ":1", "--to", ":2", "--allow", "stcp-key:AAAA"], "consider it exposed"),
    ],
)
def test_wrong_usage_is_status_2(run: Run, plans: list[Plan], args: list[str], says: str) -> None:
    refused = run(*args)
    assert (refused.status, refused.out, plans) == (2, "", [])
    assert says in refused.err
    assert "Traceback" not in refused.err


def test_no_command_is_help(run: Run) -> None:
    assert "Usage: stcp-proxy" in run().out


def test_help_keeps_its_brackets(run: Run) -> None:
    text = run("listen", "--help").out
    assert "[v6]:port" in text
    assert "[NAME=]PUBKEY" in text


def test_version(run: Run) -> None:
    assert run("--version") == Result(0, f"stcp-proxy {stcp_proxy.__version__}\n", "")


def test_help_loads_nothing_heavy() -> None:
    """What makes `--help` and completion quick: the rest is imported by the command that needs it."""
    heavy = {"trio", "pydantic", "yaml", "cryptography", "structlog", "prometheus_client"}
    code = "import sys, stcp_proxy.cli.commands; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert heavy.isdisjoint(loaded)
    assert not [name for name in loaded if name.startswith("stcp_proxy.lab")]


@pytest.mark.parametrize("command", ["echo", "stress", "bench"])
@pytest.mark.parametrize("absent", ["hdrh", "stcp_proxy.lab"])
def test_without_the_lab(run: Run, monkeypatch: pytest.MonkeyPatch, command: str, absent: str) -> None:
    """One sentence says what to install; the commands of the product go without."""
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == absent else real(name))
    refused = run(command)
    assert (refused.status, refused.out) == (2, "")
    assert refused.err == (
        "stcp-proxy: the lab is not installed here; pip install 'stcp-proxy[lab]', or '.[lab]' in a checkout\n"
    )


def test_the_image_is_built_without_the_lab() -> None:
    root = Path(__file__).parents[3]
    rules = (root / ".dockerignore").read_text().split()
    assert rules.index("stcp_proxy/lab") > rules.index("!stcp_proxy")


def test_help_and_version(run: Run) -> None:
    assert run("-V") == run("--version")
    assert run("help").out == run("--help").out
    assert run("help", "pubkey").out == run("pubkey", "--help").out
    assert "--max-connections" in run("help", "listen").out
    assert run("help", "turbo").status == 2


def test_help_names_defaults(run: Run) -> None:
    text = " ".join(run("listen", "--help").out.replace("│", " ").split())
    assert "Time for the handshake, from accepting or dialling. [default: 10s]" in text
    assert "unless said" not in text


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([], "nothing says which proxy is meant; give its CONFIG, or --admin ADDR"),
        (["c.yaml", "--admin", ":1"], "both a file and --admin say where the proxy is"),
        (["c.yaml", "--admin-token", "t"], "--admin-token goes with --admin"),
        (["/no/c.yaml"], "c.yaml does not exist"),
        (["--admin", "nonsense"], "'nonsense' has no port"),
    ],
)
def test_which_proxy_is_asked(run: Run, arguments: list[str], says: str) -> None:
    for command in ("wait", "quit"):
        result = run(command, *arguments)
        assert result.status == 2
        assert says in result.err


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["c.yaml", "app", "--admin", ":1"], "an option behind the application's name could be meant for either program"),
        (["c.yaml", "app", "-x"], "No such option"),
        (["c.yaml", "--"], "nothing is behind --; name the application there, or leave -- out"),
        (["c.yaml", "--admin", ":1", "--"], "nothing is behind --"),
    ],
)
def test_run_asks_what_is_meant(run: Run, arguments: list[str], says: str) -> None:
    refused = run("run", *arguments)
    assert (refused.status, refused.out) == (2, "")
    assert says in refused.err


@pytest.mark.parametrize("arguments", [["no.yaml", "app", "x"], ["no.yaml", "--", "app", "-x"], ["no.yaml", "--admin", ":1"]])
def test_run_that_is_clear(run: Run, monkeypatch: pytest.MonkeyPatch, arguments: list[str]) -> None:
    monkeypatch.setattr("stcp_proxy.process.application.run", lambda command, proxy: proxy())
    assert "no.yaml does not exist" in run("run", *arguments).err


def test_check_refuses_example_keys(run: Run, key_file: Path) -> None:
    from stcp_proxy.config.example_keys import EXAMPLES

    config = key_file.with_name("c.yaml")
    config.write_text(
        f"identity: host.key\ntunnels:\n  db: {{mode: connect, bind: '127.0.0.1:1', to: 'db:2', peer: '{min(EXAMPLES)}'}}\n"
    )
    checked = run("check", config)
    assert checked.status == 2
    assert "db (connect)" in checked.out
    assert f"keys of the documentation's examples: {min(EXAMPLES)}; write what" in checked.err


@pytest.mark.parametrize(("days", "status", "says"), [(30, 0, "rule only audits"), (-1, 2, "rule is over")])
def test_check_tells_of_an_audit(run: Run, key_file: Path, days: int, status: int, says: str) -> None:
    date = (datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=days)).date().isoformat()
    rule = f"allow: '{PEER}', allow_mode: {{audit: {date}}}"
    config = key_file.with_name("c.yaml")
    config.write_text(f"identity: host.key\ntunnels: {{db: {{mode: listen, bind: '127.0.0.1:1', to: '127.0.0.1:2', {rule}}}}}\n")
    checked = run("check", config)
    assert checked.status == status
    assert "WARNING" in checked.out
    assert says in checked.err


def test_tunnel_that_a_proxy_has_not() -> None:
    from stcp_proxy.cli.running_proxy import check_tunnel
    from stcp_proxy.errors import ConfigError

    check_tunnel("", [])
    check_tunnel("db", ["db", "web"])
    for name, says in (("dbs", "did you mean 'db'"), ("postgres", "it has db, web")):
        with pytest.raises(ConfigError, match=says):
            check_tunnel(name, ["db", "web"])
