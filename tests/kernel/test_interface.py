"""What the module refuses, with which errno, and that a refusal leaves both sockets as they were."""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

import pytest

from stcp_proxy.relay import kernel_abi as abi

from .peer import FIN, Relay, args, eventually, read_exactly, references, stat, tcp_pair, ulp
from .refusals import disconnect, refused

Legs = tuple[socket.socket, socket.socket, socket.socket, socket.socket]


@pytest.fixture
def legs() -> Iterator[Legs]:
    """Application, plain leg, wire leg, peer; the protocol is on both legs."""
    app, plain = tcp_pair()
    peer, wire = tcp_pair()
    ulp(plain)
    ulp(wire)
    yield app, plain, wire, peer
    for sock in (app, plain, wire, peer):
        sock.close()


def check_untouched(legs: Legs) -> None:
    app, plain, wire, peer = legs
    for near, far in ((app, plain), (plain, app), (wire, peer), (peer, wire)):
        near.sendall(b"still ours")
        assert read_exactly(far, 10) == b"still ours"


@pytest.mark.parametrize(
    ("changed", "number"),
    [
        ({"interface": 0}, errno.EPROTONOSUPPORT),
        ({"interface": abi.INTERFACE + 1}, errno.EPROTONOSUPPORT),
        ({"size": abi.RELAY_ARGS.size - 1}, errno.EPROTONOSUPPORT),
        ({"flags": 2}, errno.EINVAL),
        ({"flags": abi.RELAY_KEEP, "plain_fd": -1}, errno.EBADF),
        ({"plain_fd": -1}, errno.EBADF),
        ({"plain_fd": 100_000}, errno.EBADF),
        ({"send_counter": (1 << 64) - 1}, errno.EKEYEXPIRED),
        ({"receive_counter": (1 << 64) - 1}, errno.EKEYEXPIRED),
        ({"wire_len": abi.MAX_QUEUED + 1}, errno.EMSGSIZE),
        ({"plain_len": abi.MAX_QUEUED + 1}, errno.EMSGSIZE),
        ({"wire_len": 1 << 31}, errno.EMSGSIZE),
        ({"wire_len": 10, "wire_bytes": 1}, errno.EFAULT),
        ({"plain_len": 10, "plain_bytes": 0}, errno.EFAULT),
        ({"wire_len": 10, "wire_bytes": (1 << 64) - 4096}, errno.EFAULT),
    ],
    ids=str,
)
def test_arguments(legs: Legs, changed: dict[str, int], number: int) -> None:
    raw = args(**{"plain_fd": legs[1].fileno(), **changed})
    before = stat()["RelaysRefused"]
    with refused(number):
        legs[2].setsockopt(abi.SOL_STCP, abi.RELAY, raw)
    assert stat()["RelaysRefused"] == before + 1
    check_untouched(legs)


@pytest.mark.parametrize("size", [0, 1, abi.RELAY_ARGS.size - 1, abi.RELAY_ARGS.size + 1, 4096])
def test_sizes(legs: Legs, size: int) -> None:
    raw = (args(legs[1].fileno()) + bytes(5000))[:size]
    with refused(errno.EPROTONOSUPPORT):
        legs[2].setsockopt(abi.SOL_STCP, abi.RELAY, raw)
    check_untouched(legs)


def test_unknown_options(legs: Legs) -> None:
    wire = legs[2]
    for number in (0, 5, 99):
        with refused(errno.ENOPROTOOPT):
            wire.setsockopt(abi.SOL_STCP, number, b"")
        with refused(errno.ENOPROTOOPT):
            wire.getsockopt(abi.SOL_STCP, number, 4)
    with refused(errno.ENOPROTOOPT):
        wire.getsockopt(abi.SOL_STCP, abi.RELAY, 128)


def test_before_a_handover_there_is_nothing_to_abort_or_ask(legs: Legs) -> None:
    with refused(errno.ENOTCONN):
        legs[2].setsockopt(abi.SOL_STCP, abi.ABORT, bytes(abi.ABORT_ARGS.size))
    with refused(errno.ENOTCONN):
        legs[2].getsockopt(abi.SOL_STCP, abi.STATUS, abi.STATUS_ARGS.size)
    check_untouched(legs)


def test_the_plain_leg_is_the_wire(legs: Legs) -> None:
    with refused(errno.EINVAL):
        legs[2].setsockopt(abi.SOL_STCP, abi.RELAY, args(legs[2].fileno()))
    check_untouched(legs)


Closable = IO[bytes] | socket.socket


def open_file() -> tuple[int, list[Closable]]:
    file = open("/proc/self/exe", "rb")  # noqa: SIM115
    return file.fileno(), [file]


def open_unix() -> tuple[int, list[Closable]]:
    pair = socket.socketpair()
    return pair[0].fileno(), list(pair)


def open_udp() -> tuple[int, list[Closable]]:
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    return sock.fileno(), [sock]


def open_fresh() -> tuple[int, list[Closable]]:
    sock = socket.socket()
    return sock.fileno(), [sock]


def open_without_ulp() -> tuple[int, list[Closable]]:
    pair = tcp_pair()
    return pair[0].fileno(), list(pair)


@pytest.mark.parametrize(
    ("make", "number"),
    [
        (open_file, errno.ENOTSOCK),
        (open_unix, errno.EOPNOTSUPP),
        (open_udp, errno.EOPNOTSUPP),
        (open_fresh, errno.EINVAL),
        (open_without_ulp, errno.EINVAL),
    ],
)
def test_what_a_plain_leg_cannot_be(legs: Legs, make: Callable[[], tuple[int, list[Closable]]], number: int) -> None:
    fd, held = make()
    with refused(number):
        legs[2].setsockopt(abi.SOL_STCP, abi.RELAY, args(fd))
    check_untouched(legs)
    for each in held:
        each.close()


def test_the_protocol_wants_a_connection() -> None:
    with socket.socket() as fresh, refused(errno.ENOTCONN):
        ulp(fresh)
    with socket.create_server(("127.0.0.1", 0)) as listener, refused(errno.ENOTCONN):
        ulp(listener)


def test_the_protocol_is_put_on_once(legs: Legs) -> None:
    with refused(errno.EEXIST):
        ulp(legs[2])
    check_untouched(legs)


def test_another_protocol_is_not_ours() -> None:
    app, plain = tcp_pair()
    peer, wire = tcp_pair()
    plain.setsockopt(socket.SOL_TCP, abi.TCP_ULP, b"tls")
    with refused(errno.EEXIST):
        ulp(plain)
    ulp(wire)
    with refused(errno.EINVAL):
        wire.setsockopt(abi.SOL_STCP, abi.RELAY, args(plain.fileno()))
    for sock in (app, plain, wire, peer):
        sock.close()


def test_keys_twice() -> None:
    r = Relay()
    other = tcp_pair()
    ulp(other[0])
    with refused(errno.EBUSY):
        r.wire.setsockopt(abi.SOL_STCP, abi.RELAY, args(other[0].fileno()))
    r.check_alive()
    r.close()
    for sock in other:
        sock.close()


def test_a_leg_belongs_to_one_relay(legs: Legs) -> None:
    """Neither leg of a relay can be the plain leg of another, nor its plain leg the wire of one."""
    r = Relay(keep_plain=True)
    for taken in (r.plain, r.wire):
        with refused(errno.EBUSY):
            legs[2].setsockopt(abi.SOL_STCP, abi.RELAY, args(taken.fileno()))
    with refused(errno.EBUSY):
        r.plain.setsockopt(abi.SOL_STCP, abi.RELAY, args(legs[1].fileno()))
    r.check_alive()
    check_untouched(legs)
    r.close()


def test_disconnect_is_refused_before_a_handover_too(legs: Legs) -> None:
    for leg in legs[1:3]:
        disconnect(leg)
        with refused(errno.EINVAL):
            leg.listen()


def test_a_longer_struct_is_taken_while_the_rest_is_zero(legs: Legs) -> None:
    """User space that is newer than the module may hand over, unless it uses a field that the module does not know."""
    size = abi.RELAY_ARGS.size + 8
    raw = args(legs[1].fileno(), size=size) + bytes(8)
    with refused(errno.E2BIG):
        legs[2].setsockopt(abi.SOL_STCP, abi.RELAY, raw[:-1] + b"\x01")
    check_untouched(legs)
    legs[2].setsockopt(abi.SOL_STCP, abi.RELAY, raw)
    assert len(legs[2].getsockopt(abi.SOL_STCP, abi.STATUS, abi.STATUS_ARGS.size)) == abi.STATUS_ARGS.size


@pytest.mark.parametrize("size", [1, 4, 7])
def test_a_status_without_its_head_is_refused(size: int) -> None:
    r = Relay()
    with refused(errno.EPROTONOSUPPORT):
        r.wire.getsockopt(abi.SOL_STCP, abi.STATUS, size)
    r.check_alive()
    r.close()


def test_status_tells_how_long_it_is() -> None:
    r = Relay()
    assert len(r.wire.getsockopt(abi.SOL_STCP, abi.STATUS, 1000)) == abi.STATUS_ARGS.size
    assert len(r.wire.getsockopt(abi.SOL_STCP, abi.STATUS, 16)) == 16
    r.close()


def test_abort_checks_its_arguments() -> None:
    r = Relay()
    for raw, number in (
        (abi.ABORT_ARGS.pack(abi.INTERFACE, 7, 257, b""), errno.EINVAL),
        (abi.ABORT_ARGS.pack(abi.INTERFACE, 7, (1 << 32) - 1, b""), errno.EINVAL),
        (abi.ABORT_ARGS.pack(abi.INTERFACE, 0, 0, b""), errno.EINVAL),
        (abi.ABORT_ARGS.pack(abi.INTERFACE, 13, 0, b""), errno.EINVAL),
        (abi.ABORT_ARGS.pack(abi.INTERFACE + 1, 7, 0, b""), errno.EPROTONOSUPPORT),
        (abi.ABORT_ARGS.pack(abi.INTERFACE, 7, 0, b"")[:-1], errno.EPROTONOSUPPORT),
    ):
        with refused(number):
            r.wire.setsockopt(abi.SOL_STCP, abi.ABORT, raw)
    r.check_alive()
    r.wire.setsockopt(abi.SOL_STCP, abi.ABORT, abi.ABORT_ARGS.pack(abi.INTERFACE, 7, 3, b"bye"))
    assert r.read_frame() == (2, b"\x00\x07bye")
    with refused(errno.EALREADY):
        r.wire.setsockopt(abi.SOL_STCP, abi.ABORT, abi.ABORT_ARGS.pack(abi.INTERFACE, 9, 0, b""))
    r.close()


def test_anybody_may_read_the_counters() -> None:
    assert Path("/proc/self/net/stcp_stat").stat().st_mode & 0o777 == 0o444
    before = stat()
    r = Relay()
    r.check_alive()
    assert stat()["RelaysLive"] == before["RelaysLive"] + 1
    r.app.close()
    r.send(FIN)
    r.wait_ended()
    after = stat()
    grown = {name: after[name] - before[name] for name in after if after[name] != before[name]}
    assert grown == {
        "Relays": 1,
        "BytesToWire": 4,
        "BytesToPlain": 4,
        "FramesSealed": 2,
        "FramesOpened": 2,
        "EndFinished": 1,
    }
    r.close()


def test_references_are_given_back() -> None:
    eventually(lambda: references() == 0, "somebody else holds the module")
    r = Relay(keep_plain=True)
    assert references() == 4
    r.app.close()
    r.peer.close()
    r.wait_ended()
    r.wire.close()
    r.plain.close()
    eventually(lambda: references() == 0, "a leg keeps its reference")
