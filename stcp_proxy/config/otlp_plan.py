"""The plan of spans for a collector of OpenTelemetry."""

from __future__ import annotations

from dataclasses import dataclass

from stcp_proxy.config.token import Token


@dataclass(frozen=True, slots=True)
class OtlpPlan:
    """Where the spans of ended connections go.

    Attributes:
        endpoint: the URL to which spans are sent, its path included.
        headers: names and values of further headers of a request; the values are secrets.
        ca: certificates that may vouch for the collector, as PEM; None for those of the system.
        service_name: the name of the service in every span.
        attributes: further attributes of the resource, by name.
        sample: the share of connections that make a span, 0 to 1.
        timeout: seconds for one request.
    """

    endpoint: str
    headers: tuple[tuple[str, Token], ...] = ()
    ca: str | None = None
    service_name: str = "stcp-proxy"
    attributes: tuple[tuple[str, str], ...] = ()
    sample: float = 1.0
    timeout: float = 10.0

    def __str__(self) -> str:
        text = f"{self.endpoint} as {self.service_name}, a share of {self.sample:g}, timeout {self.timeout:g}s"
        if self.headers:
            text += f", headers {', '.join(name for name, _ in self.headers)}"
        if self.ca is not None:
            text += ", its own authority"
        if self.attributes:
            text += f", attributes {', '.join(f'{name}={value}' for name, value in self.attributes)}"
        return text
