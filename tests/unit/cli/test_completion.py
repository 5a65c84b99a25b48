"""Completion at the shell: what bash is given for what has been typed, what is offered, and the scripts of all shells."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin, get_type_hints

import pytest
import typer

from stcp_proxy.cli import commands, completion, tunnel_commands
from stcp_proxy.config import Balance, EngineChoice, LogClass, LogFormat
from stcp_proxy.config.tunnel_models import SuiteName
from stcp_proxy.logs.log import LEVELS

_TYPED = """
complete -p stcp-proxy >/dev/null || exit 9
COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); COMPREPLY=()
_stcp_proxy_completion stcp-proxy "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD-1]}"
printf '%s\\n' "${COMPREPLY[@]}"
"""


def script(shell: str, home: Path) -> str:
    """The script for a shell, as the command generates it."""
    done = subprocess.run(
        [sys.executable, "-m", "stcp_proxy"],
        env={**os.environ, "HOME": str(home), "_STCP_PROXY_COMPLETE": f"source_{shell}"},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return done.stdout


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the command, and the script that bash reads."""
    folder = tmp_path_factory.mktemp("completion")
    command = folder / "stcp-proxy"
    command.write_text(f'#!/bin/sh\nexec {sys.executable} -m stcp_proxy "$@"\n')
    command.chmod(0o755)
    (folder / "script").write_text(script("bash", folder) + _TYPED)
    return folder


def typed(folder: Path, *words: str) -> list[str]:
    """What bash offers after `stcp-proxy` and these words, the last of them under way; bare bash, nothing installed for it."""
    done = subprocess.run(
        ["bash", "--norc", "--noprofile", str(folder / "script"), "stcp-proxy", *words],
        env={"PATH": f"{folder}:{os.environ['PATH']}", "HOME": str(folder)},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert done.stderr == ""
    return done.stdout.split()


def test_bash_commands_options_and_values(folder: Path) -> None:
    assert {"listen", "connect", "run", "check", "doctor", "status"} <= set(typed(folder, ""))
    assert typed(folder, "do") == ["doctor"]
    assert typed(folder, "listen", "--hand") == ["--handshake-timeout"]
    assert typed(folder, "listen", "--bind", ":", "7443", "--engine", "") == ["auto", "kernel", "python"]
    assert typed(folder, "connect", "--engine", "k") == ["kernel"]


@pytest.mark.parametrize("words", [("--engine", "=", "k"), ("--suite", "=", "classic", "--engine", "=", "k")])
def test_bash_takes_an_option_and_its_value_apart(folder: Path, words: tuple[str, ...]) -> None:
    assert typed(folder, "connect", *words) == ["kernel"]


def test_bash_with_nothing_behind_the_sign(folder: Path) -> None:
    assert typed(folder, "connect", "--log-format", "=") == ["text", "json"]


@pytest.mark.parametrize("words", [("run", "conf"), ("doctor", ""), ("listen", "--key", "ho"), ("pubkey", "a")])
def test_files_are_left_to_bash(folder: Path, words: tuple[str, ...]) -> None:
    """Nothing is offered, and `-o default` then means files."""
    assert typed(folder, *words) == []
    assert "complete -o default -F _stcp_proxy_completion stcp-proxy" in (folder / "script").read_text()


@pytest.mark.parametrize("behind", [("--tunnel",), ("--tunnel", "="), ("--watch", "--tunnel")])
def test_bash_offers_the_tunnels_of_the_file(folder: Path, behind: tuple[str, ...]) -> None:
    file = folder / "tunnels.yaml"
    file.write_text("tunnels: {web: {}, work: {}, mail: {}}\n")
    last = () if behind[-1] == "=" else ("",)
    assert typed(folder, "status", str(file), *behind, *last) == ["web", "work", "mail"]
    assert typed(folder, "status", str(file), *behind, "w") == ["web", "work"]
    assert typed(folder, "status", str(folder / "missing.yaml"), *behind, *last) == []


def test_the_other_shells_have_a_script(tmp_path: Path) -> None:
    assert script("zsh", tmp_path).strip().startswith("#compdef stcp-proxy")
    assert script("fish", tmp_path).startswith("complete --command stcp-proxy")


def parameters() -> Iterator[tuple[str, Any, Any]]:
    group: Any = typer.main.get_command(commands.app)
    for name in group.commands:
        command = group.resolve_command(None, [name])[1]
        for parameter in command.params:
            yield f"{name} {parameter.name}", command, parameter


def offered(command: Any, parameter: Any, incomplete: str = "") -> list[str]:
    context = command.make_context("x", [], resilient_parsing=True)
    return [item.value for item in parameter.shell_complete(context, incomplete)]


def callbacks() -> Iterator[tuple[str, Any]]:
    for command in commands.app.registered_commands:
        name = str(command.name)
        yield name, tunnel_commands.callback(name) if name in tunnel_commands.TEXTS else command.callback
    for group in commands.app.registered_groups:
        for command in group.typer_instance.registered_commands if group.typer_instance else ():
            yield f"{group.name} {command.name}", command.callback


def test_every_parameter_that_takes_a_file_leaves_it_to_the_shell() -> None:
    found = {}
    for command, callback in callbacks():
        for name, hint in get_type_hints(callback, include_extras=True).items():
            if get_origin(hint) is Annotated and Path in (get_args(hint)[0], *get_args(get_args(hint)[0])):
                found[f"{command} {name}"] = get_args(hint)[1].autocompletion
    assert {"run config", "listen key", "status admin_token", "bench report", "ca issue out"} <= found.keys()
    assert [name for name, complete in found.items() if complete is not completion.files] == []
    assert completion.files("ho") == []


@pytest.mark.parametrize(
    ("option", "values"),
    [
        ("engine", [*EngineChoice]),
        ("suite", get_args(SuiteName)),
        ("balance", [*Balance]),
        ("quiet", [*LogClass]),
        ("log_level", LEVELS),
        ("log_format", get_args(LogFormat)),
    ],
)
def test_what_is_offered_is_what_the_configuration_takes(option: str, values: tuple[str, ...]) -> None:
    found = [
        (command, parameter) for name, command, parameter in parameters() if name in (f"listen {option}", f"connect {option}")
    ]
    assert len(found) == 2
    for command, parameter in found:
        assert offered(command, parameter) == [str(value) for value in values]


def test_nothing_heavy_is_loaded_for_it() -> None:
    code = (
        "import os, sys; os.environ.update(_STCP_PROXY_COMPLETE='complete_bash', COMP_WORDS='stcp-proxy\\nch', COMP_CWORD='1')\n"
        "import atexit; atexit.register(lambda: print([name for name in HEAVY if name in sys.modules]))\n"
        "HEAVY = ['trio', 'cryptography', 'structlog', 'starlette', 'yaml']\n"
        "from stcp_proxy import cli; cli.main()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout.split("\n")[:2] == ["check", "[]"], done.stderr
