"""The admin address: which addresses need no token, and how to find the address in a file without reading its other parts."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from stcp_proxy.config.model_errors import validate
from stcp_proxy.config.models import AdminModel, ConfigModel
from stcp_proxy.config.plan import AdminPlan
from stcp_proxy.config.source import Source
from stcp_proxy.config.token import Token, load_token
from stcp_proxy.config.unix_folder import check_folder
from stcp_proxy.config.yaml_file import file_source
from stcp_proxy.errors import ConfigError, KeyFileError
from stcp_proxy.net.address import Address, UnixAddress, clash, parse_address
from stcp_proxy.net.special_addresses import is_loopback


def is_local(address: Address) -> bool:
    """Whether only this machine can reach an address: a unix socket, or the loopback interface."""
    return isinstance(address, UnixAddress) or is_loopback(address.host)


def admin_plan(source: Source, config: ConfigModel) -> AdminPlan | None:
    """The admin address of a model; mistakes are noted in the source."""
    address = config.admin
    for name, tunnel in config.tunnels.items():
        if address is not None and clash(tunnel.bind, address):
            source.report(("admin",), f"{address} is taken by tunnel '{name}' ({tunnel.bind})", "give each an address of its own")
    return _plan(source, address, config.admin_token)


def _plan(source: Source, address: Address | None, file: str | None) -> AdminPlan | None:
    if address is None:
        if file is not None:
            what = "a token is set, and no admin address uses it"
            source.report(("admin_token",), what, f"set {source.key('admin')}, or remove it")
        return None
    check_folder(source, ("admin",), address)
    token = _token(source, file)
    if file is None and not is_local(address):
        what = f"{address} can be reached from other machines, and no token protects it"
        source.report(("admin",), what, f"set {source.key('admin_token')}, or bind 127.0.0.1 or unix:/path")
    return AdminPlan(address, token)


def _token(source: Source, file: str | None) -> Token | None:
    if file is None:
        return None
    try:
        return load_token(source.file(file))
    except KeyFileError as exc:
        source.blame(("admin_token",), exc)
        return None


def admin_of_file(path: str | Path) -> AdminPlan:
    """The admin address in a YAML file. The rest of the file may have mistakes, and its key files need not be readable. So a
    running proxy can be asked while its file is being changed.

    Raises:
        ConfigError: the file has no admin address, or cannot be read.
    """
    whole = file_source(path)
    source = replace(whole, data={key: value for key, value in whole.data.items() if key in AdminModel.model_fields})
    config = validate(source, AdminModel)
    found = _plan(source, config.admin, config.admin_token)
    source.raise_findings()
    if found is None:
        validate(whole, ConfigModel)  # a misspelt key is the more likely cause
        raise ConfigError(f"{path} has no 'admin' address", remedy="add 'admin: 127.0.0.1:9901' to it, and send the proxy SIGHUP")
    return found


def admin_of_flags(address: str, token_file: str | Path | None = None) -> AdminPlan:
    """The admin address of a proxy that runs on a different host, or from flags.

    Raises:
        ConfigError: the address or the token is malformed.
    """
    source = Source("the flags", {}, Path(), lambda path: "--" + str(path[-1]).replace("_", "-"))
    token = _token(source, None if token_file is None else str(token_file))
    found = _address(source, address)
    source.raise_findings()
    assert found is not None  # noqa: S101
    return AdminPlan(found, token)


def _address(source: Source, text: str) -> Address | None:
    try:
        return parse_address(text, role="to")
    except ConfigError as exc:
        source.blame(("admin",), exc)
        return None
