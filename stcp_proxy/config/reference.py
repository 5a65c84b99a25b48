"""docs/SETTINGS.md and the JSON schema of a configuration file, generated from the models."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from pydantic.fields import FieldInfo

from stcp_proxy.config import agent_models, certificate_models, models, otlp_models, tunnel_models
from stcp_proxy.config.setting import Model, Setting, bounds, choices, default_text, kind_text, settings
from stcp_proxy.config.value_types import MAX_NAME

TABLES: Final[tuple[tuple[str, type[Model]], ...]] = (
    ("The whole file", models.ConfigModel),
    ("One tunnel, under `tunnels`", tunnel_models.TunnelModel),
    ("One service, under a tunnel's `services`", tunnel_models.ServiceModel),
    ("One route, under a tunnel's `routes`", tunnel_models.RouteModel),
    ("`accept_proxy_protocol` of a tunnel", tunnel_models.AcceptProxyModel),
    ("`allow_mode` of a tunnel", tunnel_models.AllowModeModel),
    ("`health` of a tunnel", tunnel_models.HealthModel),
    ("`keep` of a tunnel", tunnel_models.KeepModel),
    ("`agent`", agent_models.AgentModel),
    ("One identity, under `identities` of the agent", agent_models.IdentityModel),
    ("One entry of `connect` of an identity", agent_models.ExpectedPeerModel),
    ("`peers`, beside the names of peers", models.PeersModel),
    ("`certificate`", certificate_models.CertificateModel),
    ("One authority, under `authorities`", certificate_models.AuthorityModel),
    ("`log`", models.LogModel),
    ("`dns`", models.DnsModel),
    ("`otlp`", otlp_models.OtlpModel),
)
_HEAD: Final = f"""\
# Settings

Every setting of a configuration file. `stcp-proxy schema --markdown` prints this page: do not edit it.

`stcp-proxy schema` prints a JSON schema. An editor with a YAML language server checks and completes by it, if the first line of
the YAML file names it:

    stcp-proxy schema >stcp-proxy.schema.json
    # yaml-language-server: $schema=stcp-proxy.schema.json

[many-tunnels.yaml](../configs/many-tunnels.yaml) has every setting at least once.

- A time is a number of seconds, or a number with `ms`, `s`, `m`, `h` or `d`.
- A name has up to {MAX_NAME} letters, digits, `.`, `_` and `-`.
- A file name is relative to the folder of the YAML file.
- Where several values may stand, write a list, or one value alone.

*Side* says which kind of tunnel has a setting. *Option* is the option of `stcp-proxy listen`, `connect` or `agent` for the same
setting.
A reload changes every setting, unless its text says that it needs a restart.
"""


def json_schema() -> dict[str, Any]:
    """The JSON schema of a configuration file."""
    found: dict[str, Any] = models.ConfigModel.model_json_schema(by_alias=True)
    for model in (found, *found["$defs"].values()):
        kind = next(kind for _, kind in TABLES if kind.__name__ == model["title"])
        for key, field, setting in settings(kind):
            default = default_text(field)
            note = "" if default is None else f" Default: {default}."
            model["properties"][key] |= {"description": setting.text + note}
            model["properties"][key].pop("title", None)
            model["properties"][key].pop("default", None)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **found, "title": "stcp-proxy configuration"}


def page() -> str:
    """The text of docs/SETTINGS.md."""
    return _HEAD + "".join("\n" + "\n".join(_table(title, model)) + "\n" for title, model in TABLES)


def _table(title: str, model: type[Model]) -> Iterator[str]:
    yield from (f"## {title}", "", "| key | value | default | side | what it does |", "|---|---|---|---|---|")
    for key, field, setting in sorted(settings(model), key=lambda each: not each[1].is_required()):
        default = "**required**" if field.is_required() else default_text(field) or ""
        cells = (f"`{key}`", _value(field), default, setting.mode or "", _text(setting, key))
        yield "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _text(setting: Setting, key: str) -> str:
    text = setting.text
    if setting.flag is not None:
        text += f" Option: `--{(setting.flag.name or key).replace('_', '-')}`."
    return text + (" A change needs a restart." if setting.restart else "")


def _value(field: FieldInfo) -> str:
    """The kind of value of a field, in a word or two."""
    if found := bounds(field):
        return f"{found[0]} to {found[1]}"
    if field.annotation is bool:
        return "`true`, `false`"
    return kind_text(field) or ", ".join(f"`{value}`" for value in choices(field.annotation)) or "mapping"
