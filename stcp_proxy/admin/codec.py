"""Dataclasses as JSON and back, for `/status` and for the reports that workers send to each other.

A dataclass becomes an object with its fields. A dict whose keys are tuples becomes a list of pairs. `decode` checks every value
against its annotation, because a process must not trust the data of another process. It ignores unknown fields, so an older
reader understands a newer proxy.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import types
from collections.abc import Callable
from typing import Annotated, Any, Literal, TypeVar, Union, cast, get_args, get_origin, get_type_hints

T = TypeVar("T")


def encode(value: Any) -> bytes:
    """The JSON text of a dataclass object."""
    return json.dumps(value, default=_plain, separators=(",", ":")).encode()


def _plain(value: Any) -> Any:
    """A value that JSON can represent, in place of a dataclass object."""
    names, with_pairs = _fields(cast("Any", type(value)))
    found = {name: getattr(value, name) for name in names}
    for name in with_pairs:
        found[name] = list(found[name].items())
    return found


@functools.cache
def _fields(kind: Any) -> tuple[list[str], list[str]]:
    """The names of all fields of a dataclass, and the names of the fields that are dicts with tuples as keys."""
    hints = get_type_hints(kind)
    names = [each.name for each in dataclasses.fields(kind)]
    return names, [name for name in names if _has_tuple_keys(hints[name])]


def _has_tuple_keys(hint: Any) -> bool:
    return get_origin(hint) is dict and get_origin(get_args(hint)[0]) is tuple


def decode(kind: type[T], text: bytes) -> T:
    """Make a dataclass object from its JSON text.

    Raises:
        ValueError: the text is not JSON, or a value does not fit its annotation; the message names the field.
    """
    reader: Reader = _reader(cast("Any", kind))
    found: T = reader(json.loads(text))
    return found


Reader = Callable[[Any], Any]


@functools.cache
def _reader(hint: Any) -> Reader:
    """The function that converts a JSON value to the annotated type."""
    origin, args = get_origin(hint), get_args(hint)
    if origin is Annotated:
        return _reader(args[0])
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        return _object_reader(hint)
    if origin is list:
        return functools.partial(_read_list, _reader(args[0]))
    if origin is dict:
        return functools.partial(_read_dict, _reader(args[0]), _reader(args[1]))
    if origin is tuple:
        return functools.partial(_read_tuple, tuple(map(_reader, args)))
    if origin is Literal:
        return functools.partial(_read_literal, args)
    if origin in (Union, types.UnionType):
        (inner,) = (arg for arg in args if arg is not type(None))
        return functools.partial(_read_optional, _reader(inner))
    return functools.partial(_read_value, hint)


def _object_reader(kind: type) -> Reader:
    readers: dict[str, Reader] = {}
    required = {
        each.name
        for each in dataclasses.fields(kind)
        if each.default is dataclasses.MISSING and each.default_factory is dataclasses.MISSING
    }

    def read(value: Any) -> Any:
        if not readers:
            hints = get_type_hints(kind, include_extras=True)
            readers.update({each.name: _reader(hints[each.name]) for each in dataclasses.fields(kind)})
        if not isinstance(value, dict) or not required <= value.keys():
            raise ValueError(f"{kind.__name__} is not complete")
        found = {}
        for name in required | (readers.keys() & value.keys()):
            try:
                found[name] = readers[name](value[name])
            except ValueError as exc:
                raise ValueError(f"{kind.__name__}.{name}: {exc}") from None
        return kind(**found)

    return read


def _read_list(item: Reader, value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise ValueError("a list belongs here")
    return [item(each) for each in value]


def _read_dict(key: Reader, item: Reader, value: Any) -> dict[Any, Any]:
    if isinstance(value, dict):
        return {key(name): item(each) for name, each in value.items()}
    if isinstance(value, list) and all(isinstance(each, list) and len(each) == 2 for each in value):
        return {key(name): item(each) for name, each in value}
    raise ValueError("an object belongs here")


def _read_tuple(items: tuple[Reader, ...], value: Any) -> tuple[Any, ...]:
    if not isinstance(value, list) or len(value) != len(items):
        raise ValueError(f"a list of {len(items)} belongs here")
    return tuple(read(each) for read, each in zip(items, value, strict=True))


def _read_literal(values: tuple[Any, ...], value: Any) -> Any:
    if value not in values:
        raise ValueError("the value is not known")
    return value


def _read_optional(inner: Reader, value: Any) -> Any:
    return None if value is None else inner(value)


def _read_value(kind: type, value: Any) -> Any:
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if type(value) is not kind:
        raise ValueError(f"{kind.__name__} belongs here")
    return value
