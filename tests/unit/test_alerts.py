"""The alerts and the dashboard's expressions, as Prometheus itself reads them: `promtool` of Debian's package prometheus.

alerts_test.yaml beside this file has series that let each alert fire, and series of a proxy that it is not about.
"""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from harness.software import require

HERE = Path(__file__).resolve().parent
CONFIGS = HERE.parents[1] / "configs"
ALERTS = CONFIGS / "prometheus" / "alerts.yaml"
CASES = HERE / "alerts_test.yaml"


def read(path: Path) -> Any:
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def promtool(*words: str | Path) -> subprocess.CompletedProcess[str]:
    require("promtool")
    return subprocess.run(["promtool", *map(str, words)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=60)


def fires_as_told(folder: Path, alerts: str) -> subprocess.CompletedProcess[str]:
    (folder / "alerts.yaml").write_text(alerts, encoding="utf-8")
    (folder / "cases.yaml").write_text(CASES.read_text(encoding="utf-8"), encoding="utf-8")
    return promtool("test", "rules", folder / "cases.yaml")


def test_prometheus_reads_the_alerts() -> None:
    done = promtool("check", "rules", ALERTS)
    assert done.returncode == 0, done.stdout


def test_each_alert_fires_for_its_fault_alone(tmp_path: Path) -> None:
    done = fires_as_told(tmp_path, ALERTS.read_text(encoding="utf-8"))
    assert done.returncode == 0, done.stdout


def test_no_alert_is_without_a_case() -> None:
    fired = {case["alertname"] for test in read(CASES)["tests"] for case in test["alert_rule_test"] if case["exp_alerts"]}
    assert fired == {rule["alert"] for group in read(ALERTS)["groups"] for rule in group["rules"]}


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ('unless sum by (instance, tunnel) (stcp_targets{health=~"up|unknown"}) > 0', ""),
        ("/ 3)", "/ 9)"),
        ("> 0.2 *", "> 0.02 *"),
        ('reason="unknown_peer"', 'reason="limit"'),
    ],
)
def test_a_mistake_in_an_alert_is_found(tmp_path: Path, right: str, wrong: str) -> None:
    text = ALERTS.read_text(encoding="utf-8")
    assert right in text
    assert fires_as_told(tmp_path, text.replace(right, wrong)).returncode != 0


def rules_of(dashboard: dict[str, Any]) -> dict[str, Any]:
    """The expressions of a dashboard as recording rules, with a value for each variable."""
    names = {"$__rate_interval": "5m", "$instance": ".*", "$tunnel": ".*"}
    found = []
    for panel in dashboard["panels"]:
        for number, target in enumerate(panel["targets"]):
            expression = target["expr"]
            for name, value in names.items():
                expression = expression.replace(name, value)
            assert "$" not in expression
            found.append({"record": f"panel:{panel['id']}:{number}", "expr": expression})
    return {"groups": [{"name": "dashboard", "rules": found}]}


def test_prometheus_reads_the_dashboard(tmp_path: Path) -> None:
    dashboard = json.loads((CONFIGS / "grafana" / "stcp-proxy.json").read_text(encoding="utf-8"))
    rules = tmp_path / "rules.yaml"
    rules.write_text(yaml.safe_dump(rules_of(dashboard)), encoding="utf-8")
    done = promtool("check", "rules", rules)
    assert done.returncode == 0, done.stdout
    dashboard["panels"][0]["targets"][0]["expr"] += ")"
    rules.write_text(yaml.safe_dump(rules_of(dashboard)), encoding="utf-8")
    assert promtool("check", "rules", rules).returncode != 0
