"""The admin address of a proxy under test."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from harness.process import wait_for
from harness.proxies import Proxy, find_secret
from stcp_proxy.admin.client import ask
from stcp_proxy.config import AdminPlan, Token
from stcp_proxy.net.address import TcpAddress, parse_address


class Admin:
    """Sends requests to the admin address of a proxy. Every answer is searched for all known secrets, and must contain none.

    Args:
        proxy: a proxy that was started with `--admin`.
        token: the token for the requests.
        moved: how often its address was changed before.
    """

    def __init__(self, proxy: Proxy, token: str | None = None, *, moved: int = 0) -> None:
        self.text: str = proxy.wait_log("admin address", count=moved + 1)[moved]["addresses"][0]
        self.plan = AdminPlan(parse_address(self.text, role="to"), None if token is None else Token(token))

    @property
    def address(self) -> tuple[str, int] | str:
        """The admin address in the form that `harness.sockets.connect` takes."""
        address = self.plan.address
        return (address.host, address.port) if isinstance(address, TcpAddress) else address.path

    def ask(self, path: str, method: str = "GET") -> tuple[int, str]:
        """Status and body."""
        status, body = ask(self.plan, path, method=method)
        spelling = find_secret(body)
        assert spelling is None, f"the answer to {path} holds a secret in {spelling}"
        assert self.plan.token is None or self.plan.token.reveal() not in body.decode()
        return status, body.decode()

    def status(self, query: str = "") -> dict[str, Any]:
        """The current `/status`."""
        status, body = self.ask(f"/status{query}")
        assert status == 200, body
        found: dict[str, Any] = json.loads(body)
        return found

    def wait_status(self, true: Callable[[dict[str, Any]], object], words: str) -> dict[str, Any]:
        """The first status for which `true` returns a true value."""
        seen: dict[str, Any] = {}

        def look() -> dict[str, Any] | None:
            seen.update(self.status())
            return seen if true(seen) else None

        try:
            return wait_for(look, words=words)
        except AssertionError as exc:
            raise AssertionError(f"{exc}\n{json.dumps(seen, indent=1)}") from None

    def metrics(self) -> dict[str, dict[tuple[tuple[str, str], ...], float]]:
        """Every sample by its name and its labels, which are sorted by their names."""
        status, body = self.ask("/metrics")
        assert status == 200, body
        found: dict[str, dict[tuple[tuple[str, str], ...], float]] = {}
        for family in text_string_to_metric_families(body):
            for sample in family.samples:
                found.setdefault(sample.name, {})[tuple(sorted(sample.labels.items()))] = sample.value
        return found

    def metric(self, name: str, **labels: str) -> float:
        """The sum of a metric's samples with these labels."""
        return sum(value for known, value in self.metrics().get(name, {}).items() if labels.items() <= dict(known).items())
