"""Every metric and label that the Grafana dashboard and the alert rules name is in a scrape of a proxy that has worked."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from harness.admin import Admin
from harness.proxies import Pair, Proxy
from harness.sockets import Target, connect, read_exactly

from stcp_proxy.admin.metrics import METRICS

ROOT = Path(__file__).resolve().parents[2]
DASHBOARD = ROOT / "configs" / "grafana" / "stcp-proxy.json"
ALERTS = ROOT / "configs" / "prometheus" / "alerts.yaml"
FROM_PROMETHEUS = {"instance", "le"}
_NAME = re.compile(r"\b(?:stcp|process)_[a-z_]+")
_SELECTOR = re.compile(r"\b((?:stcp|process)_[a-z_]+)\{([^}]*)\}")
_BY = re.compile(r"\bby \(([^)]*)\)")

Scrape = dict[str, set[str]]
INTERCEPTION = {"stcp_interception_rules_current": {"tunnel"}, "stcp_egress_filter_attached": {"tunnel"}}
"""A metric of tunnels that intercept; tests/netns/test_rules_seen.py has such a tunnel."""
CERTIFICATES = {f"stcp_certificate_not_{end}_timestamp_seconds": {"kind", "name", "serial"} for end in ("before", "after")}
"""Metrics of proxies with certificates; tests/integration/test_certificates.py has such a proxy."""
AUDITED = {"stcp_audited_connections_total": {"tunnel", "reason"}}
"""A metric of tunnels that audit; tests/integration/test_audit.py has such a tunnel."""
SPANS = {"stcp_spans_total": {"result"}}
"""A metric of proxies that send spans; tests/integration/test_span_collector.py has such proxies."""
OTHERS = INTERCEPTION | CERTIFICATES | AUDITED | SPANS


def dashboard() -> list[str]:
    return [target["expr"] for panel in json.loads(DASHBOARD.read_text())["panels"] for target in panel["targets"]]


def alerts() -> list[str]:
    return [rule["expr"] for group in yaml.safe_load(ALERTS.read_text())["groups"] for rule in group["rules"]]


@pytest.fixture(scope="module")
def scrape(tmp_path_factory: pytest.TempPathFactory, echo: Target) -> Iterator[Scrape]:
    """Names of the metrics of a listening side that has served and refused, with the names of their labels."""
    folder = tmp_path_factory.mktemp("scrape")
    with Pair(folder, echo.to, listen=["--admin", "127.0.0.1:0"]) as pair:
        stranger = ["--key", str(pair.keys.folder / "stranger.key"), "--peer", str(pair.keys.server.public)]
        flags = ["connect", "--bind", "127.0.0.1:0", "--to", pair.listen.addresses[0], *stranger]
        with Proxy(flags, log=folder / "stranger.log") as proxy, connect(proxy.ready().address):
            pair.listen.refused()
        for _ in range(2):
            with connect(pair.address) as sock:
                sock.sendall(b"hello")
                assert read_exactly(sock, 5) == b"hello"
        pair.listen.ended(2)
        found = Admin(pair.listen).metrics()
        assert found.keys().isdisjoint(OTHERS)
        yield {name: {label for labels in samples for label, _ in labels} for name, samples in found.items()} | OTHERS


@pytest.mark.parametrize("expression", [*dashboard(), *alerts()])
def test_what_is_named_is_there(scrape: Scrape, expression: str) -> None:
    names = set(_NAME.findall(expression))
    assert names
    assert names <= scrape.keys()
    for name, selectors in _SELECTOR.findall(expression):
        assert {part.partition("=")[0].strip(" !") for part in selectors.split(",")} - FROM_PROMETHEUS <= scrape[name]
    known = set().union(*(scrape[name] for name in names))
    for labels in _BY.findall(expression):
        assert {label.strip() for label in labels.split(",")} - FROM_PROMETHEUS <= known


def test_every_metric_has_its_help_its_labels_and_a_sample(scrape: Scrape) -> None:
    for name, definition in METRICS.items():
        sample = f"{name}_bucket" if definition.kind == "histogram" else name
        assert scrape[sample] - {"le"} == set(definition.labels)
        assert definition.words.endswith(".")
        assert name.endswith("_total") == (definition.kind == "counter")


def test_the_dashboards_legends_name_labels_that_are_there(scrape: Scrape) -> None:
    for panel in json.loads(DASHBOARD.read_text())["panels"]:
        for target in panel["targets"]:
            known = set().union(*(scrape[name] for name in _NAME.findall(target["expr"])))
            assert set(re.findall(r"{{(\w+)}}", target["legendFormat"])) - FROM_PROMETHEUS <= known


def test_every_metric_and_alert_is_in_the_document() -> None:
    text = (ROOT / "docs" / "ADMIN.md").read_text()
    rules = [rule["alert"] for group in yaml.safe_load(ALERTS.read_text())["groups"] for rule in group["rules"]]
    assert [name for name in (*METRICS, *rules) if f"`{name}`" not in text] == []


def test_every_alert_says_what_to_do() -> None:
    for group in yaml.safe_load(ALERTS.read_text())["groups"]:
        for rule in group["rules"]:
            assert rule["annotations"].keys() >= {"summary", "remedy"}
            assert rule["labels"]["severity"] in ("critical", "warning")
