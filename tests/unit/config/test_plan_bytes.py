"""A plan as bytes for another process: whole, and nothing but a plan."""

from __future__ import annotations

import dataclasses
import pickle
import re
import shutil
from pathlib import Path

import pytest
from harness.certificates import certificate_files

from stcp_proxy import keys
from stcp_proxy.config import AdminPlan, KeyAuth, Mode, Plan, PskAuth, Token, load_plan, plan_bytes
from stcp_proxy.errors import ConfigError
from stcp_proxy.net.address import TcpAddress
from stcp_proxy.protocol.secret import Secret

EVERYTHING = Path(__file__).parents[3] / "configs" / "many-tunnels.yaml"


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    """The plan of the file that has every setting."""
    text = re.sub(r"unix:/run/redis/", f"unix:{tmp_path}/", EVERYTHING.read_text())
    (tmp_path / "c.yaml").write_text(text)
    shutil.copytree(EVERYTHING.parent / "peers.d", tmp_path / "peers.d")
    keys.write_secret_file(tmp_path / "host.key", keys.format_private_key(keys.PrivateKey.generate()))
    keys.write_secret_file(tmp_path / "metrics.psk", keys.format_psk(keys.generate_psk()))
    keys.write_secret_file(tmp_path / "admin.token", "0123456789abcdef0123")
    certificate_files(tmp_path)
    return load_plan(tmp_path / "c.yaml")


def test_a_plan_arrives_as_it_was(plan: Plan) -> None:
    assert any(isinstance(tunnel.auth, PskAuth) for tunnel in plan.tunnels)
    assert any(tunnel.intercept for tunnel in plan.tunnels)
    arrived = plan_bytes.load(plan_bytes.dump(plan))
    assert arrived == plan
    assert arrived.known == plan.known
    assert arrived.included == plan.included != {}
    assert arrived.inputs == plan.inputs != {}
    assert arrived.admin is not None
    assert arrived.admin.token == plan.admin.token  # type: ignore[union-attr]
    with pytest.raises(TypeError):  # what was read-only stays so
        arrived.tunnels[0].auth.peers["x"] = "y"  # type: ignore[index,union-attr]


def test_members_of_an_enumeration_are_written_by_value(plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    """Python 3.11.2 would write them as a call of getattr."""
    monkeypatch.setattr(Mode, "__reduce_ex__", lambda self, protocol: (getattr, (type(self), self.name)))
    assert plan_bytes.load(plan_bytes.dump(plan)).tunnels == plan.tunnels


def test_one_key_of_many_tunnels_stays_one_object(plan: Plan) -> None:
    arrived = plan_bytes.load(plan_bytes.dump(plan))
    assert len({id(tunnel.auth.identity) for tunnel in arrived.tunnels if isinstance(tunnel.auth, KeyAuth)}) <= 2


def test_secrets_stay_unfit_for_any_other_pickler() -> None:
    for secret in (Secret(bytes(32)), Token("0123456789abcdef")):
        with pytest.raises(TypeError):
            pickle.dumps(secret)


@pytest.mark.parametrize("value", [Path("/"), pickle.loads, print, Plan.__init__])
def test_nothing_else_is_made(value: object) -> None:
    """Least of all a function that the bytes name."""
    data = plan_bytes.dump(dataclasses.replace(Plan(()), tunnels=()))
    head = data[: 8 + int.from_bytes(data[:8], "big")]
    with pytest.raises(pickle.UnpicklingError, match="no part of a plan"):
        plan_bytes.load(head + pickle.dumps(value))


def test_a_part_of_a_plan_is_no_plan() -> None:
    data = plan_bytes.dump(AdminPlan(TcpAddress("127.0.0.1", 1)))  # type: ignore[arg-type]
    with pytest.raises(pickle.UnpicklingError, match="no plan"):
        plan_bytes.load(data)


@pytest.mark.parametrize("old", [b'"drain", ', b'"Plan"'])
def test_another_version_is_refused(plan: Plan, old: bytes) -> None:
    """A field that is gone or renamed on either side would shift all others."""
    data = plan_bytes.dump(plan)
    end = 8 + int.from_bytes(data[:8], "big")
    head = data[8:end].replace(b'"drain", ', b"") if old == b'"drain", ' else data[8:end].replace(b":Plan", b":Plan2")
    with pytest.raises(ConfigError, match="stcp-proxy was upgraded while this process ran") as caught:
        plan_bytes.load(len(head).to_bytes(8, "big") + head + data[end:])
    assert caught.value.remedy == "restart the proxy"
