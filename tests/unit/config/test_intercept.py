"""Settings of interception: what a file may say, and what is said about what it may not."""

from __future__ import annotations

from pathlib import Path

import pytest

from stcp_proxy.config.intercept import load_capture
from stcp_proxy.errors import ConfigError
from stcp_proxy.intercept import rules_for

PEER = "stcp-pub:sm7wkzvkwS5UriUZG505HAlsQ63DDVhungSBgUE6QmM="
ROUTE = "{match: '10.0.0.0/8:6379', to: '10.0.0.9:7443'}"


def write(folder: Path, tunnel: str = "", *, bind: str = "localhost:15001", routes: str = f"[{ROUTE}]") -> Path:
    path = folder / "c.yaml"
    head = f"identity: nowhere.key\npeers: {{db: '{PEER}'}}\ntunnels:\n"
    path.write_text(f"{head}  out: {{mode: connect, bind: '{bind}', intercept: redirect, peer: db, routes: {routes}{tunnel}}}\n")
    return path


def test_rules_need_no_key(tmp_path: Path) -> None:
    capture = load_capture(write(tmp_path, ", capture: routes, exclude: ':53'"))
    assert (capture.how, capture.port, capture.mark, capture.forwarded) == ("redirect", 15001, None, ())
    assert [str(each) for each in (*(capture.only or ()), *capture.peers, *capture.exclude)] == [
        "10.0.0.0/8:6379",
        "10.0.0.9:7443",
        ":53",
    ]


def test_a_name_is_its_port_on_every_address(tmp_path: Path) -> None:
    capture = load_capture(write(tmp_path, ", capture: routes", routes="[{match: 'db.internal:5432', to: 'x:1'}]"))
    assert [str(each) for each in capture.only or ()] == [":5432"]
    assert capture.peers == ()


def test_a_link_local_peer_stands_in_rules_without_its_interface(tmp_path: Path) -> None:
    capture = load_capture(write(tmp_path, routes="[{match: ':1', to: '[fe80::1%eth0]:7443'}]"))
    assert [str(each) for each in capture.peers] == ["[fe80::1]:7443"]
    assert "ip6 daddr fe80::1 tcp dport 7443 goto let_out" in rules_for(capture, [1]).nft
    assert "eth0" not in rules_for(capture, [1]).nft


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"bind": "10.0.0.1:15001"}, "out.bind: the rules cannot send connections to 10.0.0.1:15001"),
        ({"bind": "localhost:0"}, "out.bind: the rules cannot send"),
        ({"tunnel": ", forwarded: br0"}, "out.forwarded: redirected traffic of other hosts"),
        ({"tunnel": ", forwarded: 'a b'"}, "is not the name of an interface"),
        ({"tunnel": ", exclude: db.internal"}, "is a name, and rules hold addresses"),
        ({"tunnel": ", unmatched: pass"}, "out.unmatched: 'refuse' or 'pass-in-the-clear' belongs here"),
        ({"tunnel": ", mark: 254"}, "system's routing tables"),
        ({"routes": "[]"}, "out.routes: this is empty"),
        ({"routes": "[{to: 'x:1'}]"}, "out.routes[0].match: 'match' is missing"),
        ({"routes": "[{match: ':1', to: 'x:1', pier: db}]"}, "did you mean 'peer'?"),
        ({"tunnel": ", accept_proxy_protocol: true"}, "sends no PROXY header"),
    ],
)
def test_refused(tmp_path: Path, given: dict[str, str], says: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_capture(write(tmp_path, **given))
    assert says in str(caught.value)


def test_one_tunnel_of_a_file_intercepts(tmp_path: Path) -> None:
    path = write(tmp_path)
    line = path.read_text().splitlines()[-1]
    path.write_text(path.read_text() + line.replace("out:", "too:").replace("15001", "15002") + "\n")
    with pytest.raises(ConfigError, match="tunnel 'out' intercepts already"):
        load_capture(path)


def test_a_file_without_interception(tmp_path: Path) -> None:
    path = write(tmp_path)
    path.write_text(path.read_text().replace("intercept: redirect, ", "").replace(f"routes: [{ROUTE}]", "to: 'x:1'"))
    with pytest.raises(ConfigError, match=r"no tunnel of .* has 'intercept'"):
        load_capture(path)
