"""The Debian package under a real systemd: socket activation, credentials, hardening, reload, replacement, watchdog, upgrade.

    python3 under_systemd.py PACKAGE LATER_PACKAGE

Runs as a service of the systemd that it asks, with Debian's Python alone. Fails with the first thing that is wrong.
"""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

from upgrade import DEADLINE, PROGRAM, connected, dpkg, exchange, said, serve_echo, until

FOLDER = Path("/etc/stcp-proxy")
SERVER, CLIENT = "stcp-proxy.service", "stcp-proxy@client.service"
DOCUMENTED = Path("/work/systemd-run")
"""The lines of docs/SYSTEMD.md that begin with systemd-run."""
LOAD = "-p LoadCredential=host.key:/etc/stcp-proxy/host.key"
WATCHDOG = 3
"""Seconds, in place of the unit's 30: the test waits for it."""


def main(package: str, later: str) -> None:
    """All of it, in order. The server's proxy is stcp-proxy.service with its socket unit, the client's an instance."""
    dpkg("--install", package)
    echo = socket.create_server(("127.0.0.1", 6379))
    threading.Thread(target=serve_echo, args=(echo,), daemon=True).start()
    configure()
    check_credentials_outside_the_unit()
    check_socket_activation()
    check_credentials_outside_the_unit()
    check_hardening()
    check_reload()
    check_replacement()
    check_watchdog()
    check_upgrade(later)
    check_stop()
    dpkg("--remove", "stcp-proxy")
    dpkg("--purge", "stcp-proxy")
    print("passed")


def configure() -> None:
    """Write keys, files and what differs from the units."""
    public = {}
    for name in ("host", "client"):
        public[name] = re.findall(r"stcp-pub:\S+", said(PROGRAM, "keygen", "--out", str(FOLDER / f"{name}.key")))[0]
        owner = (FOLDER / f"{name}.key").stat()
        assert (owner.st_uid, owner.st_mode & 0o777) == (0, 0o600), "the key is not root's alone"
    write_server(public["client"])
    (FOLDER / "client.yaml").write_text(
        f"""identity: /run/credentials/{CLIENT}/host.key
takeover: unix:/run/stcp-proxy-client/takeover.sock
peers: {{server: "{public["host"]}"}}
tunnels:
  redis: {{mode: connect, bind: "127.0.0.1:6380", to: "127.0.0.1:7444", peer: server}}
""",
        encoding="utf-8",
    )
    drop_in = Path(f"/etc/systemd/system/{SERVER}.d/watchdog.conf")
    drop_in.parent.mkdir(parents=True)
    drop_in.write_text(f"[Service]\nWatchdogSec={WATCHDOG}s\n", encoding="utf-8")
    systemctl("daemon-reload")


def write_server(client: str, more: str = "") -> None:
    """Write the server's file."""
    (FOLDER / "config.yaml").write_text(
        f"""identity: /run/credentials/{SERVER}/host.key
takeover: unix:/run/stcp-proxy/takeover.sock
takeover_drain: 2m
sandbox: required
peers: {{client: "{client}"}}
tunnels:
  redis-in: {{mode: listen, bind: "0.0.0.0:7444", to: "127.0.0.1:6379", allow: client}}
{more}""",
        encoding="utf-8",
    )


# -- what is checked -----------------------------------------------------------------------------------------------------------


def check_credentials_outside_the_unit() -> None:
    """The lines of docs/SYSTEMD.md that give a shell's command a copy of the key, whether the service runs or not."""
    for line in DOCUMENTED.read_text(encoding="utf-8").splitlines():
        done = subprocess.run(["sh", "-c", line], capture_output=True, text=True)
        assert done.returncode == 0, f"{line}: {done.returncode}\n{done.stdout}{done.stderr}"
        without = line[line.index(f"{LOAD} ") + len(LOAD) :]
        if state(SERVER) == "inactive":
            assert subprocess.run(["sh", "-c", without], capture_output=True).returncode != 0, f"{without} needs no credential"
    left = list(Path("/run/credentials").glob("run-*"))
    assert not left, f"copies of the key are left: {left}"


def check_socket_activation() -> None:
    """The first connection starts the service."""
    systemctl("start", "stcp-proxy.socket")
    systemctl("start", CLIENT)
    assert state(SERVER) == "inactive", "the service runs without a connection"
    with connected() as connection:
        exchange(connection, b"starts the service")
    assert state(SERVER) == "active"
    said_in_log(SERVER, '"event": "ready"')


def check_hardening() -> None:
    """What the unit takes away from the process, as the kernel shows it."""
    status = Path(f"/proc/{main_pid(SERVER)}/status").read_text(encoding="utf-8")
    for name, value in (("CapEff", "0000000000000000"), ("CapBnd", "0000000000000000"), ("NoNewPrivs", "1"), ("Seccomp", "2")):
        assert re.search(rf"^{name}:\s+{value}$", status, re.MULTILINE), f"{name} is not {value}:\n{status}"
    assert not re.search(r"^Uid:\s+0\s", status, re.MULTILINE), "it runs as root"
    said_in_log(SERVER, '"event": "files restricted"')  # Landlock passes the filter of system calls
    key = Path(f"/run/credentials/{SERVER}/host.key")
    assert key.stat().st_mode & 0o007 == 0, "others can read the service's copy of the key"
    inside = ("nsenter", "--target", str(main_pid(SERVER)), "--mount", "--", "touch", "/etc/x", "/usr/x")
    assert subprocess.run(inside, capture_output=True).returncode != 0, "its file system is not read-only"


def check_reload() -> None:
    """`systemctl reload` returns when the file is in force; a wrong file changes nothing, and the service stays."""
    pid = main_pid(SERVER)
    text = (FOLDER / "config.yaml").read_text(encoding="utf-8")
    (FOLDER / "config.yaml").write_text(
        text + '  more: {mode: listen, bind: "127.0.0.1:7445", to: "127.0.0.1:6379", allow: client}\n'
    )
    with connected() as connection:
        exchange(connection, b"before the reload")
        systemctl("reload", SERVER)
        said_in_log(SERVER, '"event": "reloaded"')
        exchange(connection, b"after the reload")
    socket.create_connection(("127.0.0.1", 7445), timeout=DEADLINE).close()
    (FOLDER / "config.yaml").write_text("tunnels: wrong\n")
    systemctl("reload", SERVER)
    said_in_log(SERVER, "reload refused: everything goes on as before")
    (FOLDER / "config.yaml").write_text(text)
    systemctl("reload", SERVER)
    until(lambda: state(SERVER) == "active", "not active after a reload")
    assert main_pid(SERVER) == pid, "the reload started another process"


def check_replacement() -> None:
    """SIGUSR2 puts a new process in the place of the old one, which drains; systemd follows."""
    with connected() as connection:
        exchange(connection, b"through the old process")
        for unit in (SERVER, CLIENT):
            replaced(unit, lambda unit=unit: systemctl("kill", "--signal=SIGUSR2", "--kill-whom=main", unit))
        exchange(connection, b"still through the old process")
        with connected() as new:
            exchange(new, b"through the new process")
        time.sleep(2 * WATCHDOG)  # by then the watchdog would have struck, did the new process not speak
        assert state(SERVER) == "active"
        assert restarts(SERVER) == 0, "systemd restarted the service"
        exchange(connection, b"and still open")


def check_watchdog() -> None:
    """A process that hangs is killed and started again; who connects meanwhile waits at systemd's socket."""
    before = main_pid(SERVER)
    os.kill(before, signal.SIGSTOP)
    until(lambda: restarts(SERVER) == 1 and state(SERVER) == "active", "the watchdog did not restart the service")
    assert main_pid(SERVER) != before
    with connected() as connection:
        exchange(connection, b"after the watchdog")


def check_upgrade(later: str) -> None:
    """The package's script has each running service replace itself: nobody is cut off."""
    first = said(PROGRAM, "--version")
    with connected() as connection:
        exchange(connection, b"before the upgrade")
        replaced(SERVER, lambda: dpkg("--install", later))
        assert said(PROGRAM, "--version") != first
        exchange(connection, b"the same connection after the upgrade")
        with connected() as new:
            exchange(new, b"a new connection after the upgrade")
        with open(f"/proc/{main_pid(SERVER)}/maps", encoding="utf-8") as maps:
            assert "(deleted)" not in maps.read(), "the old version runs"


def check_stop() -> None:
    """A stop lets the open connection finish, and the socket still takes the next one."""
    connection = connected()
    exchange(connection, b"before the stop")
    stopping = subprocess.Popen(["systemctl", "stop", CLIENT])
    until(lambda: state(CLIENT) == "deactivating", "it does not stop")
    exchange(connection, b"during the drain")
    connection.close()
    assert stopping.wait(DEADLINE) == 0
    assert show(CLIENT, "Result") == "success", show(CLIENT, "Result")
    systemctl("stop", "stcp-proxy.socket", SERVER)
    assert show(SERVER, "Result") == "success", show(SERVER, "Result")


# -- systemd -------------------------------------------------------------------------------------------------------------------


def replaced(unit: str, act: object) -> None:
    """Do something that replaces the main process of a unit, and wait for systemd to know the new one."""
    before = main_pid(unit)
    assert callable(act)
    act()
    until(lambda: main_pid(unit) not in (0, before), f"{unit} has its old main process")
    assert state(unit) == "active", state(unit)


def systemctl(*arguments: str) -> None:
    done = subprocess.run(["systemctl", *arguments], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert done.returncode == 0, f"systemctl {' '.join(arguments)}: {done.stdout}"


def show(unit: str, setting: str) -> str:
    return said("systemctl", "show", "--property", setting, "--value", unit)


def state(unit: str) -> str:
    return show(unit, "ActiveState")


def main_pid(unit: str) -> int:
    return int(show(unit, "MainPID"))


def restarts(unit: str) -> int:
    return int(show(unit, "NRestarts"))


def journal(unit: str | None = None) -> str:
    return said("journalctl", "--no-pager", "--output=short-precise", *(() if unit is None else ("--unit", unit)))


def said_in_log(unit: str, words: str) -> None:
    until(lambda: words in journal(unit), f"{unit} did not log {words}")


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except BaseException:
        print(journal()[-8000:])
        raise
