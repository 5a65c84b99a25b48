"""`otlp`: its settings, the environment, and mistakes."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from harness.certificates import TestAuthority

from stcp_proxy import keys
from stcp_proxy.config import OtlpPlan, Plan, Token, otlp, plan_bytes
from stcp_proxy.config.diff import difference
from stcp_proxy.config.plan_text import describe_plan

from .plan_files import HEAD, LISTEN, problems

TEXT = HEAD + LISTEN % ""
SECRET = "Bearer k7Yq2mZ5vT9xWb4nRf6cHd8j"


@pytest.fixture(autouse=True)
def _no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("OTEL_")]:
        monkeypatch.delenv(name)


def made(load: Callable[[str], Plan], setting: str) -> OtlpPlan:
    found = load(TEXT + f"otlp: {setting}\n").otlp
    assert found is not None
    return found


def test_without_the_setting_there_are_no_spans(load: Callable[[str], Plan], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "https://collector:4318")
    assert load(TEXT).otlp is None
    assert "spans: none" in describe_plan(load(TEXT))


def test_defaults(load: Callable[[str], Plan]) -> None:
    assert made(load, "{endpoint: https://c:4318}") == OtlpPlan("https://c:4318/v1/traces")


@pytest.mark.parametrize(
    ("endpoint", "url"),
    [
        ("https://c:4318", "https://c:4318/v1/traces"),
        ("https://c:4318/", "https://c:4318/v1/traces"),
        ("https://c/otlp", "https://c/otlp/v1/traces"),
        ("https://c/otlp/v1/traces", "https://c/otlp/v1/traces"),
        ("http://127.0.0.1:4318", "http://127.0.0.1:4318/v1/traces"),
        ("http://localhost:4318", "http://localhost:4318/v1/traces"),
        ("http://[::1]:4318", "http://[::1]:4318/v1/traces"),
    ],
)
def test_endpoints(load: Callable[[str], Plan], endpoint: str, url: str) -> None:
    assert made(load, f"{{endpoint: '{endpoint}'}}").endpoint == url


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("{endpoint: collector:4318}", "no URL of a collector"),
        ("{endpoint: 'https://c:x'}", "no URL"),
        ("{endpoint: 'https://c:99999'}", "no URL"),
        ("{endpoint: 'https://c d'}", "no URL"),
        ("{endpoint: 'grpc://c:4317'}", "no URL of a collector"),
        ("{endpoint: 'https://me:secret@c'}", "'headers_file'"),
        ("{endpoint: 'https://c?token=x'}", "'headers_file'"),
        ("{endpoint: 7}", "URL"),
        ("{endpoint: 'http://collector:4318'}", "unencrypted"),
        ("{}", "'endpoint' is missing"),
        ("{endpoint: https://c, sample: 1.5}", "from 0 to 1"),
        ("{endpoint: https://c, sample: true}", "from 0 to 1"),
        ("{endpoint: https://c, timeout: 0s}", "more than zero"),
        ("{endpoint: https://c, service_name: ''}", "a text belongs here"),
        ("{endpoint: https://c, attributes: [a]}", "names with values"),
        ("{endpoint: https://c, attributes: {a b: c}}", "no name of an attribute"),
        ("{endpoint: https://c, attributes: {a: 7}}", "has no text"),
        ("{endpoint: https://c, attributes: {service.name: x}}", "service_name"),
        ("{endpoint: https://c, headers_file: nowhere}", "does not exist"),
        ("{endpoint: https://c, ca: nowhere}", "does not exist"),
        ("{endpoint: https://c, ca: host.key}", "no certificate"),
        ("{endpoint: https://c, colour: red}", "colour"),
    ],
)
def test_mistakes(load: Callable[[str], Plan], setting: str, words: str) -> None:
    (found,) = problems(load, TEXT + f"otlp: {setting}\n")
    assert words in found
    assert "secret@" not in found


def test_unencrypted_where_the_file_says_so(load: Callable[[str], Plan]) -> None:
    assert made(load, "{endpoint: 'http://10.0.0.1:4318', insecure: true}").endpoint == "http://10.0.0.1:4318/v1/traces"


def test_without_the_library(load: Callable[[str], Plan], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(otlp, "_LIBRARY", "opentelemetry.nothing.here")
    (found,) = problems(load, TEXT + "otlp: {endpoint: https://c}\n")
    assert "not installed" in found
    assert "pip install 'stcp-proxy[otlp]'" in found
    assert load(TEXT).otlp is None


# -- files


def test_headers(load: Callable[[str], Plan], folder: Path) -> None:
    keys.write_secret_file(folder / "headers", f"# for the collector\nauthorization: {SECRET}\n\nx-team:db\n")
    plan = load(TEXT + "otlp: {endpoint: https://c, headers_file: headers}\n")
    assert plan.otlp is not None
    assert plan.otlp.headers == (("authorization", Token(SECRET)), ("x-team", Token("db")))
    assert any(path.endswith("/headers") for path in plan.inputs)
    text = describe_plan(plan)
    assert "headers authorization, x-team" in text
    lines = "\n".join(difference(load(TEXT), plan).lines())
    for shown in (text, lines, repr(plan.otlp), str(plan.otlp)):
        assert SECRET not in shown
    assert plan_bytes.load(plan_bytes.dump(plan)).otlp == plan.otlp


@pytest.mark.parametrize("line", ["authorization", "a b: c", "a: \x07", "a: ü", "a:", "content-type: text/plain", "Host: x"])
def test_headers_that_are_none(load: Callable[[str], Plan], folder: Path, line: str) -> None:
    (folder / "headers").write_text(f"{line}\n")
    (folder / "headers").chmod(0o600)
    (found,) = problems(load, TEXT + "otlp: {endpoint: https://c, headers_file: headers}\n")
    assert "header" in found


def test_headers_that_others_can_read(load: Callable[[str], Plan], folder: Path) -> None:
    (folder / "headers").write_text(f"authorization: {SECRET}\n")
    (folder / "headers").chmod(0o644)
    (found,) = problems(load, TEXT + "otlp: {endpoint: https://c, headers_file: headers}\n")
    assert SECRET not in found
    assert "headers" in found


def test_a_changed_authority_is_a_changed_plan(load: Callable[[str], Plan], folder: Path) -> None:
    setting = "{endpoint: https://c, ca: ca.pem}"
    TestAuthority().bundle(folder / "ca.pem")
    first = made(load, setting)
    TestAuthority().bundle(folder / "ca.pem")
    second = made(load, setting)
    assert first.ca != second.ca
    assert "BEGIN" not in str(first)


# -- the environment

VARIABLES: list[tuple[dict[str, str], str, dict[str, Any]]] = [
    ({"ENDPOINT": "https://c:4318"}, "{}", {"endpoint": "https://c:4318/v1/traces"}),
    ({"ENDPOINT": "https://c", "TRACES_ENDPOINT": "https://d/x"}, "{}", {"endpoint": "https://d/x"}),
    ({"ENDPOINT": "https://c"}, "{endpoint: https://f}", {"endpoint": "https://f/v1/traces"}),
    ({"ENDPOINT": "https://c", "PROTOCOL": "http/protobuf"}, "{}", {"endpoint": "https://c/v1/traces"}),
    ({"ENDPOINT": "http://c:4317", "PROTOCOL": "grpc"}, "{endpoint: https://f}", {"endpoint": "https://f/v1/traces"}),
    ({"HEADERS": "a=b,x-y=c%20d"}, "{endpoint: https://f}", {"headers": (("a", Token("b")), ("x-y", Token("c d")))}),
    ({"HEADERS": "a=b", "TRACES_HEADERS": "c=d"}, "{endpoint: https://f}", {"headers": (("c", Token("d")),)}),
    ({"TIMEOUT": "2500"}, "{endpoint: https://f}", {"timeout": 2.5}),
    ({"TIMEOUT": "2500"}, "{endpoint: https://f, timeout: 3s}", {"timeout": 3.0}),
    ({"TIMEOUT": "x"}, "{endpoint: https://f, timeout: 3s}", {"timeout": 3.0}),
    ({"SERVICE_NAME": "s"}, "{endpoint: https://f}", {"service_name": "s"}),
    ({"SERVICE_NAME": "s"}, "{endpoint: https://f, service_name: t}", {"service_name": "t"}),
    (
        {"RESOURCE_ATTRIBUTES": "service.name=r,a=b%3D,broken,k=v"},
        "{endpoint: https://f, attributes: {k: w}}",
        {"service_name": "r", "attributes": (("a", "b="), ("k", "w"))},
    ),
    (
        {"RESOURCE_ATTRIBUTES": "service.name=r", "SERVICE_NAME": "s"},
        "{endpoint: https://f}",
        {"service_name": "s", "attributes": ()},
    ),
]


def set_variables(monkeypatch: pytest.MonkeyPatch, variables: dict[str, str]) -> None:
    for name, value in variables.items():
        whole = name in ("SERVICE_NAME", "RESOURCE_ATTRIBUTES")
        monkeypatch.setenv(f"OTEL_{name}" if whole else f"OTEL_EXPORTER_OTLP_{name}", value)


@pytest.mark.parametrize(("variables", "setting", "wanted"), VARIABLES)
def test_variables(
    load: Callable[[str], Plan], monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], setting: str, wanted: dict[str, Any]
) -> None:
    set_variables(monkeypatch, variables)
    found = made(load, setting)
    assert {name: getattr(found, name) for name in wanted} == wanted


def test_the_authority_of_a_variable(load: Callable[[str], Plan], folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    TestAuthority().bundle(folder / "env.pem")
    set_variables(monkeypatch, {"CERTIFICATE": str(folder / "env.pem")})
    plan = load(TEXT + "otlp: {endpoint: https://c}\n")
    assert plan.otlp is not None
    assert "BEGIN CERTIFICATE" in (plan.otlp.ca or "")
    assert str(folder / "env.pem") in plan.inputs


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        ({"ENDPOINT": "http://c:4318"}, "unencrypted"),
        ({"ENDPOINT": "c:4318"}, "OTEL_EXPORTER_OTLP_ENDPOINT"),
        ({"ENDPOINT": "http://127.0.0.1:4317", "PROTOCOL": "grpc"}, "asks for grpc"),
        ({"ENDPOINT": "https://c", "TIMEOUT": "soon"}, "OTEL_EXPORTER_OTLP_TIMEOUT"),
        ({"ENDPOINT": "https://c", "TRACES_HEADERS": "a=%0a"}, "OTEL_EXPORTER_OTLP_TRACES_HEADERS"),
    ],
)
def test_mistakes_in_variables(
    load: Callable[[str], Plan], monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], words: str
) -> None:
    set_variables(monkeypatch, variables)
    (found,) = problems(load, TEXT + "otlp: {}\n")
    assert words in found
