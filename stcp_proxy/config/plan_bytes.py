"""A plan as bytes, for another process of this program on this machine. The bytes contain secrets: send them only through a pipe.

The format is pickle, restricted to the classes of a plan. The bytes begin with the fields of each class. So a process whose files
were replaced by a different version refuses them instead of confusing fields.
"""

from __future__ import annotations

import dataclasses
import enum
import importlib
import io
import json
import pickle
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

from stcp_proxy.config.plan import Plan
from stcp_proxy.config.token import Token
from stcp_proxy.errors import ConfigError
from stcp_proxy.protocol.secret import Secret

_LENGTH: Final = 8
_PACKAGE: Final = "stcp_proxy."
_NETWORKS: Final = ("IPv4Network", "IPv6Network")


def dump(plan: Plan) -> bytes:
    """Make the bytes of a plan."""
    body = io.BytesIO()
    writer = _Writer(body, protocol=pickle.HIGHEST_PROTOCOL)
    writer.dump(plan)
    fields = json.dumps({_name(kind): _fields(kind) for kind in writer.classes}).encode()
    return len(fields).to_bytes(_LENGTH, "big") + fields + body.getvalue()


def load(data: bytes) -> Plan:
    """Make a plan from the bytes of `dump`.

    Raises:
        ConfigError: a different version of this program made the bytes.
        pickle.UnpicklingError: the bytes contain something that is not part of a plan.
    """
    end = _LENGTH + int.from_bytes(data[:_LENGTH], "big")
    for name, fields in json.loads(data[_LENGTH:end]).items():
        if _known_fields(name) != fields:
            what = f"stcp-proxy was upgraded while this process ran: {name.rpartition(':')[2]} has other fields on disk"
            raise ConfigError(what, remedy="restart the proxy")
    plan = _Reader(io.BytesIO(data[end:])).load()
    if not isinstance(plan, Plan):
        raise pickle.UnpicklingError("the bytes hold no plan")
    return plan


class _Writer(pickle.Pickler):
    """A pickler that also accepts secrets, which refuse other picklers. It notes the dataclasses in the plan."""

    def __init__(self, file: io.BytesIO, protocol: int) -> None:
        super().__init__(file, protocol)
        self.classes: Final[dict[type, None]] = {}

    def reducer_override(self, value: Any) -> Any:
        if isinstance(value, Secret | Token):
            return type(value), (value.reveal(),)
        if isinstance(value, enum.Enum):  # some Python releases use getattr to look up a member, which the reader refuses
            return type(value), (value.value,)
        if isinstance(value, MappingProxyType):
            return _read_only, (dict(value),)
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            self.classes[type(value)] = None
        return NotImplemented


class _Reader(pickle.Unpickler):
    """An unpickler that makes only the classes of a plan."""

    def find_class(self, module: str, name: str) -> Any:
        if module == "ipaddress" and name in _NETWORKS:
            return super().find_class(module, name)
        if module.startswith(_PACKAGE):
            found = super().find_class(module, name)
            if found is _read_only or (isinstance(found, type) and _belongs(found)):
                return found
        raise pickle.UnpicklingError(f"{module}.{name} is no part of a plan")


def _belongs(kind: type) -> bool:
    """Whether objects of this class may be part of a plan."""
    return dataclasses.is_dataclass(kind) or issubclass(kind, enum.Enum | Secret | Token)


def _read_only(items: dict[Any, Any]) -> Mapping[Any, Any]:
    return MappingProxyType(items)


def _name(kind: type) -> str:
    return f"{kind.__module__}:{kind.__qualname__}"


def _fields(kind: Any) -> list[str]:
    return [field.name for field in dataclasses.fields(kind)]


def _known_fields(name: str) -> list[str] | None:
    """The fields of a class in this version; None where this program has no such class."""
    module, _, qualified = name.partition(":")
    if not module.startswith(_PACKAGE):
        return None
    try:
        return _fields(getattr(importlib.import_module(module), qualified))
    except (ImportError, AttributeError, TypeError):
        return None
