"""Checks of `otlp`: the collector, the files, the environment, and whether the library is installed.

The environment never switches spans on: only `otlp` in the file does. A setting that the file leaves out is read from the
variable that programs with OpenTelemetry's SDK read.
"""

from __future__ import annotations

import importlib.util
import os
import re
import ssl
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final
from urllib.parse import unquote, urlsplit

from stcp_proxy.config.certificate_files import read_public_file
from stcp_proxy.config.models import ConfigModel
from stcp_proxy.config.otlp_models import OtlpModel, url_problem
from stcp_proxy.config.otlp_plan import OtlpPlan
from stcp_proxy.config.source import KeyPath, Source
from stcp_proxy.config.token import Token
from stcp_proxy.errors import ConfigError
from stcp_proxy.keys import read_secret_file
from stcp_proxy.net.special_addresses import is_loopback

TRACES: Final = "/v1/traces"
_SERVICE_NAME: Final = "service.name"
_LIBRARY: Final = "opentelemetry.proto.collector.trace.v1"
_HEADER: Final = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
_VALUE: Final = re.compile(r"[\x21-\x7e]([\x20-\x7e]*[\x21-\x7e])?")
_OWN_HEADERS: Final = {"content-type", "content-length", "content-encoding", "host", "connection", "transfer-encoding"}
_MOST_CA: Final = 1 << 20
_MOST_TIMEOUT: Final = 3600.0


def otlp_plan(source: Source, config: ConfigModel, environment: Mapping[str, str] | None = None) -> OtlpPlan | None:
    """The plan of `otlp`; mistakes are noted in the source.

    Args:
        source: collects the mistakes.
        config: the file's model.
        environment: the variables; None for those of this process.
    """
    if config.otlp is None:
        return None
    if not is_installed():
        what = "spans need a library that is not installed: opentelemetry-proto"
        source.report(("otlp",), what, "pip install 'stcp-proxy[otlp]', in the environment of stcp-proxy")
    return _Builder(source, config.otlp, os.environ if environment is None else environment).plan()


def is_installed() -> bool:
    """Whether the extra `otlp` is installed."""
    try:
        return importlib.util.find_spec(_LIBRARY) is not None
    except ImportError:
        return False


class _Builder:
    """Makes the plan of one model."""

    def __init__(self, source: Source, model: OtlpModel, environment: Mapping[str, str]) -> None:
        self._source, self._model, self._environment = source, model, environment

    def plan(self) -> OtlpPlan | None:
        model = self._model
        endpoint, resource = self._endpoint(), dict(self._resource())
        own = self._environment.get("OTEL_SERVICE_NAME", "").strip()
        made = OtlpPlan(
            endpoint="" if endpoint is None else endpoint,
            headers=tuple(self._headers()),
            ca=self._ca(),
            service_name=model.service_name or own or resource.pop(_SERVICE_NAME, "") or OtlpPlan("").service_name,
            attributes=tuple((name, value) for name, value in (resource | model.attributes).items() if name != _SERVICE_NAME),
            sample=model.sample,
            timeout=self._timeout(),
        )
        return None if endpoint is None else made

    def _variable(self, name: str) -> tuple[str, str]:
        """The variable for spans, or else the one for all signals: its name and its value; both empty where none is set."""
        for variable in (f"OTEL_EXPORTER_OTLP_TRACES_{name}", f"OTEL_EXPORTER_OTLP_{name}"):
            if value := self._environment.get(variable, "").strip():
                return variable, value
        return "", ""

    def _report(self, key: str, what: str, remedy: str | None) -> None:
        self._source.report(("otlp", key), what, remedy)

    # -- the collector

    def _endpoint(self) -> str | None:
        """The URL for spans; None after a mistake."""
        endpoint = self._model.endpoint
        if endpoint is not None:
            return self._allowed(endpoint if urlsplit(endpoint).path.endswith(TRACES) else endpoint.rstrip("/") + TRACES)
        variable, endpoint = self._variable("ENDPOINT")
        if not variable:
            what = "'endpoint' is missing, and neither OTEL_EXPORTER_OTLP_TRACES_ENDPOINT nor OTEL_EXPORTER_OTLP_ENDPOINT is set"
            self._report("endpoint", what, "name the collector: 'endpoint: https://HOST:4318'")
            return None
        if (found := url_problem(endpoint)) is not None:
            self._report("endpoint", f"{variable}: {found[0]}", f"correct the variable, or set 'endpoint': {found[1]}")
            return None
        protocol_variable, protocol = self._variable("PROTOCOL")
        if protocol not in ("", "http/protobuf"):
            what = f"{protocol_variable} asks for {protocol}, and this program sends http/protobuf"
            self._report("endpoint", what, "set 'endpoint' to the collector's port for OTLP/HTTP, usually 4318")
            return None
        return self._allowed(endpoint if "_TRACES_" in variable else endpoint.rstrip("/") + TRACES)

    def _allowed(self, endpoint: str) -> str | None:
        """The URL, where it is encrypted, stays on this host, or may be unencrypted."""
        url = urlsplit(endpoint)
        host = url.hostname or ""
        if url.scheme == "https" or self._model.insecure or host == "localhost" or is_loopback(host):
            return endpoint
        what = f"spans would cross the network unencrypted: {endpoint}"
        self._report("endpoint", what, "write 'https:', or say 'insecure: true'")
        return None

    def _timeout(self) -> float:
        if self._model.timeout is not None:
            return self._model.timeout
        variable, text = self._variable("TIMEOUT")
        if not variable:
            return OtlpPlan("").timeout
        try:
            seconds = int(text) / 1000
        except ValueError:
            seconds = 0.0
        if 0 < seconds <= _MOST_TIMEOUT:
            return seconds
        self._report("timeout", f"{variable} is no number of milliseconds", "correct the variable, or set 'timeout'")
        return OtlpPlan("").timeout

    def _ca(self) -> str | None:
        """The certificates that may vouch for the collector."""
        name = self._model.ca or self._variable("CERTIFICATE")[1]
        if not name:
            return None
        try:
            path = self._source.file(name) if self._model.ca else self._source.file(str(Path.cwd() / name))
            text = read_public_file(path, most=_MOST_CA).decode("ascii", "replace")
            ssl.create_default_context(cadata=text)
        except ConfigError as exc:
            self._source.blame(("otlp", "ca"), exc)
        except (ssl.SSLError, ValueError):
            self._report("ca", f"{path} holds no certificate", "name a PEM file with 'BEGIN CERTIFICATE'")
        else:
            return text
        return None

    # -- headers and attributes

    def _headers(self) -> Iterator[tuple[str, Token]]:
        path: KeyPath = ("otlp", "headers_file")
        if self._model.headers_file is not None:
            try:
                content = read_secret_file(self._source.file(self._model.headers_file), kind="headers")
            except ConfigError as exc:
                self._source.blame(path, exc)
                return
            where = self._model.headers_file
            lines = content.decode("ascii", "replace").splitlines()
            pairs = [line.partition(":")[::2] for line in lines if line.strip() and not line.startswith("#")]
        else:
            where, text = self._variable("HEADERS")
            found = [each.partition("=")[::2] for each in text.split(",") if each.strip()]
            pairs = [(unquote(name), unquote(value)) for name, value in found]
        for number, (name, value) in enumerate((name.strip(), value.strip()) for name, value in pairs):
            if not _HEADER.fullmatch(name) or not _VALUE.fullmatch(value):
                what = f"{where}: header {number + 1} is not a name, a separator and a value of printable ASCII characters"
                self._source.report(path, what, "write 'authorization: Bearer …' into the file, one header a line")
            elif name.lower() in _OWN_HEADERS:
                self._source.report(path, f"{where}: the header {name} is this program's own", "remove it")
            else:
                yield name, Token(value)

    def _resource(self) -> Iterator[tuple[str, str]]:
        """The attributes of OTEL_RESOURCE_ATTRIBUTES."""
        for pair in self._environment.get("OTEL_RESOURCE_ATTRIBUTES", "").split(","):
            name, sign, value = pair.partition("=")
            name, value = unquote(name.strip()), unquote(value.strip())
            if sign and name and value and name.isprintable() and value.isprintable():
                yield name[:128], value[:255]
