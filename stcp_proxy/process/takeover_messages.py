"""The messages by which a new process takes over the listening sockets of a running one: version 1.

A SOCK_SEQPACKET connection to the unix socket that the file names (`takeover`). A message is one record of JSON, at most
128 KiB; listening sockets travel with it (SCM_RIGHTS), at most 200 in a record.

    new   take     version, program, managed     give me your listening sockets
    old   sockets  handed, last, manager         here they are; several messages, the last says so
          no       why, remedy                   refused, at any time; nothing has changed
    new   serving  taken                         I accept on these, counted from 0
    old   yours                                  I have closed them, and drain

The connection ends before `serving`: the old process goes on as before. It ends after `serving`: the new process serves alone.

`program` is a version, for the log. `managed` says that a service manager watches the new process already. Otherwise `manager`
has the notify socket and the watchdog interval of the old process's manager, and the old process names the new one to it.

`handed` describes each socket: `owner` (tunnel, admin or takeover), `name` of the tunnel, `bind` (the address in the file),
`transparent`, and `made` (the proxy made the file of a unix socket, and removes it).

A receiver checks every field before it uses any. Unknown fields are ignored, so that a later release may add some. A
field that a receiver must understand gets a new version.
"""

from __future__ import annotations

import dataclasses
import json
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from stcp_proxy.errors import ConfigError
from stcp_proxy.net import fd_records

VERSION: Final = 1
MAX_LISTENERS: Final = 16_384
"""Sockets of one takeover: 64 workers with 256 addresses."""
MAX_TEXT: Final = 1024
"""Characters of one text field."""
_VERBS: Final = ("take", "sockets", "no", "serving", "yours")
_OWNERS: Final = ("tunnel", "admin", "takeover")


@dataclass(frozen=True, slots=True)
class Handed:
    """The description of a listening socket.

    Attributes:
        owner: what it serves: ``tunnel``, ``admin`` or ``takeover``.
        name: the tunnel's name; empty for other owners.
        bind: the address in the file.
        transparent: whether it accepts for addresses that are not this host's.
        made: whether the proxy made the file of a unix socket, and removes it at the end.
    """

    owner: str
    name: str
    bind: str
    transparent: bool = False
    made: bool = False


@dataclass(frozen=True, slots=True)
class Manager:
    """The service manager that watches a process.

    Attributes:
        notify: the address of its notify socket, as in NOTIFY_SOCKET.
        watchdog: seconds of silence after which it kills the process; None where it does not watch it.
    """

    notify: str
    watchdog: float | None = None


@dataclass(slots=True)
class Message:
    """A received message with checked fields; those that its verb does not have are empty.

    Attributes:
        verb: see the table above.
        sockets: the listening sockets that travelled with it.
    """

    verb: str
    version: int = 0
    program: str = ""
    managed: bool = False
    handed: tuple[Handed, ...] = ()
    last: bool = True
    manager: Manager | None = None
    why: str = ""
    remedy: str | None = None
    taken: tuple[int, ...] = ()
    sockets: tuple[socket.socket, ...] = ()


def send(sock: socket.socket, verb: str, *, sockets: Sequence[socket.socket] = (), **fields: Any) -> None:
    """Send a message, whole or not at all. Raises OSError."""
    fd_records.send(sock, json.dumps({"verb": verb, **fields}).encode(), sockets)


def send_sockets(
    sock: socket.socket, handed: Sequence[Handed], sockets: Sequence[socket.socket], manager: Manager | None = None
) -> None:
    """Send `sockets` messages for all listening sockets. Raises OSError."""
    step = fd_records.MAX_SOCKETS
    for first in range(0, max(len(sockets), 1), step):
        last = first + step >= len(sockets)
        part = [dataclasses.asdict(each) for each in handed[first : first + step]]
        more = {"manager": dataclasses.asdict(manager)} if last and manager is not None else {}
        send(sock, "sockets", sockets=sockets[first : first + step], handed=part, last=last, **more)


def receive(sock: socket.socket) -> Message | None:
    """The next message; None when the other end is closed.

    Raises:
        ConfigError: it is not of this protocol. Sockets that came with it are closed.
        OSError: nothing has arrived, or in time.
    """
    record = fd_records.receive(sock)
    try:
        if not record.complete:
            raise _bad("a message that did not arrive whole: this process lacks free descriptors, or the message is too long")
        return _parse(record.data, tuple(record.sockets)) if record.data else None
    except BaseException:
        for each in record.sockets:
            each.close()
        raise


def _parse(data: bytes, sockets: tuple[socket.socket, ...]) -> Message:
    try:
        fields = json.loads(data)
    except (ValueError, RecursionError):
        raise _bad("bytes that are no JSON") from None
    if not isinstance(fields, dict) or fields.get("verb") not in _VERBS:
        raise _bad("a message with an unknown verb")
    message = Message(
        verb=fields["verb"],
        version=_number(fields, "version"),
        program=_text(fields, "program"),
        managed=_truth(fields, "managed"),
        handed=parse_handed(fields.get("handed", [])),
        last=_truth(fields, "last"),
        manager=_manager(fields.get("manager")),
        why=_text(fields, "why"),
        remedy=_text(fields, "remedy") or None,
        taken=_indices(fields.get("taken", [])),
        sockets=sockets,
    )
    if len(message.handed) != len(sockets):
        raise _bad(f"{len(sockets)} sockets and {len(message.handed)} descriptions")
    return message


def parse_handed(found: object) -> tuple[Handed, ...]:
    """Descriptions of listening sockets. Raises ConfigError."""
    if not isinstance(found, list) or len(found) > fd_records.MAX_SOCKETS or not all(isinstance(each, dict) for each in found):
        raise _bad("no list of sockets")
    handed = tuple(
        Handed(_text(each, "owner"), _text(each, "name"), _text(each, "bind"), _truth(each, "transparent"), _truth(each, "made"))
        for each in found
    )
    if any(each.owner not in _OWNERS for each in handed):
        raise _bad("a socket of an unknown owner")
    return handed


def _manager(found: object) -> Manager | None:
    if found is None:
        return None
    if not isinstance(found, dict):
        raise _bad("no description of a service manager")
    notify, watchdog = _text(found, "notify"), found.get("watchdog")
    if notify[:1] not in ("/", "@") or not (watchdog is None or (isinstance(watchdog, int | float) and 0 < watchdog < 1e9)):
        raise _bad("no description of a service manager")
    return Manager(notify, watchdog)


def _indices(found: object) -> tuple[int, ...]:
    if not isinstance(found, list) or len(found) > MAX_LISTENERS:
        raise _bad("no list of numbers")
    if not all(type(each) is int and 0 <= each < MAX_LISTENERS for each in found):
        raise _bad("a number that stands for no socket")
    return tuple(found)


def _text(fields: dict[str, Any], name: str) -> str:
    found = fields.get(name) or ""
    if not isinstance(found, str) or len(found) > MAX_TEXT:
        raise _bad(f"a '{name}' that is no short text")
    return found


def _number(fields: dict[str, Any], name: str) -> int:
    found = fields.get(name, 0)
    if type(found) is not int:
        raise _bad(f"a '{name}' that is no number")
    return found


def _truth(fields: dict[str, Any], name: str) -> bool:
    found = fields.get(name, False)
    if not isinstance(found, bool):
        raise _bad(f"a '{name}' that is neither true nor false")
    return found


def _bad(what: str) -> ConfigError:
    return ConfigError(f"the other process sent {what}", remedy="see that both processes are stcp-proxy; restart the proxy")
