"""The options of `stcp-proxy listen`, `connect` and `agent`, one for each field with a flag, and the plan of their values."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from pydantic.fields import FieldInfo

from stcp_proxy.config.agent_models import AgentModel, IdentityModel
from stcp_proxy.config.agent_plan import DEFAULT_IDENTITY
from stcp_proxy.config.certificate_models import CertificateModel
from stcp_proxy.config.models import ConfigModel, LogModel
from stcp_proxy.config.plan import Plan
from stcp_proxy.config.plan_builder import build
from stcp_proxy.config.setting import Flag, Setting, bounds, choices, default_text, settings
from stcp_proxy.config.source import KeyPath, Source
from stcp_proxy.config.tunnel_models import TunnelModel
from stcp_proxy.errors import ConfigError
from stcp_proxy.redact import shown


@dataclass(frozen=True, slots=True)
class Option:
    """One option of a command.

    Attributes:
        name: the option's name without its dashes.
        path: the key path of its value in a file.
        value: the name of the value in the help.
        text: the description of the option.
        default: the default in words; None where the help need not show it.
        panel: the heading in the help above the option.
        choices: all allowed values; empty where other values are allowed.
        is_file: whether the value names a file.
        is_number: whether the value is an integer.
        repeated: whether the option may be given more than once.
        required: whether the option must be given.
    """

    name: str
    path: KeyPath
    value: str
    text: str
    default: str | None
    panel: str | None
    choices: tuple[str, ...]
    is_file: bool
    is_number: bool
    repeated: bool
    required: bool

    @property
    def parameter(self) -> str:
        """The name of the function parameter for this option."""
        return self.name.replace("-", "_")


AGENT: Final = "agent"
"""The command whose options describe no tunnel."""
_OF_TUNNELS: Final = {"workers", "stalled_mib", "takeover", "takeover_drain"}
"""Settings of a whole file that have no effect without a tunnel."""


def options(command: str) -> list[Option]:
    """The options of a command (`listen`, `connect` or `agent`), in the order of the models' fields."""
    if command == AGENT:
        found = list(_of_model(IdentityModel, (AGENT, "identities", DEFAULT_IDENTITY), command))
        found += _of_model(AgentModel, (AGENT,), command)
    else:
        found = list(_of_model(TunnelModel, ("tunnels", command), command))
    whole = _of_model(ConfigModel, (), command)
    found += (option for option in whole if command != AGENT or option.path[-1] not in _OF_TUNNELS)
    found += _of_model(LogModel, ("log",), command)
    found += _of_model(CertificateModel, ("certificate",), command)
    return sorted(found, key=lambda option: (option.panel is not None, not option.required))


def _of_model(model: Any, path: KeyPath, command: str) -> Iterator[Option]:
    for key, field, setting in settings(model):
        if setting.flag is not None and setting.mode in (None, command):
            yield _option((*path, key), field, setting, setting.flag, command)


def _option(path: KeyPath, field: FieldInfo, setting: Setting, flag: Flag, command: str) -> Option:
    name = flag.name or str(path[-1])
    values = () if flag.value else tuple(choices(field.annotation))
    return Option(
        name=name.replace("_", "-"),
        path=path,
        value=flag.value or "|".join(values),
        text=flag.text or setting.text,
        default=None if command in flag.required else _default(field),
        panel=flag.panel,
        choices=values,
        is_file=flag.value == "FILE",
        is_number=bounds(field) is not None,
        repeated=command in flag.repeated,
        required=command in flag.required,
    )


_OF_A_FILE = "the file's "


def _default(field: FieldInfo) -> str | None:
    """The default of a field where there is no file: `the file's 'suite', else hybrid` is hybrid."""
    text = default_text(field)
    if text is None or not text.startswith(_OF_A_FILE):
        return None if text is None else text.partition(";")[0]
    return text.partition(", else ")[2] or None


def plan_from_flags(*, mode: str, **given: object) -> Plan:
    """The plan of one tunnel, named after its mode, or of an agent. A value that is None or empty gets the default of a file.

    Args:
        mode: the command: `listen`, `connect` or `agent`.
        given: values by `Option.parameter`.

    Raises:
        ConfigError: lists every mistake with its flag.
    """
    known = {option.parameter: option for option in options(mode)}
    part: dict[str, Any] = {} if mode == AGENT else {"mode": str(mode)}
    data: dict[str, Any] = {AGENT: {"identities": {DEFAULT_IDENTITY: part}}} if mode == AGENT else {"tunnels": {str(mode): part}}
    for name, value in given.items():
        if value is not None and value != []:
            _put(data, known[name].path, _plain(known[name], value))
    if "allow" in part:
        data["peers"], part["allow"] = _named_keys(part["allow"])
    if "connect" in part:
        part["connect"] = [_expected_peer(text) for text in part["connect"]]
    if "services" in part and mode != AGENT:
        part["services"] = _named_targets(part["services"])
    if "authorities" in data:
        data["authorities"] = _named_bundles(data["authorities"])
    return build(_source(data, mode))


def _put(data: dict[str, Any], path: KeyPath, value: object) -> None:
    for step in path[:-1]:
        data = data.setdefault(str(step), {})
    data[str(path[-1])] = value


def _plain(option: Option, value: object) -> object:
    """A value in the form that a file has."""
    if isinstance(value, list | tuple):
        return [_plain(option, each) for each in value]
    if isinstance(value, Path):
        return str(value)
    return int(value) if option.is_number and isinstance(value, str) and value.isdecimal() else value


def _source(data: Mapping[str, Any], mode: str) -> Source:
    """A source for the data of flags: a mistake is located by the flag's name."""
    names = {option.path: f"--{option.name}" for option in options(mode)}
    inside: KeyPath = (AGENT, "identities", DEFAULT_IDENTITY) if mode == AGENT else ("tunnels", mode)

    def where(path: KeyPath) -> str:
        if path[:1] == ("peers",):
            return "--allow"
        whole = path if path[:1] in (("tunnels",), (AGENT,)) else (*inside, *path)
        known = (place[:end] for place in (path, whole) for end in range(len(place), 0, -1))
        return next((names[place] for place in known if place in names), "")

    def key(name: str) -> str:
        name = "connect" if mode == AGENT and name == "peer" else name  # `peer` of an entry is a part of the option
        return names.get((*inside, name)) or names.get((name,)) or repr(name)

    return Source("the flags", data, Path(), where, key, from_flags=True)


def _named_keys(allow: list[str]) -> tuple[dict[str, str], list[str]]:
    """Convert `--allow` values to the `peers` and `allow` of a file."""
    peers: dict[str, str] = {}
    allowed = []
    for text in allow:
        name, equals, key = text.partition("=")
        if equals and not name.lower().startswith("stcp-") and key.lower().startswith("stcp-"):
            if name in peers:
                raise ConfigError("--allow: the same name is given to two keys", remedy="give each key a name of its own")
            peers[name] = key
            allowed.append(name)
        else:
            allowed.append(text)
    return peers, allowed


def _expected_peer(text: str) -> dict[str, str]:
    """Convert a `--peer` value of the agent to an entry of `connect` of a file."""
    match, equals, peer = text.partition("=")
    if match.lower().startswith("stcp-") or match.startswith("dns:") or "://" in match:
        raise ConfigError("--peer: the address is missing", remedy="write ADDRESS=PEER, such as 10.0.0.5:6379=dns:redis.internal")
    return {"match": match, "peer": peer} if equals else {"match": match}


def _named_bundles(authorities: list[str]) -> dict[str, str]:
    """Convert `--authority` values to the `authorities` of a file. An authority without a name is named by its number."""
    found: dict[str, str] = {}
    for number, text in enumerate(authorities, start=1):
        name, equals, file = text.partition("=")
        name, file = (name, file) if equals and "/" not in name else (f"authority-{number}", text)
        if name in found:
            raise ConfigError("--authority: the same name is given twice", remedy="give each authority a name of its own")
        found[name] = file
    return found


def _named_targets(services: list[str]) -> dict[str, list[str]]:
    """Convert `--service` values to the `services` of a file."""
    found: dict[str, list[str]] = {}
    for text in services:
        name, equals, address = text.partition("=")
        if not equals:
            raise ConfigError(f"--service: {shown(text)} has no target", remedy="write NAME=ADDRESS")
        found.setdefault(name, []).append(address)
    return found
