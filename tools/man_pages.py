"""Write the manual pages and the shell completions of the command line, made of the commands themselves.

    python tools/man_pages.py FOLDER

FOLDER/man1 gets stcp-proxy.1 and a page for each command; FOLDER/bash, FOLDER/zsh and FOLDER/fish the completions under the names
that these shells look for. The date of the pages is SOURCE_DATE_EPOCH. The markup is that of man(7).
"""

from __future__ import annotations

import datetime
import os
import re
import sys
from pathlib import Path
from typing import Any

import typer
from typer._completion_shared import get_completion_script

from stcp_proxy import __version__
from stcp_proxy.cli import commands

NAME = "stcp-proxy"
_MARKUP = re.compile(r"(?<!\\)\[/?[a-z ]+\]")
"""Of rich, in help texts: `[bold]` and `[/bold]`; `\\[` is a bracket."""
_SHELLS = {"bash": "stcp-proxy", "zsh": "_stcp-proxy", "fish": "stcp-proxy.fish"}


def main(folder: Path) -> None:
    """Write everything into `folder`."""
    pages = folder / "man1"
    pages.mkdir(parents=True, exist_ok=True)
    root: Any = typer.main.get_command(commands.app)
    write_pages(pages, NAME, root, root.make_context(NAME, [], resilient_parsing=True))
    for shell, file in _SHELLS.items():
        path = folder / shell / file
        path.parent.mkdir(exist_ok=True)
        path.write_text(
            get_completion_script(prog_name=NAME, complete_var="_STCP_PROXY_COMPLETE", shell=shell) + "\n", encoding="utf-8"
        )


def write_pages(pages: Path, name: str, command: Any, context: Any) -> None:
    """Write the page of a command, and those of the commands that it has."""
    inner = {}
    if hasattr(command, "list_commands"):
        # The list knows some commands by name alone; `resolve_command` brings their options.
        found = {one: command.resolve_command(context, [one])[1] for one in command.list_commands(context)}
        inner = {one: its for one, its in found.items() if not its.hidden}
    (pages / f"{name}.1").write_text(page(name, command, context, inner), encoding="utf-8")
    for one, its in inner.items():
        write_pages(pages, f"{name}-{one}", its, its.make_context(one, [], parent=context, resilient_parsing=True))


def page(name: str, command: Any, context: Any, inner: dict[str, Any]) -> str:
    """One page.

    Args:
        name: of the page.
        command: that it describes.
        context: of the command.
        inner: commands of this command, by name.

    Returns:
        The text, in the markup of man(7).
    """
    about = paragraphs(command.help or "")
    first = about[0] if about else ""
    usage = " ".join(command.collect_usage_pieces(context))
    lines = [
        f'.TH "{name.upper()}" 1 "{today()}" "{NAME} {__version__}" "User Commands"',
        ".SH NAME",
        f"{escaped(name)} \\- {escaped(first[:1].lower() + first[1:].rstrip('.'))}",
        ".SH SYNOPSIS",
        f".B {escaped(context.command_path)}",
        escaped(usage),
        ".SH DESCRIPTION",
    ]
    for paragraph in about:
        lines += [".PP", text(paragraph)]
    arguments = [record for param in command.get_params(context) if (record := described(param, context))]
    if arguments:
        lines.append(".SH OPTIONS")
    for term, description in arguments:
        lines += [".TP", f".B {escaped(term)}", text(description)]
    if inner:
        lines.append(".SH COMMANDS")
    for one, its in inner.items():
        lines += [".TP", f".BR {escaped(f'{name}-{one}')} (1)", text((paragraphs(its.help or "") or [""])[0])]
    lines += [".SH SEE ALSO", *([f".BR {escaped(NAME)} (1)"] if name != NAME else ["/usr/share/doc/stcp\\-proxy"])]
    return "\n".join(lines) + "\n"


def described(param: Any, context: Any) -> tuple[str, str] | None:
    """What a page says about an option or argument: its name with its value, and its text; None when it is hidden."""
    record: tuple[str, str] | None = param.get_help_record(context)
    return record and (record[0], record[1])


def paragraphs(help_text: str) -> list[str]:
    """The paragraphs of a help text, each in one line, without markup."""
    plain = _MARKUP.sub("", help_text).replace("\\[", "[").replace("\b", "")
    return [" ".join(part.split()) for part in plain.split("\n\n") if part.strip()]


def text(paragraph: str) -> str:
    """A line of running text: none that starts with a control character of roff."""
    return escaped(" ".join(paragraphs(paragraph))) or "\\&"


def escaped(words: str) -> str:
    """Characters that roff would read as markup or typeset as others."""
    words = (
        words.replace("\\", "\\e")
        .replace("-", "\\-")
        .replace("'", "\\(aq")
        .replace("`", "\\(ga")
        .replace("^", "\\(ha")
        .replace("~", "\\(ti")
    )
    return f"\\&{words}" if words.startswith(".") else words


def today() -> str:
    """The date of the pages."""
    return datetime.datetime.fromtimestamp(int(os.environ["SOURCE_DATE_EPOCH"]), datetime.UTC).date().isoformat()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
