"""What another process sends is checked before it is used: whatever it is, it is a message, an end, or one kind of failure."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stcp_proxy.errors import ConfigError
from stcp_proxy.net import fd_records
from stcp_proxy.net.peer_credentials import PeerCredentials
from stcp_proxy.process import takeover_messages
from stcp_proxy.process.takeover_messages import Handed, Manager
from stcp_proxy.process.takeover_server import check_peer

Pair = tuple[socket.socket, socket.socket]
HANDED = {"owner": "tunnel", "name": "in", "bind": "127.0.0.1:1", "transparent": False, "made": True}


@pytest.fixture
def pair() -> Iterator[Pair]:
    one, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with one, other:
        other.settimeout(5)
        yield one, other


def test_sockets_arrive_with_their_descriptions(pair: Pair) -> None:
    with socket.socket() as sock:
        handed = [Handed("tunnel", "in", "a:1", True, False), Handed("takeover", "", "unix:/t", made=True)]
        takeover_messages.send_sockets(pair[0], handed, [sock, sock], Manager("/run/notify", 30.0))
        message = takeover_messages.receive(pair[1])
        assert message is not None
        assert message.handed == tuple(handed)
        assert message.last
        assert message.manager == Manager("/run/notify", 30.0)
        assert [each.family for each in message.sockets] == [sock.family] * 2
        for each in message.sockets:
            each.close()


def test_many_sockets_come_in_several_messages(pair: Pair) -> None:
    with socket.socket() as sock:
        many = [Handed("tunnel", str(number), "a:1") for number in range(fd_records.MAX_SOCKETS + 1)]
        takeover_messages.send_sockets(pair[0], many, [sock] * len(many))
        found: list[Handed] = []
        for last in (False, True):
            message = takeover_messages.receive(pair[1])
            assert message is not None
            assert message.last is last
            found += message.handed
            for each in message.sockets:
                each.close()
        assert found == many


def test_no_sockets_are_one_message(pair: Pair) -> None:
    takeover_messages.send_sockets(pair[0], [], [])
    message = takeover_messages.receive(pair[1])
    assert message is not None
    assert (message.handed, message.last, message.manager) == ((), True, None)


def test_an_end(pair: Pair) -> None:
    pair[0].close()
    assert takeover_messages.receive(pair[1]) is None


def test_a_refusal_before_the_question_was_read(pair: Pair) -> None:
    """The kernel reports the reset first, and then the refusal."""
    takeover_messages.send(pair[1], "take", version=1)
    takeover_messages.send(pair[0], "no", why="busy")
    pair[0].close()
    message = takeover_messages.receive(pair[1])
    assert message is not None
    assert (message.verb, message.why) == ("no", "busy")
    assert takeover_messages.receive(pair[1]) is None


BAD: list[Any] = [
    [],
    "take",
    {},
    {"verb": "give"},
    {"verb": ["take"]},
    {"verb": "take", "version": "1"},
    {"verb": "take", "version": True},
    {"verb": "take", "version": 1.5},
    {"verb": "take", "program": 1},
    {"verb": "take", "program": "x" * 1025},
    {"verb": "take", "managed": "yes"},
    {"verb": "sockets", "handed": [HANDED]},  # without its socket
    {"verb": "sockets", "handed": HANDED},
    {"verb": "sockets", "handed": [1]},
    {"verb": "sockets", "handed": [HANDED | {"owner": "stranger"}]},
    {"verb": "sockets", "handed": [HANDED] * 201},
    {"verb": "sockets", "manager": "systemd"},
    {"verb": "sockets", "manager": {"notify": "relative", "watchdog": None}},
    {"verb": "sockets", "manager": {"notify": "/n", "watchdog": 0}},
    {"verb": "sockets", "manager": {"notify": "/n", "watchdog": "30"}},
    {"verb": "serving", "taken": 1},
    {"verb": "serving", "taken": [-1]},
    {"verb": "serving", "taken": [1.0]},
    {"verb": "serving", "taken": [16_384]},
    {"verb": "serving", "taken": list(range(16_385))},
    {"verb": "no", "why": ["x"]},
]


@pytest.mark.parametrize("message", BAD, ids=lambda each: json.dumps(each)[:60])
def test_what_is_refused(pair: Pair, message: Any) -> None:
    pair[0].send(json.dumps(message).encode())
    with pytest.raises(ConfigError, match="the other process sent"):
        takeover_messages.receive(pair[1])


@pytest.mark.parametrize("data", [b"\x00", b"\xff\xfe", b"[" * 100_000, b"{"])
def test_what_is_no_json(pair: Pair, data: bytes) -> None:
    pair[0].send(data)
    with pytest.raises(ConfigError, match="the other process sent"):
        takeover_messages.receive(pair[1])


def test_sockets_of_a_refused_message_are_closed(pair: Pair) -> None:
    one, other = socket.socketpair()
    with one:
        fd_records.send(pair[0], b'{"verb": "take"}', [other])
        other.close()
        with pytest.raises(ConfigError, match="1 sockets and 0 descriptions"):
            takeover_messages.receive(pair[1])
        assert one.recv(1) == b""  # the last copy is gone


VALUES = st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8), st.lists, max_leaves=5)
FIELDS = ("version", "program", "managed", "handed", "last", "manager", "why", "remedy", "taken", "other")
VERBS = st.sampled_from(["take", "sockets", "no", "serving", "yours", "x"])


@given(VERBS, st.dictionaries(st.sampled_from(FIELDS), VALUES))
def test_any_fields(verb: str, fields: dict[str, Any]) -> None:
    one, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with one, other:
        one.send(json.dumps(fields | {"verb": verb}).encode())
        try:
            message = takeover_messages.receive(other)
        except ConfigError:
            return
        assert message is not None
        assert message.verb == verb


def test_a_refused_user_gets_a_remedy_that_helps() -> None:
    """Root refuses a listener of another user, too, so being root is no remedy."""
    with pytest.raises(ConfigError) as found:
        check_peer(PeerCredentials(5, os.geteuid() + 1), "listens at unix:/t")
    assert found.value.remedy == f"run both processes as user {os.geteuid()}"
