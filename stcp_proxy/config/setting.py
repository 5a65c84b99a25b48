"""What a model's field tells about itself beside type, range and default. Everything that shows settings reads it from here."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal, get_args, get_origin

from annotated_types import Ge, Le
from pydantic import BaseModel, ConfigDict, model_validator
from pydantic.fields import FieldInfo

from stcp_proxy.config.duration import duration_text
from stcp_proxy.config.value_types import TIME, Kind

ModeName = Literal["listen", "connect"]


class Model(BaseModel):
    """A mapping of a file. A key with nothing behind it counts as not there."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, arbitrary_types_allowed=True)

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
        value: how help names its value; None for a field that lists its values.
        name: of the option without its dashes; the field's own where None.
        panel: the heading of the help under which it stands.
        text: what it does, where a command line needs other words than a file.
        repeated: the modes for which it may be given more than once.
        required: the modes that need it.
    """

    value: str | None = None
    name: str | None = None
    panel: str | None = None
    text: str | None = None
    repeated: tuple[ModeName, ...] = ()
    required: tuple[ModeName, ...] = ()


@dataclass(frozen=True, slots=True)
class Setting:
    """What a field is for.

    Attributes:
        text: what it does, in a sentence or two.
        default: what holds where it is not set, in words; the model's default where None.
        mode: the kind of tunnel that has it; None for both, and for what is no tunnel's.
        restart: whether only a new start changes it.
        flag: the option that sets it, if there is one.
    """

    text: str
    default: str | None = None
    mode: ModeName | None = None
    restart: bool = False
    flag: Flag | None = None


def setting_of(field: FieldInfo) -> Setting:
    """The setting of a field; every field has one."""
    return next(each for each in field.metadata if isinstance(each, Setting))


def settings(model: type[BaseModel]) -> Iterator[tuple[str, FieldInfo, Setting]]:
    """The fields of a model under the keys that a file has for them, in their order."""
    for name, field in model.model_fields.items():
        yield field.alias or name, field, setting_of(field)


def default_of(kind: type, name: str) -> Any:
    """The default of a plan's field, where the default of a setting stands."""
    field = next(field for field in dataclasses.fields(kind) if field.name == name)
    return field.default


def default_text(field: FieldInfo) -> str | None:
    """The default of a field in words; None where it must be set, or where not setting it says enough."""
    setting = setting_of(field)
    if setting.default is not None or field.is_required():
        return setting.default
    default = field.get_default(call_default_factory=True)
    if default is None or default == {} or default == [] or isinstance(default, BaseModel):
        return None
    return duration_text(default) if TIME in field.metadata else str(default)


def choices(kind: Any) -> list[str]:
    """The values of a field that lists them."""
    if get_origin(kind) is Literal:
        return [str(value) for value in get_args(kind)]
    return next((found for part in get_args(kind) if (found := choices(part))), [])


def bounds(field: FieldInfo) -> tuple[int, int] | None:
    """The least and the greatest number that a field takes; None where it takes no whole number."""
    found: dict[type, int] = {}
    for part in _metadata(field):
        if isinstance(part, Ge):
            found[Ge] = int(part.ge)  # type: ignore[call-overload]
        elif isinstance(part, Le):
            found[Le] = int(part.le)  # type: ignore[call-overload]
    return (found[Ge], found[Le]) if len(found) == len({Ge, Le}) else None


def kind_text(field: FieldInfo) -> str:
    """What a value of the field is, in a word or two; empty for a mapping."""
    return next((part.words for part in _metadata(field) if isinstance(part, Kind)), "")


def _metadata(field: FieldInfo) -> Iterator[Any]:
    """What is annotated to a field's type, in any depth."""
    yield from field.metadata
    todo = [field.annotation]
    while todo:
        kind = todo.pop()
        for part in getattr(kind, "__metadata__", ()):
            yield from part.metadata if isinstance(part, FieldInfo) else [part]
        todo += [part for part in get_args(kind) if not isinstance(part, str)]
