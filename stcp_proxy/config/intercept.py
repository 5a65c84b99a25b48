"""Checks of a tunnel's `intercept` and of the settings that need it. No keys are read: the host of the rules may not have
them."""

from __future__ import annotations

import ipaddress
from pathlib import Path
from typing import Final

from stcp_proxy.config.model_errors import validate
from stcp_proxy.config.models import ConfigModel
from stcp_proxy.config.plan import CapturePlan
from stcp_proxy.config.source import KeyPath, Source
from stcp_proxy.config.tunnel_models import RouteModel, TunnelModel
from stcp_proxy.config.yaml_file import file_source
from stcp_proxy.errors import ConfigError
from stcp_proxy.net.address import Destination, TcpAddress
from stcp_proxy.net.original import Interception
from stcp_proxy.net.pattern import Pattern

DEFAULT_MARK: Final = 0x5350
"""Default mark of a proxy with tproxy. The next number marks the packets that the rules send to the proxy."""
BELONGING: Final = ("routes", "unmatched", "capture", "exclude", "forwarded", "mark")
"""Settings that are valid only with `intercept`."""
_FAMILIES: Final = {
    "": (True, True),
    "localhost": (True, True),
    "127.0.0.1": (True, False),
    "::1": (False, True),
    "0.0.0.0": (True, False),  # noqa: S104
    "::": (False, True),
}
"""The allowed listening hosts of an intercepting tunnel, with (IPv4, IPv6) for the families of each."""
_LOOPBACK: Final = ("localhost", "127.0.0.1", "::1")
_SYSTEM_TABLES: Final = (253, 254, 255)


def load_capture(path: str | Path) -> CapturePlan:
    """Read what the rules must capture from a file.

    Raises:
        ConfigError: lists every mistake with file, line and key path; or no tunnel in the file intercepts.
    """
    source = file_source(path)
    config = validate(source, ConfigModel)
    found = [capture_plan(source, ("tunnels", name), tunnel) for name, tunnel in config.tunnels.items() if tunnel.intercept]
    check_single(source, config)
    source.raise_findings()
    for plan in found:
        if plan is not None:
            return plan
    raise ConfigError(f"no tunnel of {path} has 'intercept'", remedy="add 'intercept: redirect' and 'routes' to a connect tunnel")


def check_single(source: Source, config: ConfigModel) -> None:
    """Note a second intercepting tunnel: the rules could not tell which traffic belongs to which tunnel."""
    names = [name for name, tunnel in config.tunnels.items() if tunnel.intercept]
    for name in names[1:]:
        what = f"tunnel '{names[0]}' intercepts already, and the rules of a host can send traffic to one tunnel only"
        source.report(("tunnels", name, "intercept"), what, f"add its routes to those of '{names[0]}'")


def check_belonging(source: Source, path: KeyPath, tunnel: TunnelModel) -> bool:
    """Note settings that are invalid with, or without, `intercept`. Returns whether the tunnel intercepts."""
    if tunnel.intercept is None:
        for name in BELONGING:
            if getattr(tunnel, name) is not None:
                source.report((*path, name), f"'{name}' belongs to 'intercept'", "add 'intercept: redirect', or remove it")
        return False
    if tunnel.mode != "connect":
        remedy = "set it on the connect tunnel beside the client"
        source.report((*path, "intercept"), "a listen tunnel intercepts nothing", remedy)
        return False
    if tunnel.accept_proxy_protocol is not None:
        what = "an intercepted client sends no PROXY header"
        source.report((*path, "accept_proxy_protocol"), what, "use another tunnel for the connections of a proxy in front")
    if tunnel.routes is None:
        remedy = "list which destinations go to which peer, with 'match', 'to' and 'peer'"
        source.report((*path, "routes"), "'routes' is missing", remedy)
        return False
    return True


def route_targets(tunnel: TunnelModel, route: RouteModel) -> list[Destination]:
    """The targets of a route: its own `to`, else the tunnel's."""
    return route.to or tunnel.targets


def capture_plan(source: Source, path: KeyPath, tunnel: TunnelModel) -> CapturePlan | None:
    """What the rules must send to an intercepting tunnel; None after a mistake."""
    if not check_belonging(source, path, tunnel):
        return None
    known = len(source.findings)
    how = Interception(tunnel.intercept or "")
    bind = tunnel.bind
    if not isinstance(bind, TcpAddress) or bind.host not in _FAMILIES or bind.port == 0:
        what = f"the rules cannot send connections to {bind}"
        source.report((*path, "bind"), what, "write localhost:PORT, or :PORT where forwarded traffic comes in too")
        return None
    every_interface = bind.host not in _LOOPBACK
    if tunnel.forwarded and how is Interception.REDIRECT and not every_interface:
        what = f"redirected traffic of other hosts arrives at an address of the interface, not at {bind}"
        source.report((*path, "forwarded"), what, f"bind :{bind.port}, or use 'intercept: tproxy'")
    for index, pattern in enumerate(tunnel.exclude or []):
        if pattern.name is not None:
            what = f"{pattern} is a name, and rules hold addresses that do not change"
            source.report((*path, "exclude", index), what, "write its address or network")
    mark = tunnel.mark if tunnel.mark is not None else DEFAULT_MARK if how is Interception.TPROXY else None
    if mark is not None and mark + 1 in _SYSTEM_TABLES:
        source.report((*path, "mark"), f"{mark + 1} is the number of one of the system's routing tables", "choose a larger one")
    if len(source.findings) > known:
        return None
    routes = tunnel.routes or []
    ip4, ip6 = _FAMILIES[bind.host]
    return CapturePlan(
        how=how,
        port=bind.port,
        ip4=ip4,
        ip6=ip6,
        every_interface=every_interface,
        mark=mark,
        only=tuple(dict.fromkeys(_by_port(route.match) for route in routes)) if tunnel.capture == "routes" else None,
        exclude=tuple(tunnel.exclude or ()),
        peers=tuple(dict.fromkeys(peer for route in routes for peer in _numbers(route_targets(tunnel, route)))),
        forwarded=tuple(tunnel.forwarded or ()),
    )


def _by_port(pattern: Pattern) -> Pattern:
    """A pattern that rules can express. For a name, it covers the name's ports on every address: the addresses may change."""
    return pattern if pattern.name is None else Pattern(first=pattern.first, last=pattern.last)


def _numbers(targets: list[Destination]) -> list[Pattern]:
    """The targets with a numeric address. Names are not looked up: a forged answer would leave a permanent gap in the rules.

    Rules have addresses without a zone, so a link-local peer is excluded on every interface.
    """
    found = []
    for target in targets:
        if isinstance(target, TcpAddress):
            try:
                network = ipaddress.ip_network(target.host.partition("%")[0])
            except ValueError:
                continue
            found.append(Pattern(network=network, first=target.port, last=target.port))
    return found
