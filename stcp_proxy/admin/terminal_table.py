"""`stcp-proxy status` on a terminal: the verdict, then tables. Below 110 columns a table has two lines for each entry instead."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from rich.console import Console, ConsoleOptions, RenderableType
from rich.text import Text

from stcp_proxy.admin.status_schema import ConnectionStatus, KeyStatus, RefusalStatus, Status, Target, TunnelStatus
from stcp_proxy.admin.terminal_certificates import certificates, peer_certificates
from stcp_proxy.admin.terminal_layout import (
    DEFAULT,
    INDENT,
    QUIET,
    Flow,
    Limits,
    add_row,
    may_go_text,
    names_column,
    names_text,
    narrow_entry,
    new_table,
    shortened,
    unlisted,
)
from stcp_proxy.admin.terminal_text import size, span
from stcp_proxy.admin.terminal_verdict import STYLES, lines_of
from stcp_proxy.admin.verdict_schema import Level
from stcp_proxy.redact import printable

WIDE: Final = 110
"""Columns from which the tables have a column for each field."""
_SHORT_KEY: Final = len("stcp-pub:") + 12
_BAD: Final = STYLES["bad"]


@dataclass(frozen=True, slots=True)
class View:
    """A status for a terminal.

    Attributes:
        status: the status.
        before: an earlier status, for rates; None without one.
        limits: how much of long lists is shown.
        tunnel: show this tunnel alone; empty for all.
        busiest: list the busiest tunnels first.
    """

    status: Status
    before: Status | None = None
    limits: Limits = DEFAULT
    tunnel: str = ""
    busiest: bool = False

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[RenderableType]:
        width = options.max_width
        yield Flow([*self._head()], width).text
        yield from lines_of(self.status.verdict, self.status.time, INDENT)
        wide = width >= WIDE
        for title, table in (
            ("Tunnels", self._tunnels(width, wide=wide)),
            ("Connections", self._connections(width, wide=wide)),
            ("Keys", self._keys(width, wide=wide)),
            ("Certificates", certificates(self.status, self.tunnel, self.limits, width, wide=wide)),
            ("Certificates of peers", peer_certificates(self.status, self.tunnel, self.limits, width, wide=wide)),
            ("Refused", self._refusals(width, wide=wide)),
        ):
            if table:
                yield Text()
                yield Text(title, style="bold")
                yield from table

    def _head(self) -> Iterator[str | Text]:
        process = self.status.process
        yield Text(f"stcp-proxy {process.version}", style="bold")
        yield Text(process.state, style=STYLES["ok"] if process.state == "ready" else _BAD)
        yield f"up {span(process.uptime)}"
        pids = [str(worker.pid) if worker.pid else f"worker {worker.number} is silent" for worker in process.workers]
        yield f"pid {', '.join(pids)}"
        yield f"memory {size(sum(worker.memory for worker in process.workers))}"
        yield f"descriptors {sum(worker.descriptors for worker in process.workers):,}"
        for engine in process.engines:
            yield Text(f"engine {engine.choice}: {engine.engine}, {printable(engine.why)}", style=QUIET)

    # -- tunnels --------------------------------------------------------------------------------------------------------------

    def _tunnels(self, width: int, *, wide: bool) -> list[RenderableType]:
        found = [each for each in self.status.tunnels if self.tunnel in ("", each.name)]
        before = {} if self.before is None else {tunnel.name: tunnel for tunnel in self.before.tunnels}
        if len(found) > self.limits.tunnels or self.busiest:
            rank: dict[Level, int] = {"bad": 0, "warn": 1}
            found = sorted(found, key=lambda each: (rank.get(each.level, 2), -self._moved(each, before) if self.busiest else 0))
        shown = found[: self.limits.tunnels]
        hidden = unlisted(len(found) - len(shown), "tunnel", "--tunnel NAME shows one, --all shows all")
        if not wide:
            return [*(narrow_entry(*self._tunnel_lines(each, before.get(each.name)), width=width) for each in shown), *hidden]
        table = new_table("TUNNEL", "LISTENS ON → TO", "PEERS", ">OPEN", ">DONE", ">REFUSED", ">TO WIRE", ">TO PLAIN")
        for each in shown:
            state = Text.assemble((printable(each.name), "bold"), "\n", f"{each.mode} ", _state(each))
            way = Text("\n").join([*self._listening(each), *self._targets(each, arrow="→ ")])
            counts = (_open(each), f"{sum(each.ended.values()):,}", f"{sum(each.refused.values()):,}")
            add_row(table, state, way, Text("\n").join(self._peers(each)), *counts, *self._rates(each, before.get(each.name)))
        return [table, *hidden]

    def _tunnel_lines(self, each: TunnelStatus, before: TunnelStatus | None) -> tuple[list[str | Text], list[str | Text]]:
        up, down = self._rates(each, before)
        refused = sum(each.refused.values())
        first: list[str | Text] = [
            Text(printable(each.name), style="bold"),
            each.mode,
            _state(each),
            _open(each, " open, ", " open"),
        ]
        first += [f"{sum(each.ended.values()):,} done", *([f"{refused:,} refused"] if refused else [])]
        first += [f"to wire {up or '–'}", f"to plain {down or '–'}"]
        return first, [
            Text(", ").join(self._listening(each)),
            *self._targets(each, arrow="→ "),
            Text.assemble("peers ", Text(", ").join(self._peers(each))),
        ]

    def _moved(self, now: TunnelStatus, before: dict[str, TunnelStatus]) -> int:
        was = before.get(now.name)
        total = now.bytes_to_wire + now.bytes_to_plain
        return total if was is None else total - was.bytes_to_wire - was.bytes_to_plain

    def _listening(self, tunnel: TunnelStatus) -> list[Text]:
        """The listening addresses of a tunnel, and its addresses whose socket file is lost."""
        lost = [Text(f"{printable(address)}: socket file lost", style=_BAD) for address in tunnel.lost]
        found = [*lost, *shortened([Text(printable(address)) for address in tunnel.listening], self.limits.names)]
        return found or [Text("listens on nothing", style=_BAD)]

    def _targets(self, tunnel: TunnelStatus, arrow: str) -> list[Text]:
        """The targets of a tunnel, unhealthy ones first where some are left out."""
        targets = tunnel.targets
        if len(targets) > self.limits.names:
            targets = sorted(targets, key=lambda target: target.health != "down")
        return shortened([_target(target, arrow) for target in targets], self.limits.names)

    def _peers(self, tunnel: TunnelStatus) -> list[Text]:
        if tunnel.auth == "psk":
            return [Text("(shared secret)")]
        return shortened([Text(printable(name)) for name in tunnel.peers], self.limits.names)

    # -- connections, keys, refusals ------------------------------------------------------------------------------------------

    def _connections(self, width: int, *, wide: bool) -> list[RenderableType]:
        connections = self.status.connections
        before = {} if self.before is None else {_identity(each): each for each in self.before.connections.shown}
        shown = connections.shown
        hidden = unlisted(connections.total - len(shown) if shown else 0, "connection", "--connections N shows more")
        if not wide:
            return [*(narrow_entry(*self._connection_lines(each, before), width=width) for each in shown), *hidden]
        if not shown:
            return []
        table = new_table("CHANNEL", "TUNNEL", "PEER", "CLIENT → TARGET", "ENGINE", ">AGE", ">TO WIRE", ">TO PLAIN")
        for each in shown:
            way = f"{each.client}\n→ {each.target}" if each.target else each.client
            names = (each.channel or "(opening)", each.tunnel, each.peer or "–", way, each.engine or "–")
            add_row(table, *names, span(each.age), *self._rates(each, before.get(_identity(each))))
        return [table, *hidden]

    def _connection_lines(
        self, each: ConnectionStatus, before: dict[tuple[int, str, str, str], ConnectionStatus]
    ) -> tuple[list[str | Text], list[str | Text]]:
        up, down = self._rates(each, before.get(_identity(each)))
        first: list[str | Text] = [printable(each.channel) or "(opening)", Text(printable(each.tunnel), style="bold")]
        first += [*([f"peer {printable(each.peer)}"] if each.peer else []), span(each.age), each.engine]
        way: list[str | Text] = [printable(each.client), *([f"→ {printable(each.target)}"] if each.target else [])]
        return first, [*way, f"to wire {up or '–'}", f"to plain {down or '–'}"]

    def _keys(self, width: int, *, wide: bool) -> list[RenderableType]:
        keys = [key for key in self.status.keys if self.tunnel in ("", *key.tunnels)]
        if len(keys) > self.limits.keys:
            keys = sorted(keys, key=lambda key: (not key.own, -key.connections, -(key.last_use or 0.0)))
        shown = keys[: self.limits.keys]
        hidden = unlisted(len(keys) - len(shown) if shown else 0, "key", "--all shows all")
        if not shown:
            return []
        if not wide:
            return [*(narrow_entry(*self._key_lines(key), width=width) for key in shown), *hidden]
        columns = (
            names_column("NAME", (key.name for key in shown)),
            names_column("TUNNELS", (name for key in shown for name in key.tunnels)),
        )
        table = new_table("=KEY", *columns, ">OPEN", ">HANDSHAKES", "LAST USE", "CAN BE REMOVED")
        for key in shown:
            tunnels = names_text(key.tunnels, self.limits.names, "\n")
            counts = (f"{key.connections:,}", f"{key.total:,}")
            add_row(table, _short(key), key.name, tunnels, *counts, self._last_use(key), may_go_text(key.may_go, key.why))
        return [table, *hidden]

    def _key_lines(self, key: KeyStatus) -> tuple[list[str | Text], list[str | Text]]:
        tunnels = names_text(key.tunnels, self.limits.names)
        first: list[str | Text] = [Text(printable(key.name), style="bold"), _short(key), f"{key.connections:,} open"]
        first += [f"{key.total:,} handshakes", f"last use: {self._last_use(key)}"]
        return first, [Text.assemble("tunnels ", tunnels), Text.assemble("can be removed: ", may_go_text(key.may_go, key.why))]

    def _last_use(self, key: KeyStatus) -> str:
        if key.connections:
            return "in use"
        return "not since the start" if key.last_use is None else f"{span(self.status.time - key.last_use)} ago"

    def _refusals(self, width: int, *, wide: bool) -> list[RenderableType]:
        found = [each for each in self.status.refusals if self.tunnel in ("", each.tunnel)]
        shown = found[: self.limits.refusals]
        hidden = unlisted(len(found) - len(shown), "kind of refusal", "--all shows all", "kinds of refusals")
        if not shown:
            return []
        if not wide:
            return [*(narrow_entry(*self._refusal_lines(each), width=width) for each in shown), *hidden]
        table = new_table("LAST", ">TIMES", "TUNNEL", "CLIENT", "WHY, AND WHAT TO DO")
        for each in shown:
            parts = [Text(printable(each.why)), *_key_and_remedy(each)]
            names = (f"{self._ago(each.time)}", f"{each.count:,}", each.tunnel, each.client)
            add_row(table, *names, Text("\n").join(parts))
        return [table, *hidden]

    def _refusal_lines(self, each: RefusalStatus) -> tuple[list[str | Text], ...]:
        times = "once" if each.count == 1 else f"{each.count:,} times"
        first: list[str | Text] = [
            Text(printable(each.tunnel), style="bold"),
            printable(each.client),
            self._ago(each.time),
            times,
        ]
        rest: list[list[str | Text]] = [[part] for part in _key_and_remedy(each)]
        return first, [printable(each.why)], *rest

    def _ago(self, at: float) -> str:
        return f"{span(self.status.time - at)} ago"

    def _rates(self, now: TunnelStatus | ConnectionStatus, before: TunnelStatus | ConnectionStatus | None) -> tuple[str, str]:
        """Bytes in each direction: a rate where there is an earlier status, a total otherwise."""
        if self.before is None:
            return size(now.bytes_to_wire), size(now.bytes_to_plain)
        passed = self.status.time - self.before.time
        if before is None or passed <= 0:
            return "", ""
        deltas = (now.bytes_to_wire - before.bytes_to_wire, now.bytes_to_plain - before.bytes_to_plain)
        up, down = (f"{size(max(0, delta) / passed)}/s" for delta in deltas)
        return up, down


def _identity(connection: ConnectionStatus) -> tuple[int, str, str, str]:
    return connection.worker, connection.tunnel, connection.channel, connection.client


def _state(tunnel: TunnelStatus) -> Text:
    return Text(tunnel.state or "serving", style=STYLES[tunnel.level])


def _open(tunnel: TunnelStatus, between: str = "\n", alone: str = "") -> str:
    """Open connections, those among them that are in the handshake, and the wire legs that wait for a connection."""
    idle = f"{between[-2:]}{tunnel.idle_legs:,} idle leg{'s' * (tunnel.idle_legs > 1)}" if tunnel.idle_legs else ""
    return f"{tunnel.open:,}" + (f"{between}{tunnel.proving:,} in handshake" if tunnel.proving else alone) + idle


def _target(target: Target, arrow: str) -> Text:
    """A target, with the service or route that leads to it where it is not the tunnel's own `to`."""
    way = f"{target.service or target.route} " if target.service or target.route else ""
    text = Text(printable(way) + arrow, style=QUIET)
    text.append(printable(target.address), style=_BAD if target.health == "down" else "not dim")
    return text.append(" down" if target.health == "down" else "", style=_BAD)


def _short(key: KeyStatus) -> str:
    return f"{printable(key.key[:_SHORT_KEY])}…"


def _key_and_remedy(refusal: RefusalStatus) -> Iterator[Text]:
    if refusal.key:
        yield Text(printable(refusal.key), overflow="fold")
    if refusal.remedy:
        yield Text(f"→ {printable(refusal.remedy)}", style=QUIET)
