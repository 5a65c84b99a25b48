"""`otlp:`, the settings of spans for a collector of OpenTelemetry."""

from __future__ import annotations

import re
from typing import Annotated, Any, Final
from urllib.parse import urlsplit

from pydantic import Field, PlainValidator, WithJsonSchema

from stcp_proxy.config.otlp_plan import OtlpPlan
from stcp_proxy.config.setting import Model, Setting, default_of
from stcp_proxy.config.value_types import Deadline, File, Kind, problem
from stcp_proxy.redact import shown

_MOST_TEXT: Final = 255
_ATTRIBUTE: Final = re.compile(r"[A-Za-z][A-Za-z0-9._/-]{0,127}")


def url_problem(value: object) -> tuple[str, str] | None:
    """What is wrong with the URL of a collector, and the remedy; None for a good one."""
    remedy = "write 'https://HOST:4318'"
    if not isinstance(value, str):
        return "the URL of a collector belongs here", remedy
    try:
        url = urlsplit(value)
        port = url.port
    except ValueError:
        return f"{shown(value)} is no URL", remedy
    if not value.isascii() or not value.isprintable() or " " in value:
        return f"{shown(value)} is no URL", remedy
    if url.scheme not in ("http", "https") or not url.hostname or port == 0:
        return f"{shown(value)} is no URL of a collector", remedy
    if "@" in url.netloc:
        return "the URL contains a user or a password", "put it into 'headers_file', as 'authorization: Basic …'"
    if url.query or url.fragment:
        return "the URL contains '?' or '#'", "leave it out; a secret belongs into 'headers_file'"
    return None


def _url(value: object) -> str:
    if (found := url_problem(value)) is not None:
        raise problem(*found)
    assert isinstance(value, str)  # noqa: S101
    return value


def _text(value: object) -> str:
    if not isinstance(value, str) or not value.strip() or not value.isprintable() or len(value) > _MOST_TEXT:
        raise problem("a text belongs here", f"write up to {_MOST_TEXT} characters on one line; quote a number")
    return value


def _share(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
        raise problem("a share belongs here", "write a number from 0 to 1; 0.1 is every tenth connection")
    return float(value)


def _attributes(value: object) -> dict[str, str]:
    if not isinstance(value, dict):
        raise problem("names with values belong here", "write 'deployment.environment.name: prod'")
    for name, each in value.items():
        if not isinstance(name, str) or not _ATTRIBUTE.fullmatch(name):
            raise problem(f"{shown(name)} is no name of an attribute", "use letters, digits, '.', '_', '-' and '/'")
        if name == "service.name":
            raise problem("the name of the service has a setting of its own", "set 'service_name'")
        try:
            _text(each)
        except Exception:
            raise problem(f"the attribute '{name}' has no text", f"write up to {_MOST_TEXT} characters; quote a number") from None
    return value


_SHORT_TEXT: Final[dict[str, Any]] = {"type": "string", "minLength": 1, "maxLength": _MOST_TEXT}

Url = Annotated[str, PlainValidator(_url), WithJsonSchema({"type": "string", "pattern": "^https?://[^@?#]+$"}), Kind("URL")]
Text = Annotated[str, PlainValidator(_text), WithJsonSchema(_SHORT_TEXT), Kind("text")]
Share = Annotated[
    float, PlainValidator(_share), WithJsonSchema({"type": "number", "minimum": 0, "maximum": 1}), Kind("number from 0 to 1")
]
Attributes = Annotated[
    dict[str, str],
    PlainValidator(_attributes),
    WithJsonSchema(
        {
            "type": "object",
            "propertyNames": {"pattern": f"^{_ATTRIBUTE.pattern}$", "not": {"const": "service.name"}},
            "additionalProperties": _SHORT_TEXT,
        }
    ),
]


class OtlpModel(Model):
    """`otlp:`"""

    endpoint: Annotated[
        Url | None,
        Setting(
            "URL of the collector (OTLP/HTTP). `/v1/traces` is added to it, unless it ends so.",
            default="OTEL_EXPORTER_OTLP_TRACES_ENDPOINT, else OTEL_EXPORTER_OTLP_ENDPOINT",
        ),
    ] = None
    headers_file: Annotated[
        File | None,
        Setting(
            "A file with headers of each request, one a line: `authorization: Bearer …`. Only its owner may read it.",
            default="OTEL_EXPORTER_OTLP_TRACES_HEADERS, else OTEL_EXPORTER_OTLP_HEADERS",
        ),
    ] = None
    ca: Annotated[
        File | None,
        Setting(
            "A PEM file with the certificates that may vouch for the collector.",
            default="OTEL_EXPORTER_OTLP_TRACES_CERTIFICATE, else OTEL_EXPORTER_OTLP_CERTIFICATE, else those of the system",
        ),
    ] = None
    insecure: Annotated[bool, Setting("Whether `http:` may lead to another host: spans then cross the network unencrypted.")] = (
        False
    )
    service_name: Annotated[
        Text | None, Setting("The name of the service in each span.", default="OTEL_SERVICE_NAME, else stcp-proxy")
    ] = None
    attributes: Annotated[
        Attributes,
        Setting("Further attributes of the resource. They are added to those of OTEL_RESOURCE_ATTRIBUTES.", default="none"),
    ] = Field(default_factory=dict)
    sample: Annotated[
        Share, Setting("The share of connections that make a span; both proxies of a connection choose the same ones.")
    ] = default_of(OtlpPlan, "sample")
    timeout: Annotated[
        Deadline | None,
        Setting(
            "Time for one request.",
            default="OTEL_EXPORTER_OTLP_TRACES_TIMEOUT, else OTEL_EXPORTER_OTLP_TIMEOUT (milliseconds), else 10s",
        ),
    ] = None
