"""kernel/stcp.h says what the Python side says: numbers of the wire, options, and the layout of every struct."""

from __future__ import annotations

import enum
import re
from collections.abc import Iterable
from pathlib import Path

import pytest

from stcp_proxy.agent import netlink_abi
from stcp_proxy.protocol import wire
from stcp_proxy.relay import kernel_abi as abi

TEXT = re.sub(r"/\*.*?\*/", "", (Path(__file__).parents[2] / "kernel" / "stcp.h").read_text(), flags=re.DOTALL)


def defines() -> dict[str, int | str]:
    """All #define's with a value, evaluated in the order of the file."""
    values: dict[str, int | str] = {}
    for name, expression in re.findall(r"^#define[ \t]+(\w+)[ \t]+(\S.*)$", TEXT, flags=re.MULTILINE):
        known = re.sub(r"\b[A-Z]\w+\b", lambda match: str(values[match[0]]), expression)
        if known.startswith('"'):
            values[name] = known.strip('"')
            continue
        number = re.sub(r"(\d)ULL\b", r"\1", known)
        assert re.fullmatch(r"[\d\s()+*<~-]+", number), f"{name} is {expression}"
        values[name] = eval(number, {"__builtins__": {}}) % (1 << 64)
    return values


def enumeration(name: str) -> dict[str, int]:
    body = re.search(rf"enum {name} \{{(.*?)\}}", TEXT, flags=re.DOTALL)
    assert body is not None
    return {key: int(value) for key, value in re.findall(r"(\w+)\s*=\s*(\d+)", body[1])}


DEFINES = defines()
CODES = {"__u8": "B", "__u16": "H", "__u32": "I", "__u64": "Q", "__s32": "i"}


def layout(name: str) -> str:
    """A struct of the header in the language of Python's `struct`."""
    body = re.search(rf"struct {name} \{{(.*?)\n\}}", TEXT, flags=re.DOTALL)
    assert body is not None
    out = ""
    for kind, _, length in re.findall(r"^\s*((?:struct )?\w+)\s+(\w+)(?:\[(\w+)\])?;", body[1], flags=re.MULTILINE):
        if kind.startswith("struct "):
            out += layout(kind.removeprefix("struct "))
        elif length:
            assert kind == "__u8"
            out += f"{DEFINES.get(length, length)}s"
        else:
            out += CODES[kind]
    return out


@pytest.mark.parametrize(
    "name",
    [
        "KEY_LEN", "TAG_LEN", "NONCE_LEN", "HEADER_LEN", "MAX_FRAME", "MIN_LENGTH", "MAX_LENGTH", "FRAME_OVERHEAD",
        "MAX_PLAINTEXT", "REKEY_INTERVAL", "REKEY_NONCE", "CODE_LEN", "MAX_TEXT",
    ],
)  # fmt: skip
def test_numbers_of_the_wire(name: str) -> None:
    assert DEFINES[f"STCP_{name}"] == getattr(wire, name)


@pytest.mark.parametrize(
    ("name", "prefix", "python"),
    [
        ("stcp_frame_type", "STCP_FRAME_", [kind for kind in wire.FrameType if kind is not wire.FrameType.BYE]),
        ("stcp_code", "STCP_CODE_", wire.Code),
        ("stcp_end", "STCP_END_", abi.End),
        ("stcp_command", "STCP_CMD_", netlink_abi.Command),
        ("stcp_attr", "STCP_A_", netlink_abi.Attribute),
        ("stcp_socket_role", "STCP_", netlink_abi.SocketRole),
    ],
)
def test_enumerations(name: str, prefix: str, python: Iterable[enum.IntEnum]) -> None:
    """BYE belongs to no connection: the module never sees it in place, and refuses it as an unknown type."""
    assert enumeration(name) == {prefix + member.name: member.value for member in python}


def test_options() -> None:
    assert DEFINES["STCP_ULP_NAME"] == abi.ULP_NAME.decode()
    assert DEFINES["SOL_STCP"] == abi.SOL_STCP
    for name in ("INTERFACE", "RELAY", "RELAY_KEEP", "ABORT", "STATUS", "GIVE_BACK", "MAX_QUEUED"):
        assert DEFINES[f"STCP_{name}"] == getattr(abi, name)


def test_sockets_and_their_agent() -> None:
    assert DEFINES["STCP_GENL_NAME"] == netlink_abi.GENL_NAME
    names = ["PROTOCOL", "GENL_VERSION", "AGENT_INTERFACE", "MAX_NAME", "MAX_PEER", "CHANNEL_ID_LEN", "MAX_WIRE_BYTES"]
    for name in [*names, "PEER", "CHANNEL_ID", "SERVICE", "IDENTITY"]:
        assert DEFINES[f"STCP_{name}"] == getattr(netlink_abi, name)


@pytest.mark.parametrize(
    ("name", "python"),
    [("stcp_relay_args", abi.RELAY_ARGS), ("stcp_abort_args", abi.ABORT_ARGS), ("stcp_status", abi.STATUS_ARGS)],
)
def test_layouts(name: str, python: object) -> None:
    format_ = re.sub(r"[=\s]", "", python.format)  # type: ignore[attr-defined]
    expanded = re.sub(r"(\d+)([A-Za-z])", lambda match: match[0] if match[2] == "s" else match[2] * int(match[1]), format_)
    assert layout(name) == expanded


def test_every_reason_of_the_kernel_is_one_of_the_engines() -> None:
    assert {end.name.lower() for end in abi.End if end is not abi.End.NONE} == {reason.value for reason in abi.REASON.values()}
