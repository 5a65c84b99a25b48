"""The span of one connection, from the record that the proxy wrote when it ended.

The two proxies of a connection make one trace, and nothing is sent between them for it. Both know the channel id, which is public
(docs/PROTOCOL.md, section 1):

- The trace id is the channel id behind eight zero bytes. So the id in a log line finds the trace, and the other way round.
- The span of the connect side has an id that both sides compute from the channel id, and is the parent of the listen side's span.

A connection that ended before the handshake has no channel id: its trace id is random.

The attributes have the names of OpenTelemetry's semantic conventions where there are any, and `stcp.…` otherwise.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Mapping
from typing import Any, Final

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, InstrumentationScope, KeyValue
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, ScopeSpans, Span, Status

from stcp_proxy import __version__
from stcp_proxy.config import Mode
from stcp_proxy.redact import printable, without_keys

_SCOPE: Final = "stcp_proxy"
_CHANNEL_BYTES: Final = 8
_LABEL: Final = b"stcp-proxy connect span "
_AS_THEY_ARE: Final = {
    "tunnel": "stcp.tunnel",
    "channel": "stcp.channel",
    "peer": "stcp.peer",
    "engine": "stcp.engine",
    "suite": "stcp.suite",
    "leg": "stcp.leg",
    "service": "stcp.service",
    "reason": "stcp.end_reason",
    "code": "stcp.wire_code",
    "to_wire": "stcp.bytes_to_wire",
    "to_plain": "stcp.bytes_to_plain",
}
"""Fields of a record, and their attributes."""


def span_of(record: Mapping[str, Any]) -> Span:
    """Make the span of a record.

    Args:
        record: see `stcp_proxy.session.span`.
    """
    mode = Mode(record["mode"])
    channel = record.get("channel", "")
    seconds = max(0, round(record["seconds"] * 1e9))
    end = int(record["ended"])
    span = Span(
        trace_id=trace_id(channel),
        span_id=connect_span_id(channel) if mode is Mode.CONNECT else _random(8),
        parent_span_id=connect_span_id(channel) if mode is Mode.LISTEN and channel else b"",
        name=f"{mode} {record['tunnel']}",
        kind=Span.SPAN_KIND_CLIENT if mode is Mode.CONNECT else Span.SPAN_KIND_SERVER,
        start_time_unix_nano=max(0, end - seconds),
        end_time_unix_nano=end,
        attributes=_pairs(_attributes(record, mode)),
    )
    if record.get("failed"):
        span.status.CopyFrom(Status(code=Status.STATUS_CODE_ERROR, message=without_keys(record.get("why", ""))))
    return span


def trace_id(channel: str) -> bytes:
    """The trace of a connection: 16 bytes."""
    return bytes(16 - _CHANNEL_BYTES) + bytes.fromhex(channel) if channel else _random(16)


def connect_span_id(channel: str) -> bytes:
    """The span of the connect side: 8 bytes. Without a channel id it is random."""
    if not channel:
        return _random(8)
    return hashlib.sha256(_LABEL + channel.encode()).digest()[:8]


def request_of(spans: Iterable[Span], resource: Mapping[str, str]) -> bytes:
    """The body of a request with spans.

    Args:
        spans: the spans.
        resource: attributes that they share.
    """
    scope = ScopeSpans(scope=InstrumentationScope(name=_SCOPE, version=__version__), spans=spans)
    of_one = ResourceSpans(resource=Resource(attributes=_pairs(resource)), scope_spans=[scope])
    return bytes(ExportTraceServiceRequest(resource_spans=[of_one]).SerializeToString())


def _attributes(record: Mapping[str, Any], mode: Mode) -> dict[str, Any]:
    """The attributes of a record, without those that it does not know."""
    client, target = record.get("client", ""), record.get("target", "")
    origin, original = record.get("origin", ""), record.get("original", "")
    found: dict[str, Any] = {"network.transport": "tcp"}
    if mode is Mode.CONNECT:  # the peer is dialled; the client is an application
        found |= _address("network.peer", target) | _address("client", origin or client) | _address("server", original or target)
    else:  # the peer is the client; what is dialled is the server
        found |= _address("network.peer", client) | _address("client", origin or client) | _address("server", target or original)
    found |= {name: record[field] for field, name in _AS_THEY_ARE.items() if record.get(field) not in (None, "")}
    if record.get("failed"):
        found["error.type"] = record.get("reason", "")
    return found


def _address(prefix: str, text: str) -> dict[str, str | int]:
    """An address in the form of the log as two attributes: the address, and the port where there is one."""
    if text in ("", "unix"):  # most clients of a unix socket have no address
        return {}
    host, colon, port = text.rpartition(":")
    if not colon or not port.isascii() or not port.isdigit() or text.startswith(("unix:", "/")):
        return {f"{prefix}.address": text.removeprefix("unix:")}
    return {f"{prefix}.address": host.removeprefix("[").removesuffix("]"), f"{prefix}.port": int(port)}


def _pairs(attributes: Mapping[str, str | int]) -> list[KeyValue]:
    return [KeyValue(key=name, value=_value(value)) for name, value in attributes.items()]


def _value(value: str | int) -> AnyValue:
    return AnyValue(int_value=value) if isinstance(value, int) else AnyValue(string_value=printable(value))


def _random(size: int) -> bytes:
    """Random bytes that are not all zero, which would mean no id."""
    return os.urandom(size - 1) + b"\1" if not any(found := os.urandom(size)) else found
