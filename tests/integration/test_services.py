"""Several services behind one port: each peer gets its own, and learns nothing of the others'."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from harness.admin import Admin
from harness.peer import Peer
from harness.process import wait_for
from harness.proxies import Keys, Pair, Proxy, from_file
from harness.sockets import Target, connect, end_of, end_of_new, free_port, read_exactly

from stcp_proxy.errors import Code
from stcp_proxy.protocol.opening import Opening, decode_reason
from stcp_proxy.protocol.wire import FrameType


def answering(word: bytes) -> Target:
    return Target(lambda sock: sock.sendall(word))


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Keys:
    return Keys(tmp_path_factory.mktemp("keys"))


@pytest.fixture(scope="module")
def targets() -> Iterator[dict[str, Target]]:
    found = {name: answering(name.encode()) for name in ("red", "blue", "rest")}
    yield found
    for target in found.values():
        target.close()


@pytest.fixture(scope="module")
def listen(tmp_path_factory: pytest.TempPathFactory, keys: Keys, targets: dict[str, Target]) -> Iterator[Proxy]:
    """`red` is for app-host, `blue` for other-host, and what is named by nobody for app-host."""
    text = f"""\
  in:
    mode: listen
    bind: 127.0.0.1:0
    to: {targets["rest"].to}
    allow: app-host
    services:
      red: {targets["red"].to}
      blue: {{to: "{targets["blue"].to}", allow: other-host}}
"""
    with from_file(tmp_path_factory.mktemp("listen"), "listen", keys, text) as proxy:
        yield proxy  # type: ignore[misc]


def asked(listen: Proxy, keys: Keys, service: str | None) -> tuple[FrameType, bytes]:
    """The answer to an OPEN that names `service`, from app-host."""
    with connect(listen.address) as sock:
        peer = Peer(sock, keys)
        peer.send(FrameType.OPEN, Opening(service=service).encode())
        answer = peer.receive()
        assert answer is not None
        return answer


@pytest.mark.parametrize(("service", "word"), [("red", b"red"), (None, b"rest")])
def test_a_peer_gets_what_it_names(tmp_path: Path, listen: Proxy, keys: Keys, service: str | None, word: bytes) -> None:
    name = "" if service is None else f"\n    service: {service}"
    text = f"  out:\n    mode: connect\n    bind: 127.0.0.1:0\n    to: 127.0.0.1:{listen.port}\n    peer: db-host{name}\n"
    with from_file(tmp_path, "connect", keys, text) as proxy, connect(proxy.address) as sock:  # type: ignore[attr-defined]
        assert end_of(sock) == ("eof", word)
    fields = {"service": service} if service else {}
    assert listen.ended(peer="app-host", **fields)


def test_somebody_elses_service_is_one_that_does_not_exist(listen: Proxy, keys: Keys, targets: dict[str, Target]) -> None:
    """The same bytes for both, nothing dialled for either; the log knows which is which."""
    for_others = asked(listen, keys, "blue")
    unknown = asked(listen, keys, "green")
    assert for_others == unknown
    assert for_others[0] is FrameType.REJECT
    assert decode_reason(for_others[1]) == (Code.UNKNOWN_SERVICE, "")
    assert targets["blue"].dials == 0
    whys = [line["why"] for line in listen.refused(count=2, reason="unknown_service")]
    assert "the peer may not use the service 'blue'; the answer to it was that there is no such service" in whys
    assert "the peer asks for the service 'green', which this tunnel does not have" in whys


def test_status_has_each_services_target(tmp_path: Path, keys: Keys, targets: dict[str, Target]) -> None:
    gone = f"127.0.0.1:{free_port()}"
    text = f"""\
  in:
    mode: listen
    bind: 127.0.0.1:0
    allow: app-host
    services: {{red: {targets["red"].to}, gone: {gone}}}
admin: 127.0.0.1:0
"""
    with from_file(tmp_path, "listen", keys, text) as proxy:  # type: ignore[attr-defined]
        admin = Admin(proxy)
        for service in ("red", "gone"):
            asked(proxy, keys, service)
        seen = admin.status()["tunnels"][0]["targets"]
        red, gone_ = ({**target, "why": bool(target["why"])} for target in seen)
        retry = gone_.pop("retry")
        assert 0 <= retry <= 3
        assert red == {
            "address": targets["red"].to,
            "service": "red",
            "route": "",
            "health": "up",
            "why": False,
            "live": red["live"],
            "retry": None,
            "since": None,
            "remedy": "",
        }
        assert gone_.pop("since") <= time.time()
        assert gone_.pop("remedy")
        assert gone_ == {"address": gone, "service": "gone", "route": "", "health": "down", "why": True, "live": 0}
        assert admin.metric("stcp_targets", health="down") == 1


def test_a_strangers_name_does_not_forge_a_line(listen: Proxy, keys: Keys) -> None:
    asked(listen, keys, 'x\n{"event": "connection closed"}\x1b[2J')
    (line,) = wait_for(
        lambda: [line for line in listen.refused(reason="unknown_service") if "x\\n" in line["why"]], words="the refusal"
    )
    assert "\x1b" not in line["why"]


def test_the_connecting_side_says_what_to_do(tmp_path: Path, listen: Proxy, keys: Keys) -> None:
    text = f"  out: {{mode: connect, bind: '127.0.0.1:0', to: '127.0.0.1:{listen.port}', peer: db-host, service: blue}}\n"
    with from_file(tmp_path, "connect", keys, text) as proxy:
        assert end_of_new(proxy.address)[0] == "reset"  # type: ignore[attr-defined]
        (line,) = proxy.refused()  # type: ignore[attr-defined]
    assert "unknown service" in line["why"]
    assert "name a service" in line["remedy"]


def test_services_from_flags(tmp_path: Path) -> None:
    with answering(b"red") as red, answering(b"blue") as blue:
        flags = ["--service", f"red={red.to}", "--service", f"blue={blue.to}"]
        with Pair(tmp_path, [], listen=flags, connect=["--service", "blue"]) as pair, connect(pair.address) as sock:
            assert read_exactly(sock, 4) == b"blue"


def test_a_tunnel_without_services_has_none(tmp_path: Path) -> None:
    with Target() as target, Pair(tmp_path, target.to, connect=["--service", "red"]) as pair:
        assert end_of_new(pair.address)[0] == "reset"
        (line,) = pair.listen.refused(reason="unknown_service")
        assert "has no services" in line["why"]
        assert target.dials == 0
