"""`stcp-proxy listen`, `connect` and `agent`: one tunnel, or the agent, from options, which are those of the settings' models.

The models take pydantic. So the commands stand in the list as they are named here, and get their options when one of them is
called, helped or completed.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from stcp_proxy.cli import arguments, completion

if TYPE_CHECKING:
    from stcp_proxy.config import Plan
    from stcp_proxy.config.flags import Option

TEXTS: Final = {
    "listen": "Beside the server: accept STCP, hand on plain TCP.",
    "connect": "Beside the client: accept plain TCP, hand on STCP.",
    "agent": "For sockets of the kernel module: do their handshakes.",
}


def register(app: typer.Typer) -> None:
    """Add the commands, still without options."""
    for name, text in TEXTS.items():
        app.command(name, help=text)(_without_options)


def _without_options() -> None:
    raise NotImplementedError("the command is built before it is called")


def build(name: str) -> Any:
    """The command with its options, as click runs it."""
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    app.command(name, help=TEXTS[name])(callback(name))
    return typer.main.get_command(app)


def callback(name: str) -> Callable[..., None]:
    """The function of a command: its parameters are the options of the settings' models."""
    from stcp_proxy.config.flags import AGENT, options

    def work(*, replace: bool = False, **given: Any) -> None:
        from stcp_proxy.cli.serve import serve_plan

        def make() -> Plan:
            from stcp_proxy.config import plan_from_flags

            return plan_from_flags(mode=name, **given)

        raise typer.Exit(serve_plan(make, replace=replace))

    parameters = [_parameter(option) for option in options(name)]
    kind = inspect.Parameter.KEYWORD_ONLY
    if name != AGENT:
        parameters.append(inspect.Parameter("replace", kind, default=False, annotation=arguments.Replace))
    work.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    work.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return work


def _parameter(option: Option) -> inspect.Parameter:
    kind: Any = Path if option.is_file else str
    if option.repeated:
        kind = list[kind]
    if not option.required:
        kind = kind | None
    default = inspect.Parameter.empty if option.required else None
    kind = Annotated[kind, _typer_option(option)]
    return inspect.Parameter(option.parameter, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=kind)


def _typer_option(option: Option) -> Any:
    values = completion.words(*option.choices)
    return typer.Option(
        f"--{option.name}",
        metavar=option.value,
        help=help_text(option).replace("[", "\\["),
        rich_help_panel=option.panel,
        autocompletion=completion.files if option.is_file else values,
        show_default=False,
    )


def help_text(option: Option) -> str:
    """What help says about an option: its text, whether it may be repeated, and what holds without it."""
    repeatable = " [repeatable]" if option.repeated else ""
    default = "" if option.default is None else f" [default: {option.default}]"
    return option.text + repeatable + default
