"""`stcp-proxy status` as tables on a terminal, once or live."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from stcp_proxy.admin.client import AdminError
from stcp_proxy.admin.status_schema import ConnectionStatus, Status, Target, TunnelStatus
from stcp_proxy.redact import printable

_REFUSALS: Final = 5
_MAY_GO: Final = {"yes": "yes", "no": "no", "unknown": "not known"}
_SHORT_KEY: Final = len("stcp-pub:") + 12
_GOOD, _BAD, _QUIET = "green", "bold red", "dim"
_UNITS: Final = ("B", "KiB", "MiB", "GiB", "TiB")
_K: Final = 1024


def size(count: float) -> str:
    """Bytes, short: 12 B, 3.4 MiB."""
    unit = 0
    while count >= _K and unit < len(_UNITS) - 1:
        count /= _K
        unit += 1
    return f"{count:.0f} {_UNITS[unit]}" if unit == 0 or count >= 100 else f"{count:.1f} {_UNITS[unit]}"


def span(seconds: float) -> str:
    """A duration, short: 12 s, 3 min 4 s, 2 d 5 h."""
    whole = int(seconds)
    parts = ((whole // 86400, "d"), (whole // 3600 % 24, "h"), (whole // 60 % 60, "min"), (whole % 60, "s"))
    first = next((at for at, (count, _) in enumerate(parts) if count), len(parts) - 1)
    return " ".join(f"{count} {unit}" for count, unit in parts[first : first + 2] if count or unit == "s" == parts[first][1])


@dataclass(frozen=True, slots=True)
class View:
    """A status as tables.

    Attributes:
        status: the status.
        before: an earlier status, for rates; None without one.
    """

    status: Status
    before: Status | None = None

    def __rich__(self) -> RenderableType:
        parts: list[RenderableType] = [self._head(), Text(), self._tunnels()]
        for title, table in (("Connections", self._connections()), ("Keys", self._keys()), ("Refused", self._refusals())):
            if table.row_count:
                parts += [Text(), Text(title, style="bold"), table]
        return Group(*parts)

    def _head(self) -> Text:
        process = self.status.process
        text = Text.assemble((f"stcp-proxy {process.version}", "bold"), "  ")
        text.append(process.state, style=_GOOD if process.state == "ready" else _BAD)
        pids = ", ".join(str(worker.pid) if worker.pid else f"worker {worker.number} is silent" for worker in process.workers)
        text.append(f"  up {span(process.uptime)}  pid {pids}")
        text.append(f"  memory {size(sum(worker.memory for worker in process.workers))}")
        text.append(f"  descriptors {sum(worker.descriptors for worker in process.workers)}")
        for engine in process.engines:
            text.append(f"\nengine {engine.choice}: {engine.engine}, {printable(engine.why)}", style=_QUIET)
        reloads = self.status.reloads
        if reloads.last is not None and not reloads.last.ok:
            text.append(f"\nthe last reload was refused: {printable(reloads.last.what)}", style=_BAD)
        for tunnel in self.status.tunnels:
            if tunnel.rules in ("missing", "outdated"):
                words = f"the rules of interception are {tunnel.rules}: run 'stcp-proxy intercept CONFIG --apply' as root"
                text.append(f"\ntunnel {printable(tunnel.name)}: {words}", style=_BAD)
        return text

    def _tunnels(self) -> Table:
        table = _table(
            "TUNNEL", "MODE", "LISTENS ON", "TO", "PEERS", "ENGINE", ">OPEN", ">DONE", ">REFUSED", ">TO WIRE", ">TO PLAIN"
        )
        before = {} if self.before is None else {tunnel.name: tunnel for tunnel in self.before.tunnels}
        for tunnel in self.status.tunnels:
            rates = self._rates(tunnel, before.get(tunnel.name))
            _row(
                table,
                Text(tunnel.name, style="bold"),
                tunnel.mode,
                _listening(tunnel),
                _targets(tunnel),
                ", ".join(tunnel.peers) or "(shared secret)",
                tunnel.engine,
                f"{tunnel.open}" + (f" ({tunnel.proving} proving)" if tunnel.proving else ""),
                str(sum(tunnel.ended.values())),
                str(sum(tunnel.refused.values())),
                *rates,
            )
        return table

    def _connections(self) -> Table:
        connections = self.status.connections
        table = _table("CHANNEL", "TUNNEL", "PEER", "CLIENT", "TARGET", "ENGINE", ">AGE", ">TO WIRE", ">TO PLAIN")
        before = {} if self.before is None else {_identity(each): each for each in self.before.connections.shown}
        for each in connections.shown:
            rates = self._rates(each, before.get(_identity(each)))
            names = (each.channel or "(opening)", each.tunnel, each.peer, each.client, each.target, each.engine)
            _row(table, *names, span(each.age), *rates)
        hidden = connections.total - len(connections.shown)
        if hidden > 0 and connections.shown:
            _row(table, Text(f"and {hidden} more", style=_QUIET))
        return table

    def _keys(self) -> Table:
        table = _table("KEY", "NAME", "TUNNELS", ">OPEN", ">HANDSHAKES", "LAST USE", "CAN IT GO?")
        for key in self.status.keys:
            used = "not since the start" if key.last_use is None else f"{span(max(0, self.status.time - key.last_use))} ago"
            if key.connections:
                used = "in use"
            answer = Text(_MAY_GO[key.may_go])
            answer.append(f": {printable(key.why)}" if key.why else "", style=_QUIET)
            counts = (str(key.connections), str(key.total))
            _row(table, key.key[:_SHORT_KEY] + "…", key.name, ", ".join(dict.fromkeys(key.tunnels)), *counts, used, answer)
        return table

    def _refusals(self) -> Table:
        table = _table("LAST", ">TIMES", "TUNNEL", "CLIENT", "WHY, AND WHAT TO DO")
        for each in self.status.refusals[:_REFUSALS]:
            words = Text(printable(each.why))
            if each.key:
                words.append(f"\n{each.key}")
            if each.remedy:
                words.append(f"\n{printable(each.remedy)}", style=_QUIET)
            _row(table, f"{span(max(0, self.status.time - each.time))} ago", str(each.count), each.tunnel, each.client, words)
        return table

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


def _targets(tunnel: TunnelStatus) -> Text:
    text = Text()
    for number, target in enumerate(tunnel.targets):
        text.append("\n" if number else "")
        text.append(printable(_way(target)), style=_QUIET)
        text.append(printable(target.address), style=_BAD if target.health == "down" else "")
        text.append(" is down" if target.health == "down" else "", style=_BAD)
    return text


def _way(target: Target) -> str:
    """The service or route that leads to a target; empty for the tunnel's own `to`."""
    return f"{target.service}: " if target.service else f"{target.route} → " if target.route else ""


def _table(*columns: str) -> Table:
    """A table without lines. A column name that begins with > marks a column of numbers."""
    table = Table(box=None, pad_edge=False, header_style=_QUIET)
    for name in columns:
        number = name.startswith(">")
        table.add_column(name.removeprefix(">"), justify="right" if number else "left", no_wrap=number, overflow="fold")
    return table


def _row(table: Table, *cells: str | Text) -> None:
    """Add a row of plain text. Markup and terminal control characters in a cell have no effect."""
    table.add_row(*(cell if isinstance(cell, Text) else Text("\n".join(map(printable, cell.split("\n")))) for cell in cells))


def watch(console: Console, look: Callable[[], Status], seconds: float) -> None:
    """Show a proxy live until interrupted. While the proxy does not answer, wait for it.

    Args:
        console: the terminal.
        look: returns the current status.
        seconds: the time between two calls.
    """
    before: Status | None = None
    with Live(console=console, screen=True, auto_refresh=False) as live:
        while True:
            try:
                now = look()
            except AdminError as exc:
                before = None
                live.update(Text(str(exc), style=_BAD), refresh=True)
            else:
                fresh = before is not None and before.process.started == now.process.started
                live.update(View(now, before if fresh else None), refresh=True)
                before = now
            time.sleep(seconds)


def _listening(tunnel: TunnelStatus) -> Text:
    """The listening addresses of a tunnel, and its addresses whose socket file is lost."""
    lost = [Text(f"{address}: socket file lost", style=_BAD) for address in tunnel.lost]
    return Text("\n").join([*map(Text, tunnel.listening), *lost]) or Text("nothing", style=_BAD)
