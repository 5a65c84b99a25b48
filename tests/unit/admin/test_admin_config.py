"""`admin` and `admin_token`: which address needs a token, and what is none."""

from __future__ import annotations

from pathlib import Path

import pytest

from stcp_proxy import keys
from stcp_proxy.config import AdminPlan, Mode, Plan, Token, describe_plan, load_plan, plan_from_flags
from stcp_proxy.config.admin_address import admin_of_file, admin_of_flags
from stcp_proxy.errors import ConfigError
from stcp_proxy.net.address import TcpAddress, UnixAddress
from stcp_proxy.protocol.secret import Secret

TOKEN = "0123456789abcdef-._~+/="


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    keys.write_secret_file(tmp_path / "a.psk", keys.format_psk(Secret(bytes(range(32)))))
    keys.write_secret_file(tmp_path / "a.token", f"# for Prometheus\n{TOKEN}\n")
    return tmp_path


def load(folder: Path, admin: str, bind: str = "127.0.0.1:1") -> Plan:
    path = folder / "c.yaml"
    path.write_text(f"psk: a.psk\n{admin}\ntunnels:\n  t: {{mode: connect, bind: '{bind}', to: ':2'}}\n")
    return load_plan(path)


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("127.0.0.1:9901", TcpAddress("127.0.0.1", 9901)),
        ("127.1.2.3:9901", TcpAddress("127.1.2.3", 9901)),
        ("'[::1]:9901'", TcpAddress("::1", 9901)),
        ("localhost:0", TcpAddress("localhost", 0)),
    ],
)
def test_this_machines_own_addresses_need_no_token(folder: Path, text: str, address: TcpAddress) -> None:
    assert load(folder, f"admin: {text}").admin == AdminPlan(address, None)


def test_nor_does_a_unix_socket(folder: Path) -> None:
    assert load(folder, f"admin: unix:{folder}/admin").admin == AdminPlan(UnixAddress(f"{folder}/admin"), None)


@pytest.mark.parametrize(
    "text", ["':9901'", "0.0.0.0:9901", "'[::]:9901'", "10.1.2.3:9901", "proxy.internal:9901", "128.0.0.1:1"]
)
def test_any_other_address_does(folder: Path, text: str) -> None:
    with pytest.raises(ConfigError, match="no token protects it; set 'admin_token'"):
        load(folder, f"admin: {text}")
    found = load(folder, f"admin: {text}\nadmin_token: a.token").admin
    assert found is not None
    assert found.token == Token(TOKEN)


@pytest.mark.parametrize(
    ("admin", "says"),
    [
        ("admin_token: a.token", "no admin address uses it"),
        ("admin: 127.0.0.1:1", "is taken by tunnel 't'"),
        ("admin: unix:/no/such/folder/admin", "does not exist"),
        ("admin: {address: 127.0.0.1:1}", "text belongs here"),
        ("admin: nonsense", "has no port"),
        ("admin_tokens: x", "did you mean 'admin_token'"),
        ("admin: 127.0.0.1:9\nadmin_token: missing", "the token file .*missing does not exist; make one with .*openssl rand"),
        ("admin: 127.0.0.1:9\nadmin_token: a.psk", "does not hold a token"),
        ("admin: 127.0.0.1:9\nadmin_token: stcp-psk:AAAA", "consider it exposed"),
    ],
)
def test_a_mistake_is_a_sentence(folder: Path, admin: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        load(folder, admin)


@pytest.mark.parametrize(
    "text", ["", "short", "a" * 513, "two words that are long enough", "ümlaut0123456789abc", "0123456789abcdef\nx" * 2]
)
def test_what_is_no_token(folder: Path, text: str) -> None:
    path = folder / "b.token"
    path.write_text(text)
    path.chmod(0o600)
    with pytest.raises(ConfigError, match="token"):
        load(folder, "admin: 127.0.0.1:9\nadmin_token: b.token")


def test_a_token_that_others_can_read_is_refused(folder: Path) -> None:
    (folder / "a.token").chmod(0o640)
    with pytest.raises(ConfigError, match=r"the token file .* has mode 0640"):
        load(folder, "admin: 127.0.0.1:9\nadmin_token: a.token")


def test_flags_are_the_same(folder: Path) -> None:
    plan = plan_from_flags(
        mode=Mode.CONNECT, bind=":1", to=[":2"], psk=folder / "a.psk", admin=":9901", admin_token=folder / "a.token"
    )
    assert plan.admin == AdminPlan(TcpAddress("", 9901), Token(TOKEN))
    with pytest.raises(ConfigError, match="--admin: :9901 can be reached"):
        plan_from_flags(mode=Mode.CONNECT, bind=":1", to=[":2"], psk=folder / "a.psk", admin=":9901")


def test_a_flag_takes_the_place_of_the_files(folder: Path) -> None:
    load(folder, "admin: 127.0.0.1:9")
    assert load_plan(folder / "c.yaml", admin="127.0.0.1:10").admin == AdminPlan(TcpAddress("127.0.0.1", 10))


def test_the_plan_in_words_names_the_address_and_not_the_token(folder: Path) -> None:
    words = describe_plan(load(folder, "admin: 127.0.0.1:9\nadmin_token: a.token"))
    assert "admin: 127.0.0.1:9, with a token" in words
    assert TOKEN not in words


def test_who_asks_needs_no_key(folder: Path) -> None:
    load(folder, "admin: 127.0.0.1:9\nadmin_token: a.token")
    (folder / "a.psk").unlink()
    assert admin_of_file(folder / "c.yaml") == AdminPlan(TcpAddress("127.0.0.1", 9), Token(TOKEN))


@pytest.mark.parametrize(
    "wrong", ["workers: no", "tunnel: {}", "tunnels:\n  t: {mode: connect, bind: '127.0.0.1:9'}", "psk: [1]"]
)
def test_who_asks_needs_nothing_else_of_the_file(folder: Path, wrong: str) -> None:
    (folder / "c.yaml").write_text(f"admin: 127.0.0.1:9\nadmin_token: a.token\n{wrong}\n")
    with pytest.raises(ConfigError):
        load_plan(folder / "c.yaml")
    assert admin_of_file(folder / "c.yaml") == AdminPlan(TcpAddress("127.0.0.1", 9), Token(TOKEN))


@pytest.mark.parametrize(
    ("admin", "says"),
    [
        ("admins: 127.0.0.1:9", "c.yaml:2: admins: there is no such key; did you mean 'admin'"),
        ("admin: nonsense", "c.yaml:2: admin: .*has no port"),
        ("admin: 127.0.0.1:9\nadmin_token: missing", "c.yaml:3: admin_token: the token file .* does not exist"),
    ],
)
def test_what_it_needs_has_to_be_right(folder: Path, admin: str, says: str) -> None:
    with pytest.raises(ConfigError):
        load(folder, admin)
    with pytest.raises(ConfigError, match=says):
        admin_of_file(folder / "c.yaml")


def test_a_file_without_an_address_says_so(folder: Path) -> None:
    load(folder, "")
    with pytest.raises(ConfigError, match="has no 'admin' address; add 'admin: 127"):
        admin_of_file(folder / "c.yaml")


def test_an_address_to_ask_at(folder: Path) -> None:
    assert admin_of_flags("db.internal:9901", folder / "a.token") == AdminPlan(TcpAddress("db.internal", 9901), Token(TOKEN))
    with pytest.raises(ConfigError, match="has no port"):
        admin_of_flags("nonsense")
    with pytest.raises(ConfigError, match="--admin-token: the token file"):
        admin_of_flags("127.0.0.1:1", folder / "nothing")
