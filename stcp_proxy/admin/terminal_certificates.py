"""Certificates in `stcp-proxy status`: those of this side, authorities, revocation lists, and those of connected peers."""

from __future__ import annotations

from rich.console import RenderableType
from rich.text import Text

from stcp_proxy.admin.certificate_schema import CertificateStatus, PeerCertificate
from stcp_proxy.admin.status_schema import Status
from stcp_proxy.admin.terminal_layout import Limits, add_row, may_go_text, names_text, narrow_entry, new_table, unlisted
from stcp_proxy.admin.terminal_text import day, span
from stcp_proxy.admin.terminal_verdict import STYLES
from stcp_proxy.redact import printable


def certificates(status: Status, tunnel: str, limits: Limits, width: int, *, wide: bool) -> list[RenderableType]:
    """The certificates of this side, authorities and revocation lists.

    Args:
        status: the status.
        tunnel: show those of this tunnel alone; empty for all.
        limits: how much of long lists is shown.
        width: columns of the terminal.
        wide: whether to make a table of one line for each.
    """
    found = [each for each in status.certificates if tunnel in ("", *each.tunnels)]
    if len(found) > limits.keys:
        found = sorted(found, key=lambda each: (each.kind != "certificate", not each.overdue, -each.connections))
    shown = found[: limits.keys]
    hidden = unlisted(len(found) - len(shown) if shown else 0, "certificate", "--all shows all")
    if not shown or not wide:
        return [*(_lines(each, status.time, limits, width) for each in shown), *hidden]
    table = new_table("CERTIFICATE", "NAMES", "AUTHORITY", "SERIAL", "ENDS", ">OPEN", "CAN BE REMOVED")
    for each in shown:
        serial = printable(each.serial) or "–"
        first, ends = Text(_title(each), style="bold"), _ends(each, status.time)
        add_row(
            table, first, each.subject, each.issuer, serial, ends, f"{each.connections:,}", may_go_text(each.may_go, each.why)
        )
    return [table, *hidden]


def _lines(each: CertificateStatus, now: float, limits: Limits, width: int) -> Text:
    first: list[str | Text] = [Text(_title(each), style="bold"), printable(each.subject), f"{each.connections:,} open"]
    second: list[str | Text] = [
        *([f"serial {printable(each.serial)}"] if each.serial else []),
        Text.assemble("ends ", _ends(each, now)),
    ]
    if each.issuer != each.subject:
        second.append(f"authority {printable(each.issuer)}")
    third: list[str | Text] = [
        Text.assemble("tunnels ", names_text(each.tunnels, limits.names)),
        Text.assemble("can be removed: ", may_go_text(each.may_go, each.why)),
    ]
    return narrow_entry(first, second, third, width=width)


def peer_certificates(status: Status, tunnel: str, limits: Limits, width: int, *, wide: bool) -> list[RenderableType]:
    """The certificates of peers with open connections. The arguments are those of `certificates`."""
    found = [each for each in status.peer_certificates if tunnel in ("", *each.tunnels)]
    shown = found[: limits.keys]
    hidden = unlisted(len(found) - len(shown) if shown else 0, "certificate", "--all shows all")
    if shown and not tunnel:
        count, how = status.connections_of_others, "`stcp-proxy status --connections N` lists connections"
        hidden += unlisted(count, "connection by further certificates", how, "connections by further certificates")
    if not shown or not wide:
        return [*(_lines_of_peer(each, status.time, limits, width) for each in shown), *hidden]
    table = new_table("PEER", "AUTHORITY", "SERIAL", "ENDS", "TUNNELS", ">OPEN")
    for each in shown:
        ends, tunnels = _ends(each, status.time), names_text(each.tunnels, limits.names, "\n")
        name = Text(printable(each.name), style="bold", overflow="fold")
        add_row(table, name, each.authority, each.serial, ends, tunnels, f"{each.connections:,}")
    return [table, *hidden]


def _lines_of_peer(each: PeerCertificate, now: float, limits: Limits, width: int) -> Text:
    first: list[str | Text] = [Text(printable(each.name), style="bold"), f"{each.connections:,} open"]
    second: list[str | Text] = [
        f"authority {printable(each.authority)}",
        f"serial {printable(each.serial)}",
        Text.assemble("ends ", _ends(each, now)),
        Text.assemble("tunnels ", names_text(each.tunnels, limits.names)),
    ]
    return narrow_entry(first, second, width=width)


def _title(each: CertificateStatus) -> str:
    return each.name if each.kind == "certificate" else f"{each.kind} {printable(each.name)}"


def _ends(each: CertificateStatus | PeerCertificate, now: float) -> Text:
    if each.not_after is None:
        return Text("no end")
    left = each.not_after - now
    text = f"{day(each.not_after)}, {f'in {span(left)}' if left > 0 else f'{span(-left)} ago'}"
    overdue = isinstance(each, CertificateStatus) and each.overdue
    return Text(text, style=STYLES["bad"] if left <= 0 else STYLES["warn"] if overdue else "")
