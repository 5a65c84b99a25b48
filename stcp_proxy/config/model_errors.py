"""Make a model from a source's data, and describe each mistake in our own words at its place."""

from __future__ import annotations

import difflib
import re
import types
from typing import Annotated, Any, Final, TypeVar, Union, get_args, get_origin

from pydantic import ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from stcp_proxy.config.models import ConfigModel
from stcp_proxy.config.setting import Model, bounds
from stcp_proxy.config.source import KeyPath, Source
from stcp_proxy.config.value_types import NO_VARIABLES, VARIABLE

_M = TypeVar("_M", bound=Model)
_NEAR: Final = 0.7
"""Similarity (`difflib`, 0 to 1) from which a known key is suggested for an unknown one."""
_THOUSANDS: Final = {"k": 1_000, "m": 1_000_000}

_MISSING: Final = {
    "mode": "write 'mode: connect' beside the client, 'mode: listen' beside the server",
    "bind": "name the address to accept connections at",
    "to": "name the target of the connections",
    "match": "name the destinations of this route, like 10.0.0.0/8:6379",
    "tunnels": "describe at least one tunnel",
}


def validate(source: Source, kind: type[_M]) -> _M:
    """Make a model from a source's data.

    Raises:
        ConfigProblems: lists every mistake in the form of the data.
    """
    model = None
    try:
        model = kind.model_validate(source.data)
    except ValidationError as exc:
        listed: set[KeyPath] = set()
        for error in exc.errors(include_url=False, include_input=False):
            _explain(source, error, listed)
    source.raise_findings()
    assert model is not None  # noqa: S101  (a ValidationError has at least one error)
    return model


def _explain(source: Source, error: ErrorDetails, listed: set[KeyPath]) -> None:
    """Note a pydantic error. Pydantic's own message is for programmers, so it is only the fallback.

    Args:
        source: collects the mistakes.
        error: the error from pydantic.
        listed: mappings whose keys have been listed already; this function adds to it.
    """
    path: KeyPath = tuple(step for step in error["loc"] if step != "[key]")
    context = error.get("ctx", {})
    value = source.value_at(path)
    if error["type"] != "stcp" and isinstance(value, str) and VARIABLE.search(value):
        source.report(path, NO_VARIABLES, "write the value itself, or make the file with envsubst")
        return
    match error["type"]:
        case "stcp":
            source.report(path, context["what"], context["remedy"])
        case "extra_forbidden":
            source.report(path, "there is no such key", _near(path, listed))
        case "missing":
            source.report(path, f"'{path[-1]}' is missing", _MISSING.get(str(path[-1])))
        case "literal_error":
            source.report(path, f"{context['expected']} belongs here", _spelling(path, value))
        case "model_type" | "dict_type":
            source.report(path, "a mapping belongs here", "write its keys below it, indented")
        case "int_type" | "greater_than_equal" | "less_than_equal":
            source.report(path, _range(path), _number(value))
        case "too_long":
            most = context["max_length"]
            source.report(
                path, f"at most {most} are allowed here, and the file has {context['actual_length']}", "remove the old ones"
            )
        case "too_short":
            source.report(path, "this is empty", "leave it out, or fill it")
        case _:
            source.report(path, error["msg"])


def _range(path: KeyPath) -> str:
    field = _field_at(path)
    found = None if field is None else bounds(field)
    return "a whole number belongs here" if found is None else f"a whole number from {found[0]} to {found[1]} belongs here"


def _number(value: object) -> str | None:
    """The remedy for a number with the suffix k or M: its digits; None for other values."""
    match = re.fullmatch(r"([0-9]{1,6}) ?([kKmM])", value) if isinstance(value, str) else None
    return f"write {int(match[1]) * _THOUSANDS[match[2].lower()]}" if match else None


_OTHER_WORDS: Final = {
    "client": "write connect beside the client",
    "server": "write listen beside the server",
}
"""The names of the two modes in similar programs."""


def _spelling(path: KeyPath, value: object) -> str | None:
    if path[-1] == "bind_mode":
        return "write it in quotes: YAML reads 0660 without quotes as a different number"
    return _OTHER_WORDS.get(value.lower()) if path[-1] == "mode" and isinstance(value, str) else None


# -- unknown keys --------------------------------------------------------------------------------------------------------------

_FOREIGN: Final = {
    "accept": ("bind",),
    "connect": ("to",),
    "target": ("to",),
    "client": ("mode",),
    "cert": ("identity",),
    "key": ("identity",),
    "cafile": ("peers", "allow"),
    "verify": ("peers", "allow"),
    "verifypeer": ("peers", "allow"),
    "checkhost": ("peers", "peer"),
}
"""Settings of stunnel, ghostunnel and spiped, with our keys for the same purpose."""


def _near(path: KeyPath, listed: set[KeyPath]) -> str | None:
    """A suggestion for an unknown key. All keys of a mapping are listed only once."""
    word, known = str(path[-1]), _keys_at(path[:-1])
    if not word.isascii():
        return "type it again: it has a letter that only looks like a Latin one"
    close = difflib.get_close_matches(word.lower().replace("-", "_"), known, n=3, cutoff=_NEAR)
    if close:
        return f"did you mean {' or '.join(map(repr, close))}?"
    if ours := _FOREIGN.get(word.lower()):
        return f"other programs use this name: here it is {' and '.join(map(repr, ours))}"
    if path[:-1] in listed:
        return None
    listed.add(path[:-1])
    return f"known here: {', '.join(known)}"


def _keys_at(path: KeyPath) -> list[str]:
    """The known keys of the mapping at `path`."""
    kind = _kind_at(path)
    assert isinstance(kind, type)  # noqa: S101  (only a model forbids keys)
    assert issubclass(kind, Model)  # noqa: S101
    return [field.alias or name for name, field in kind.model_fields.items()]


def _kind_at(path: KeyPath) -> Any:
    """The type of the value at `path`."""
    kind: Any = ConfigModel
    for step in path:
        kind = _inside(kind)
        if isinstance(kind, type) and issubclass(kind, Model):
            field = _field(kind, step)
            kind = kind.others if field is None else field.annotation
        elif isinstance(step, int) or get_origin(kind) is dict:
            kind = get_args(kind)[-1]
    return _inside(kind)


def _field_at(path: KeyPath) -> FieldInfo | None:
    """The model's field at `path`; None for an entry of a list or of a mapping of names."""
    model = _kind_at(path[:-1])
    return _field(model, path[-1]) if isinstance(model, type) and issubclass(model, Model) else None


def _field(model: type[Model], key: object) -> FieldInfo | None:
    """The field for a key; None for a key that is none of the fields."""
    return next((field for name, field in model.model_fields.items() if key in (name, field.alias)), None)


def _inside(kind: Any) -> Any:
    """A type without its annotations and without None."""
    origin = get_origin(kind)
    if origin is Annotated:
        return _inside(get_args(kind)[0])
    if origin in (Union, types.UnionType):
        return _inside(next(part for part in get_args(kind) if part is not type(None)))
    return kind
