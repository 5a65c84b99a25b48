"""Everything that others build upon, as data: the promise of docs/COMPATIBILITY.md.

    PYTHONPATH=tests python -m harness.interfaces     add what is new to tests/vectors/interfaces.json, before a release

The file holds the interfaces of the releases so far. It may only grow: `broken` compares it with the interfaces of the code.
"""

from __future__ import annotations

import json
import re
import sys
import types
from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, Final, Literal, Union, get_args, get_origin, get_type_hints

import typer
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from stcp_proxy import cli, errors
from stcp_proxy.admin import http_app
from stcp_proxy.admin.metrics import METRICS
from stcp_proxy.admin.status_schema import Status
from stcp_proxy.cli import commands, tunnel_commands
from stcp_proxy.config import Mode, reference
from stcp_proxy.config.setting import bounds, choices, settings
from stcp_proxy.errors import Code, EndReason, LogClass, StcpError
from stcp_proxy.process import application
from stcp_proxy.protocol.wire import FrameType, Suite
from stcp_proxy.spans.span import span_of

ROOT: Final = Path(__file__).resolve().parents[2]
FILE: Final = ROOT / "tests" / "vectors" / "interfaces.json"
LAB: Final = ("demo", "echo", "stress", "bench")
"""Commands without a promise: they measure, or show the product."""
OPTIONAL: Final = "may be left out"
Interfaces = dict[str, dict[str, Any]]
_JSON: Final = {str: "string", int: "number", float: "number", bool: "boolean", list: "array", dict: "object", type(None): "null"}


def today() -> Interfaces:
    """The interfaces of this tree, by section and name."""
    return {
        "settings": dict(_settings()),
        "options": dict(_options()),
        "requests": dict(_requests()),
        "status": dict(_status(Status, "")),
        "metrics": {name: {"kind": one.kind, "labels": list(one.labels)} for name, one in METRICS.items()},
        "reasons": {label: {} for label in sorted(_reasons())},
        "events": {event: {} for event in _events()},
        "spans": dict(_spans()),
        "exit status": {
            "done": 0,
            "failed, or connections were cut off": cli.FAILED,
            "wrong usage or configuration": cli.WRONG_USAGE,
            "run CONFIG -- APP: APP cannot be executed": application.NOT_EXECUTABLE,
            "run CONFIG -- APP: APP was not found": application.NOT_FOUND,
        },
        "wire": {f"{kind.__name__} {one.name}": one.value for kind in (Code, FrameType, Suite) for one in kind},
    }


def broken(frozen: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """The promises of `frozen` that `now` does not keep, one line each.

    Names may be added, and values to a list; a range may become wider; a required setting may become optional, and a new one is
    optional.
    """
    found = list(_missing(frozen, now, ""))
    for section in ("settings", "options"):
        groups = {_group(name) for name in frozen[section]}
        for name in now[section].keys() - frozen[section].keys():
            if _group(name) in groups and not now[section][name].get(OPTIONAL):
                found.append(f"{section}: {name} is new and required, so what works today would be refused")
    return found


def _group(name: str) -> str:
    """The mapping that a setting belongs to, or the command of an option."""
    return name.replace(" ", ".").partition(".")[0]


def _missing(frozen: Any, now: Any, where: str) -> Iterator[str]:
    if isinstance(frozen, dict):
        for name, value in frozen.items():
            here = f"{where}: {name}".removeprefix(": ")
            if not isinstance(now, dict) or name not in now:
                yield f"{here} is gone"
            elif name == "range":
                if now[name][0] > value[0] or now[name][1] < value[1]:
                    yield f"{here} was {value}, and is {now[name]}"
            else:
                yield from _missing(value, now[name], here)
    elif isinstance(frozen, list):
        gone = [value for value in frozen if value not in now]
        if gone:
            yield f"{where} lacks {gone}"
    elif frozen != now:
        yield f"{where} was {frozen!r}, and is {now!r}"


def _settings() -> Iterator[tuple[str, dict[str, Any]]]:
    for _, model in reference.TABLES:
        for key, field, _ in settings(model):
            facts: dict[str, Any] = {}
            if not field.is_required():
                facts[OPTIONAL] = True
                default = field.get_default(call_default_factory=True)
                if isinstance(default, str | int | float):
                    facts["default"] = default
            if values := choices(field.annotation):
                facts["values"] = values
            if found := bounds(field):
                facts["range"] = list(found)
            yield f"{model.__name__.removesuffix('Model').lower()}.{key}", facts


def _options() -> Iterator[tuple[str, dict[str, Any]]]:
    group: Any = typer.main.get_command(commands.app)
    todo = [item for item in group.commands.items() if item[0] not in LAB]
    while todo:
        name, command = todo.pop(0)
        built: Any = tunnel_commands.build(name) if name in tunnel_commands.TEXTS else command
        todo += [(f"{name} {inner}", one) for inner, one in getattr(built, "commands", {}).items()]
        for param in built.params:
            optional = {} if param.required else {OPTIONAL: True}
            if param.param_type_name == "argument":
                yield f"{name} {(param.metavar or param.name).strip('[]').upper()}", optional
                continue
            facts = {"takes a value": not (param.is_flag or param.count), "may be repeated": bool(param.multiple)}
            if "|" in (param.metavar or ""):
                facts["values"] = param.metavar.split("|")
            for option in (*param.opts, *param.secondary_opts):
                yield f"{name} {option}", facts | optional


def _requests() -> Iterator[tuple[str, dict[str, Any]]]:
    backend: Any = None
    for route in http_app.build(backend).routes:
        for method in sorted(getattr(route, "methods", None) or ()):
            path = getattr(route, "path", "")
            if method in ("GET", "POST") and path.count("/") == 1 and "." not in path and "{" not in path:
                yield f"{method} {path}", {}


def _status(kind: type, prefix: str) -> Iterator[tuple[str, str]]:
    """The fields of `/status` with their JSON types: ``tunnels[].targets[].health``."""
    for field in fields(kind):
        hint = get_type_hints(kind)[field.name]
        name = prefix + field.name
        parts = get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)
        yield name, " or ".join(sorted({_json_type(part) for part in parts}))
        for part in parts:
            inner = get_args(part)[-1] if get_origin(part) in (list, dict) else part
            if is_dataclass(inner) and isinstance(inner, type):
                yield from _status(inner, name + ("[]." if get_origin(part) is list else "."))


def _json_type(hint: Any) -> str:
    if is_dataclass(hint):
        return "object"
    origin = get_origin(hint) or hint
    return "string" if origin is Literal else _JSON[origin]


def _reasons() -> set[str]:
    """The labels of refusals and ends, in logs, metrics and `/status`."""
    todo: list[type[StcpError]] = [StcpError]
    found = {end.value for end in EndReason}
    while todo:
        kind = todo.pop()
        if kind.__module__.startswith(errors.__name__):
            found.add(kind.label)
        todo += kind.__subclasses__()
    return found


def _events() -> list[str]:
    """The log events in the table of docs/LOGS.md that the code has, and the classes of silenced lines."""
    source = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "stcp_proxy").rglob("*.py"))
    page = (ROOT / "docs" / "LOGS.md").read_text(encoding="utf-8")
    table = page.partition("## Events of connections and endpoints")[2].partition("\n## ")[0]
    events = [event for event in re.findall(r"^\| `([a-z ]+)` \|", table, re.MULTILINE) if f'"{event}' in source]
    return events + [f"class {each.value}" for each in LogClass]


def _spans() -> Iterator[tuple[str, str | dict[str, str]]]:
    """Names, kinds and attributes of spans, from a connection of each side whose record has every field."""
    texts = ("channel", "peer", "engine", "suite", "leg", "service", "reason", "code", "why")
    record = dict.fromkeys(texts, "00" * 8) | dict.fromkeys(("client", "target", "origin", "original"), "192.0.2.1:1")
    record |= {"tunnel": "TUNNEL", "seconds": 1.0, "ended": 1 << 60, "to_wire": 1, "to_plain": 1, "failed": True}
    for mode in Mode:
        span = span_of(record | {"mode": mode.value})
        attributes = {each.key: str(each.value.WhichOneof("value")).removesuffix("_value") for each in span.attributes}
        yield span.name, {"kind": Span.SpanKind.Name(span.kind)} | attributes


def merged(frozen: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, Any]:
    """Everything of both; `frozen` has to be kept by `now`."""
    return {name: merged(frozen[name], value) if isinstance(frozen.get(name), dict) else value for name, value in now.items()}


def _page(interfaces: Mapping[str, Mapping[str, Any]]) -> str:
    """JSON with a line for each name, so that a difference between two versions reads well."""
    sections = []
    for section, names in interfaces.items():
        lines = ",\n".join(f"  {json.dumps(name)}: {json.dumps(value)}" for name, value in names.items())
        sections.append(f"{json.dumps(section)}: {{\n{lines}\n}}")
    return "{\n" + ",\n".join(sections) + "\n}\n"


if __name__ == "__main__":
    known: Interfaces = json.loads(FILE.read_text()) if FILE.exists() else {}
    if known and (lines := broken(known, today())):
        sys.exit("the file may only grow:\n" + "\n".join(lines))
    FILE.write_text(_page(merged(known, today())))
