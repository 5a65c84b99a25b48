"""`stcp-proxy echo`, `stress` and `bench`: the lab."""

from __future__ import annotations

import enum
from pathlib import Path
from typing import Annotated, Any

import typer

from stcp_proxy.cli import completion

_PANEL = "The lab (needs the extra stcp-proxy[lab])"
_MODULES = ("stcp_proxy.lab", "hdrh")
"""What the extra and a whole installation bring along."""


class LabMode(enum.StrEnum):
    """What the stress client does after some messages: keeps the connection, or opens a new one."""

    STEADY = "steady"
    CHURN = "churn"


def register(app: typer.Typer) -> None:
    """Add the commands."""
    for command in (echo, stress, bench):
        app.command(command.__name__, rich_help_panel=_PANEL.replace("[", "\\["))(command)


def check_installed() -> None:
    """Refuse to go on where the lab is not installed.

    Raises:
        ConfigError: with what to install.
    """
    from importlib.util import find_spec

    from stcp_proxy.errors import ConfigError

    if any(find_spec(module) is None for module in _MODULES):
        raise ConfigError("the lab is not installed here", remedy="pip install 'stcp-proxy[lab]', or '.[lab]' in a checkout")


def _option(words: str, metavar: str | None = None, **more: Any) -> Any:
    return typer.Option(metavar=metavar, help=words, autocompletion=completion.of(metavar or ""), **more)


_Protocol = Annotated[
    int,
    typer.Option(
        "--socket",
        metavar="N",
        help="Protocol number of the sockets: 253 for those of the kernel module \\[default: TCP].",
        min=0,
        max=255,
        show_default=False,
    ),
]

# -- echo ------------------------------------------------------------------------------------------------------------------


def echo(
    port: Annotated[int, _option("Listen here; 0 takes a free port.", min=0, max=65535)] = 6667,
    host: Annotated[str, _option("Listen on this address.", "ADDRESS")] = "127.0.0.1",
    threads: Annotated[int, _option("Event loops that share the port.", min=1, max=64)] = 1,
    protocol: _Protocol = 0,
) -> None:
    """Send back each message whole: a 4-byte big-endian length and that many bytes, at most 32 MiB."""
    check_installed()
    from stcp_proxy.lab.echo import EchoServer

    with EchoServer(host, port, threads=threads, protocol=protocol) as server:
        typer.echo(f"echo: listening on {host}:{server.port}")
        server.wait_for_signal()


# -- stress ----------------------------------------------------------------------------------------------------------------


def stress(
    port: Annotated[int, _option("Port of the echo server, or of the proxy before it.", min=1, max=65535)] = 6667,
    host: Annotated[str, _option("Its address.", "ADDRESS")] = "127.0.0.1",
    mode: Annotated[LabMode, _option("Keep the connections, or open a new one after so many messages.")] = LabMode.STEADY,
    clients: Annotated[int, _option("Connections at a time, one message under way on each.", min=1)] = 50,
    duration: Annotated[float, _option("Make requests for so many seconds.", min=0.1)] = 70.0,
    msg_size: Annotated[int, _option("Bytes of a message, without its length.", min=1, max=32 << 20)] = 256,
    messages_per_conn: Annotated[int, _option("With churn: messages on a connection.", min=1)] = 500,
    timeout: Annotated[float, _option("Seconds that an answer, or a connection, may take.", min=0.1)] = 10.0,
    report_every: Annotated[float, _option("Seconds between lines of progress; 0 is none.", min=0)] = 0.0,
    raw: Annotated[
        bool, typer.Option("--raw", help="Send messages without the 4-byte length, to a server that echoes bytes as they come.")
    ] = False,
    json_file: Annotated[
        Path | None,
        typer.Option(
            "--json", metavar="FILE", help="Write the result as JSON too; - is standard output.", autocompletion=completion.files
        ),
    ] = None,
    key: Annotated[
        Path | None, _option("Speak STCP straight to a listening proxy: this side's private key; with --peer.", "FILE")
    ] = None,
    peer: Annotated[str | None, _option("The listening proxy's public key.", "PUBKEY")] = None,
    suite: Annotated[str, _option("With --key: the key exchange to send.", "hybrid|classic")] = "hybrid",
    protocol: _Protocol = 0,
) -> None:
    """Exchange messages with an echo server and compare every byte. Exit status 1 when anything went wrong."""
    check_installed()
    from stcp_proxy.lab import channel, display
    from stcp_proxy.lab.mode import Mode
    from stcp_proxy.lab.stress import Options, Run

    options = Options(
        host=host,
        port=port,
        mode=Mode(mode),
        clients=clients,
        duration=duration,
        size=msg_size,
        messages=messages_per_conn,
        timeout=timeout,
        raw=raw,
        protocol=protocol,
    )
    run = Run(options, channel.link_maker(key, peer, suite))
    raise typer.Exit(display.stress(run, report_every=report_every, json_file=json_file))


# -- bench -----------------------------------------------------------------------------------------------------------------


def bench(
    quick: Annotated[
        bool, typer.Option("--quick", help="One short round of everything, under a minute: a look, no proof.")
    ] = False,
    rows: Annotated[str, _option("Rows by name or its beginning, as rt,bulk-1 \\[default: all].", "NAME,…")] = "",
    peers: Annotated[str, _option("Pairs by name, as stcp,haproxy,plain \\[default: all].", "NAME,…")] = "",
    rounds: Annotated[int, _option("Rounds, each measuring everything once; medians are shown.", min=1)] = 5,
    seconds: Annotated[
        float | None, _option("Running time of a sample \\[default: 2; of a reference run, 70; of a soak, 300].", min=0.05)
    ] = None,
    variant: Annotated[
        list[str] | None,
        _option("Measure this project with these options, or another checkout, too; repeatable.", "NAME=[COMMAND] OPTIONS"),
    ] = None,
    root: Annotated[
        list[str] | None,
        _option("Measure the TLS peers of another root file system, too, as haproxy-TAG; repeatable.", "TAG=FOLDER"),
    ] = None,
    json_file: Annotated[
        Path | None,
        typer.Option(
            "--json",
            metavar="FILE",
            help="Write every sample as JSON.",
            autocompletion=completion.files,
        ),
    ] = None,
    report: Annotated[
        Path | None, _option("Write a Markdown report, its plots into a folder beside it (needs matplotlib).", "FILE")
    ] = None,
    growth: Annotated[bool, typer.Option("--growth", help="How cost grows: 1 to 5,000 connections, 64 B to 1 MiB.")] = False,
    ladder: Annotated[bool, typer.Option("--ladder", help="Name the bottleneck: cipher, frames, engine, whole pair.")] = False,
    reference: Annotated[bool, typer.Option("--reference", help="The four reference runs, 70 s each.")] = False,
    soak: Annotated[
        bool, typer.Option("--soak", help="Resident memory under mixed load, five minutes unless --seconds.")
    ] = False,
    floor: Annotated[
        bool, typer.Option("--floor", help="Only the least that must be reached against HAProxy with TLS; status 1 if it is not.")
    ] = False,
) -> None:
    """Measure this project beside its peers on this machine, in turns within the same minutes.

    Pairs: stcp, stcp-kernel, haproxy, nginx, stunnel, spiped, and as yardsticks plain (HAProxy without TLS) and direct
    (no proxy); only when named, splice (plain, splicing in the kernel). Where the opening of a connection is measured, also
    stcp-fresh (--keep off), haproxy-resume, nginx-resume, stunnel-resume. What is not installed is left out and named.
    """
    check_installed()
    from stcp_proxy.lab.bench.run import Options, Task, run

    chosen = {Task.GROWTH: growth, Task.LADDER: ladder, Task.REFERENCE: reference, Task.FLOOR: floor, Task.SOAK: soak}
    tasks = [task for task, wanted in chosen.items() if wanted]
    if len(tasks) > 1:
        raise typer.BadParameter("--growth, --ladder, --reference, --floor and --soak are runs of their own: choose one")
    options = Options(
        task=tasks[0] if tasks else Task.COMPARE,
        rows=_names(rows),
        peers=_names(peers),
        variants=variant or [],
        roots=root or [],
        rounds=rounds,
        seconds=seconds,
        quick=quick,
        json=json_file,
        report=report,
    )
    raise typer.Exit(run(options))


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]
