"""`--replace`: a new process takes over the listening sockets of a running one. No client is refused, no connection is cut."""

from __future__ import annotations

import contextlib
import copy
import json
import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from harness.process import wait_for
from harness.proxies import Keys, Proxy
from harness.sockets import Target, connect, free_port, read_exactly
from harness.takeover import LONG, Load, Rig

from stcp_proxy.keys import PrivateKey
from stcp_proxy.process import takeover_messages


@pytest.fixture
def rig(tmp_path: Path, echo: Target, request: pytest.FixtureRequest) -> Iterator[Rig]:
    found = Rig(tmp_path, echo.to, **getattr(request, "param", {}))
    yield found
    found.stop()


def check_replacements(rig: Rig, count: int, *, workers: int = 1) -> None:
    with Load(rig) as load:
        load.served(5)
        for _ in range(count):
            before = rig.answers()
            rig.replace(workers=workers)
            assert rig.answers() != before  # the new one, at once
            load.served(5)
    assert load.failures == []
    for each in rig.generations[:-1]:
        assert each.wait() == 0
        assert all(line["cut_off"] == 0 for line in each.log("stopped"))
    assert rig.connect.log("connection refused") == []
    assert all(line["event"] != "connection refused" for each in rig.generations for line in each.log())


def test_nobody_is_refused_and_nothing_is_cut(rig: Rig) -> None:
    check_replacements(rig, 5)


@pytest.mark.slow
def test_twenty_replacements(rig: Rig) -> None:
    check_replacements(rig, 20)


@pytest.mark.parametrize("rig", [{"workers": 2}], indirect=True)
def test_with_workers(rig: Rig) -> None:
    check_replacements(rig, 3, workers=2)


def test_another_number_of_workers(rig: Rig) -> None:
    """From one process to three, to two, and back to one: every socket of an old process has somebody who accepts."""
    for workers in (3, 2, 1):
        rig.write(workers=workers)
        rig.replace(workers=workers)
        assert rig.generations[-2].wait() == 0
        for _ in range(12):
            rig.exchange()


# -- what fails changes nothing ------------------------------------------------------------------------------------------------


def goes_on(rig: Rig, why: str) -> None:
    """The old process has said why, and serves."""
    (line,) = rig.old.wait_log("takeover refused: everything goes on as before")
    assert why in line["why"]
    rig.exchange()
    assert rig.answers()
    rig.replace()


def ask(rig: Rig) -> socket.socket:
    """A process of the same user that has got the sockets, and does not serve yet."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    sock.settimeout(20)
    sock.connect(f"{rig.folder}/takeover.sock")
    takeover_messages.send(sock, "take", version=1, program="0", managed=True)
    message = takeover_messages.receive(sock)
    assert message is not None
    assert message.verb == "sockets"
    assert [each.owner for each in message.handed] == ["tunnel", "admin", "takeover"]
    for each in message.sockets:
        each.close()
    return sock


def test_the_newcomer_dies_halfway(rig: Rig) -> None:
    ask(rig).close()
    goes_on(rig, "the new process ended before it served")


def test_two_newcomers(rig: Rig) -> None:
    """The second is refused while the first is under way; once that has given up, another one takes over."""
    with ask(rig):
        second = rig.newcomer("second")
        assert second.wait() == 2
        assert "another process is taking over already" in second.text()
        rig.exchange()
    goes_on(rig, "ended before it served")


def test_a_later_version(rig: Rig) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as sock:
        sock.settimeout(20)
        sock.connect(f"{rig.folder}/takeover.sock")
        takeover_messages.send(sock, "take", version=2, program="9.9", managed=False)
        answer = takeover_messages.receive(sock)
        assert answer is not None
        assert (answer.verb, answer.remedy) == ("no", "restart the proxy instead")
    goes_on(rig, "it speaks version 2")


def test_a_file_with_a_mistake(rig: Rig) -> None:
    rig.file.write_text("tunnels: {}\n")
    assert rig.newcomer("wrong").wait() == 2
    rig.exchange()
    assert rig.old.log("takeover refused: everything goes on as before") == []  # it was never asked


def test_an_address_that_is_taken(rig: Rig) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        more = {"mode": "listen", "bind": f"127.0.0.1:{taken.getsockname()[1]}", "to": "127.0.0.1:1", "allow": "app"}
        before = copy.deepcopy(rig.config["tunnels"])
        rig.write(tunnels={**before, "more": more})
        assert rig.newcomer("wrong").wait() == 2
    rig.write(tunnels=before)
    goes_on(rig, "the new process ended before it served")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_another_user(rig: Rig) -> None:
    """The file's mode keeps other users out; with that gone, the kernel's word about the peer does."""
    path = f"{rig.folder}/takeover.sock"
    os.chmod(path, 0o666)
    for folder in (rig.folder, *rig.folder.parents):
        if folder != Path("/"):
            os.chmod(folder, folder.stat().st_mode | 0o111)
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        with contextlib.suppress(BaseException):
            os.setresgid(65534, 65534, 65534)
            os.setresuid(65534, 65534, 65534)
            sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            sock.settimeout(20)
            sock.connect(path)
            answer = takeover_messages.receive(sock)
            os.write(writer, b"nothing" if answer is None else f"{answer.verb} {len(answer.sockets)} {answer.why}".encode())
        os._exit(0)
    os.waitpid(pid, 0)
    os.close(writer)
    with open(reader, "rb") as pipe:
        told = pipe.read().decode()
    assert told.startswith("no 0 process ")
    assert "of user 65534 asks for this proxy's sockets, and only this user and root may" in told
    goes_on(rig, "of user 65534")


def test_the_old_one_stops_meanwhile(rig: Rig) -> None:
    with ask(rig) as sock:
        rig.old.signal(signal.SIGTERM)
        answer = takeover_messages.receive(sock)
        assert answer is not None
        assert (answer.verb, answer.why) == ("no", "this proxy is shutting down")
    assert rig.old.wait() == 0


def test_without_a_socket_for_it(tmp_path: Path) -> None:
    keys = Keys(tmp_path)
    with Proxy(["listen", "--bind", "127.0.0.1:0", "--to", ":1", *keys.listen(), "--replace"], log=tmp_path / "a.log") as proxy:
        assert proxy.wait() == 2
        assert "--takeover unix:/path" in proxy.text()


def test_beside_an_application(rig: Rig) -> None:
    proxy = rig.newcomer("beside", "--", "true")
    assert proxy.wait() == 2
    assert "--replace and an application exclude each other" in proxy.text()


def test_an_old_one_with_an_application(tmp_path: Path, echo: Target) -> None:
    """Its application would end with it, so it refuses."""
    keys = Keys(tmp_path)
    tunnel = {"mode": "listen", "bind": "127.0.0.1:0", "to": echo.to, "allow": "app"}
    file = tmp_path / "c.yaml"
    at = f"unix:{tmp_path}/takeover.sock"
    file.write_text(
        json.dumps(
            {
                "identity": "server.key",
                "peers": {"app": str(keys.client.public)},
                "takeover": at,
                "log": {"format": "json"},
                "tunnels": {"in": tunnel},
            }
        )
    )
    with Proxy(["run", str(file), "--", "sleep", "1000"], log=tmp_path / "old.log") as old:
        old.wait_log("ready")
        new = Proxy(["run", str(file), "--replace"], log=tmp_path / "new.log")
        assert new.wait() == 2
        assert "an application runs beside this proxy" in new.text()


# -- which sockets change hands ------------------------------------------------------------------------------------------------


def test_another_file(rig: Rig, echo: Target) -> None:
    """A tunnel that stays keeps its socket under a new name, one that is new binds, one that is gone refuses from then on."""
    port = free_port()
    tunnel = rig.config["tunnels"]["in"]
    rig.write(tunnels={"renamed": tunnel, "gone": {**tunnel, "bind": f"127.0.0.1:{port}"}})
    rig.replace()
    connect(("127.0.0.1", port)).close()
    rig.write(tunnels={"renamed": tunnel, "new": {**tunnel, "bind": "127.0.0.1:0"}})
    new = rig.replace()
    rig.exchange()
    host, _, new_port = new.wait_log("listening", tunnel="new")[0]["address"].rpartition(":")
    connect((host, int(new_port))).close()
    with pytest.raises(ConnectionRefusedError):
        connect(("127.0.0.1", port))


def test_a_wider_address(rig: Rig) -> None:
    """`0.0.0.0:port` in place of `127.0.0.1:port`: both listen for a moment, and nobody is refused."""
    rig.write(tunnels={"in": {**rig.config["tunnels"]["in"], "bind": f"0.0.0.0:{rig.tunnel[1]}"}})
    with Load(rig) as load:
        load.served(5)
        rig.replace()
        load.served(5)
    assert load.failures == []
    assert rig.generations[0].wait() == 0


@pytest.mark.parametrize("workers", [1, 2])
def test_unix_sockets(tmp_path: Path, echo: Target, workers: int) -> None:
    """The files stay in place, get the mode of the new file, and are removed by the last process."""
    keys = Keys(tmp_path)
    door, admin, takeover = tmp_path / "door", tmp_path / "admin", tmp_path / "takeover"
    flags = ["connect", "--bind", f"unix:{door}", "--to", "127.0.0.1:1", *keys.connect(), "--workers", str(workers)]
    flags += ["--admin", f"unix:{admin}", "--takeover", f"unix:{takeover}"]
    files = (door, admin, takeover)
    with Proxy(flags, log=tmp_path / "old.log") as old:
        old.wait_log("ready", count=workers)
        inodes = [file.stat().st_ino for file in files]
        with Proxy([*flags, "--replace", "--bind-mode", "0660"], log=tmp_path / "new.log") as new:
            new.wait_log("ready", count=workers)
            new.wait_log("took over from the old process")
            assert old.wait() == 0
            assert [file.stat().st_ino for file in files] == inodes
            wait_for(lambda: door.stat().st_mode & 0o777 == 0o660, words="the mode of the new process")
            connect(str(door)).close()
            connect(str(admin)).close()
            assert new.stop() == 0
    assert [file for file in files if file.exists()] == []


def test_nobody_to_replace(tmp_path: Path, echo: Target) -> None:
    """`--replace` may always stand in the command line: the first process just starts."""
    flags = ["listen", "--bind", "127.0.0.1:0", "--to", echo.to, *Keys(tmp_path).listen(), "--takeover", f"unix:{tmp_path}/t"]
    with Proxy([*flags, "--replace"], log=tmp_path / "a.log") as proxy:
        proxy.ready()
        assert proxy.log("no process to take over from: this one serves alone")


# -- SIGUSR2 and a service manager ---------------------------------------------------------------------------------------------


def successor_of(proxy: Proxy) -> int:
    """The process that SIGUSR2 has started."""
    proxy.signal(signal.SIGUSR2)
    return int(proxy.wait_log("a new process is started")[0]["pid"])


@pytest.mark.parametrize("rig", [{}, {"workers": 2}], indirect=True)
def test_a_signal(rig: Rig) -> None:
    before = rig.answers()
    pid = successor_of(rig.old)
    try:
        assert rig.old.wait() == 0
        assert rig.answers() != before
        rig.exchange()
    finally:
        os.kill(pid, signal.SIGTERM)
        wait_for(lambda: not os.path.exists(f"/proc/{pid}") or "Z" in Path(f"/proc/{pid}/stat").read_text(), words="its end")


def test_a_signal_and_a_file_with_a_mistake(rig: Rig) -> None:
    text = rig.file.read_text()
    rig.file.write_text("tunnels: {}\n")
    successor_of(rig.old)
    (line,) = rig.old.wait_log("the new process has ended", timeout=LONG)
    assert line["status"] == 2
    rig.exchange()
    rig.file.write_text(text)
    rig.replace()


def test_a_stop_while_a_replaced_one_drains(rig: Rig) -> None:
    """It then has `drain`, as any proxy that is stopped."""
    with connect(rig.address) as client:
        client.sendall(b"S")
        assert read_exactly(client, 1) == b"S"
        rig.replace()
        old = rig.generations[0]
        old.wait_log("draining: a new process serves")
        old.signal(signal.SIGTERM)
        old.wait_log("stopping")
        client.sendall(b"T")
        assert read_exactly(client, 1) == b"T"
    assert old.wait() == 0


def test_a_replaced_one_reads_its_file_for_revocations_alone(tmp_path: Path, echo: Target) -> None:
    """It binds no address of a changed file: the new process does. A connection ends whose key is taken out."""
    rig = Rig(tmp_path, echo.to, watch="100ms")
    try:
        with connect(rig.address) as client:

            def exchange() -> None:
                client.sendall(b"S")
                assert read_exactly(client, 1) == b"S"

            exchange()
            new = rig.replace()
            exchange()
            old = rig.generations[0]
            old.wait_log("draining: a new process serves")
            tunnel = rig.config["tunnels"]["in"]
            rig.write(tunnels={"in": tunnel, "more": {**tunnel, "bind": "127.0.0.1:0"}})
            old.wait_log("replaced process: files read again for revocations", timeout=LONG)
            exchange()
            new.wait_log("listening", tunnel="more", timeout=LONG)
            exchange()
            rig.write(
                peers={"other": str(PrivateKey.generate().public)},
                tunnels={"in": {**tunnel, "allow": "other"}},
                revoke_grace="0s",
            )
            old.wait_log("key revoked: its connections end", timeout=LONG)
            with pytest.raises(ConnectionResetError):
                client.recv(1)
            assert old.wait() == 0
            assert old.log("listening", tunnel="more") == []
    finally:
        rig.stop()
