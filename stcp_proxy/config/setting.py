"""The description of a model's field, besides type, range and default. All help texts and pages read it from here."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, get_args, get_origin

from annotated_types import Ge, Le
from pydantic import BaseModel, ConfigDict, model_validator
from pydantic.fields import FieldInfo

from stcp_proxy.config.duration import duration_text
from stcp_proxy.config.value_types import TIME, Kind

ModeName = Literal["listen", "connect", "agent"]


class Model(BaseModel):
    """A mapping of a file. A key without a value counts as missing."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, arbitrary_types_allowed=True)
    others: ClassVar[Any] = None
    """The type of values under keys that are not fields; None where such keys are forbidden."""

    @model_validator(mode="before")
    @classmethod
    def _without_empty(cls, data: object) -> object:
        if not isinstance(data, dict):
            return data
        known = {field.alias or name for name, field in cls.model_fields.items()}
        return {key: value for key, value in data.items() if value is not None or key not in known}


@dataclass(frozen=True, slots=True)
class Flag:
    """The option of `stcp-proxy listen` and `connect` that sets a field.

    Attributes:
        value: the name of the value in the help; None for a field that lists its values.
        name: the option's name without its dashes; None means the field's name.
        panel: the heading in the help above the option.
        text: the description for the command line, where it differs from the file's.
        repeated: the modes in which the option may be given more than once.
        required: the modes that require the option.
    """

    value: str | None = None
    name: str | None = None
    panel: str | None = None
    text: str | None = None
    repeated: tuple[ModeName, ...] = ()
    required: tuple[ModeName, ...] = ()


@dataclass(frozen=True, slots=True)
class Setting:
    """The description of a field.

    Attributes:
        text: the purpose of the setting, in a sentence or two.
        default: the default in words; None means the model's default.
        mode: the mode of the tunnels with this setting; None for both modes, and for settings outside of tunnels.
        restart: whether a change needs a restart.
        flag: the option that sets the field; None without one.
    """

    text: str
    default: str | None = None
    mode: ModeName | None = None
    restart: bool = False
    flag: Flag | None = None


def setting_of(field: FieldInfo) -> Setting:
    """The setting of a field. Every field has a setting."""
    return next(each for each in field.metadata if isinstance(each, Setting))


def settings(model: type[BaseModel]) -> Iterator[tuple[str, FieldInfo, Setting]]:
    """The fields of a model with their keys in a file, in order."""
    for name, field in model.model_fields.items():
        yield field.alias or name, field, setting_of(field)


def default_of(kind: type, name: str) -> Any:
    """The default of a plan's field, which is the default of its setting."""
    field = next(field for field in dataclasses.fields(kind) if field.name == name)
    return field.default


def default_text(field: FieldInfo) -> str | None:
    """The default of a field in words; None where the field is required, or where its absence needs no explanation."""
    setting = setting_of(field)
    if setting.default is not None or field.is_required():
        return setting.default
    default = field.get_default(call_default_factory=True)
    if default is None or default == {} or default == [] or isinstance(default, BaseModel):
        return None
    if isinstance(default, bool):
        return str(default).lower()
    return duration_text(default) if TIME in field.metadata else str(default)


def choices(kind: Any) -> list[str]:
    """The allowed values of a field; empty where the field does not list them."""
    if get_origin(kind) is Literal:
        return [str(value) for value in get_args(kind)]
    return next((found for part in get_args(kind) if (found := choices(part))), [])


def bounds(field: FieldInfo) -> tuple[int, int] | None:
    """The smallest and the largest integer of a field; None where the field takes no integer."""
    found: dict[type, int] = {}
    for part in _metadata(field):
        if isinstance(part, Ge):
            found[Ge] = int(part.ge)  # type: ignore[call-overload]
        elif isinstance(part, Le):
            found[Le] = int(part.le)  # type: ignore[call-overload]
    return (found[Ge], found[Le]) if len(found) == len({Ge, Le}) else None


def kind_text(field: FieldInfo) -> str:
    """The kind of a field's values, in a word or two; empty for a mapping."""
    return next((part.words for part in _metadata(field) if isinstance(part, Kind)), "")


def _metadata(field: FieldInfo) -> Iterator[Any]:
    """The annotations of a field's type, at any depth."""
    yield from field.metadata
    todo = [field.annotation]
    while todo:
        kind = todo.pop()
        for part in getattr(kind, "__metadata__", ()):
            yield from part.metadata if isinstance(part, FieldInfo) else [part]
        todo += [part for part in get_args(kind) if not isinstance(part, str)]
