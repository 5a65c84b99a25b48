"""The scenes in order, with the checks of each scene."""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from typing import Any, Final

import trio

from stcp_proxy.demo.screen import Screen, log_words
from stcp_proxy.demo.stage import PATIENCE, DemoFailed, Program, Stage
from stcp_proxy.demo.tap import Item, Recording, Tap
from stcp_proxy.protocol.wire import FRAME_OVERHEAD, FrameType

ORDER: Final = "Transfer 2500 EUR to Alice, for the blue notebook"
SECOND_ORDER: Final = "Transfer 4000 EUR to Bob, for the red bicycle"
_ROUNDS: Final = 300
_BY_CHANCE: Final = 4
"""Bytes of a message that a capture of random bytes may contain by chance. Five or more do so once in millions of demos."""

PICTURE: Final = """\
customer ───── connect ═════ eavesdropper ═════ listen ───── bank
         plain         STCP                STCP        plain"""


@dataclass(frozen=True)
class Cast:
    """The processes and the eavesdropper of the demo.

    Attributes:
        bank: the server application.
        listen: the proxy of the bank.
        connect: the proxy of the customer, which dials through the eavesdropper.
        stranger: the same, with a key that is not allowed.
        direct: a second proxy of the customer, which dials the listening side directly.
        tap: the eavesdropper.
    """

    bank: Program
    listen: Program
    connect: Program
    stranger: Program
    direct: Program
    tap: Tap


async def play(stage: Stage, screen: Screen) -> None:
    """Play all scenes.

    Raises:
        DemoFailed: a check failed.
    """
    screen.title("stcp-proxy demo: real processes on this machine; nothing below is made up", PICTURE)
    async with trio.open_nursery() as nursery:
        cast = await _set_up(stage, screen, nursery)
        await _a_message(stage, screen, cast)
        await _a_stranger(stage, screen, cast)
        await _a_flipped_bit(stage, screen, cast)
        await _figures(stage, screen, cast)
        await _the_end(screen, cast)
        nursery.cancel_scope.cancel()


# -- scenes ----------------------------------------------------------------------------------------------------------------


async def _set_up(stage: Stage, screen: Screen, nursery: trio.Nursery) -> Cast:
    screen.scene("Two hosts, one key each, no certificates")
    keys: dict[str, str] = {}

    async def make_key(name: str) -> None:
        keys[name] = await stage.run("stcp-proxy", "keygen", "--out", f"{name}.key")

    bank = await stage.start("the bank", "app.py", "bank")
    async with trio.open_nursery() as makers:
        for name in ("server", "client", "stranger"):
            makers.start_soon(make_key, name)
    for name in ("server", "client"):
        screen.command(f"stcp-proxy keygen --out {name}.key", keys[name])

    tap = Tap()
    peer = ("--peer", keys["server"], "--keep", "off")  # each connection has a wire leg, and so a recording, of its own
    listen = await _proxy(stage, "listen", await _port(bank), "--key", "server.key", "--allow", f"client={keys['client']}")
    connect = await _proxy(stage, "connect", tap.port, "--key", "client.key", *peer)
    stranger = await _proxy(stage, "connect", tap.port, "--key", "stranger.key", *peer)
    tap.target = await _port(listen)
    nursery.start_soon(tap.serve)
    screen.command(listen.command, f"listening on 127.0.0.1:{tap.target}")
    screen.command(connect.command, f"listening on 127.0.0.1:{await _port(connect)}")
    screen.say(f"Port {tap.port} is the eavesdropper's: it hands every byte on, and keeps a copy.")
    direct = await _proxy(stage, "connect", tap.target, "--key", "client.key", *peer)
    return Cast(bank, listen, connect, stranger, direct, tap)


async def _a_message(stage: Stage, screen: Screen, cast: Cast) -> None:
    screen.scene("A message through, and what an eavesdropper has of it")
    customer = await _customer(stage, cast.connect, ORDER)
    served = await cast.bank.line(event="served", number=1)
    recording = await _recording(cast, 0)
    answer = customer["answers"][0] if customer["answers"] else ""
    screen.side_by_side(recording, _moments(recording, answer))
    screen.say("Open to everybody: that they talk, when, and the bytes left of each |, which are type and length.")
    screen.check(
        served["text"] == ORDER + "\n" and ORDER.removeprefix("Transfer ") in answer and customer["end"] == "EOF",
        "the bank got the order, the customer the answer, both a clean end",
        otherwise=f"the bank got {served}, the customer {customer}",
    )
    plain = f"{served['text']}{answer}\n".encode()
    found = max(_longest_piece(plain, capture) for capture in (recording.up.data, recording.down.data))
    screen.check(
        found <= _BY_CHANCE,
        f"of these {len(plain)} bytes, no piece longer than {found} occurs in the {recording.size:,} bytes captured, "
        "and that much is chance",
        otherwise=f"a piece of {found} bytes is on the wire",
    )
    control = _longest_piece(ORDER.encode(), served["text"].encode())
    screen.check(control == len(ORDER), f"the same search of what the bank received finds all {control} bytes of the order")
    connect_line = await cast.connect.line(event="connection closed")
    listen_line = await cast.listen.line(event="connection closed", channel=connect_line["channel"])
    screen.say("Each proxy's log:")
    screen.rows([("connect", log_words(connect_line)), ("listen", log_words(listen_line))])
    screen.check(connect_line["channel"] == listen_line["channel"], "one connection, one name: the same channel id in both logs")


async def _a_stranger(stage: Stage, screen: Screen, cast: Cast) -> None:
    screen.scene("A stranger with a key of its own")
    before = _dialled(cast.bank)
    customer = await _customer(stage, cast.stranger, ORDER)
    theirs = await cast.stranger.line(event="connection refused")
    ours = await cast.listen.line(event="connection refused", reason="unknown_peer")
    recording = await _recording(cast, 1)
    screen.rows(
        [
            ("listen", log_words(ours)),
            ("stranger", log_words(theirs)),
            ("its app", customer["end"]),
            ("wire", f"{len(recording.up.data):,} bytes from the stranger, {len(recording.down.data)} back"),
        ]
    )
    screen.check(customer["end"] == "ECONNRESET" and not customer["answers"], "the stranger's application gets a reset")
    screen.check(len(recording.down.data) == 0, "the stranger gets not one byte in reply")
    screen.check(_dialled(cast.bank) == before, "the bank was never dialled")


async def _a_flipped_bit(stage: Stage, screen: Screen, cast: Cast) -> None:
    screen.scene("One bit flipped on the way")
    cast.tap.flip = 1
    customer = await _customer(stage, cast.connect, ORDER, SECOND_ORDER)
    screen.check(
        customer["end"] == "ECONNRESET" and len(customer["answers"]) == 1,
        "the first order is answered; a bit of the second is changed, and the customer is reset",
        otherwise=f"the customer saw {customer}",
    )
    recording = await _recording(cast, 2)
    served = await cast.bank.line(event="served", number=2)
    ours = await cast.listen.line(event="connection closed", reason="bad_frame")
    theirs = await cast.connect.line(event="connection closed", channel=ours["channel"])
    hit = recording.flipped
    if hit is None:
        raise DemoFailed("the eavesdropper saw no second frame of data to change")
    screen.rows(
        [
            ("wire", f"the second order is a {hit.name} frame of {hit.size} bytes; its first sealed byte is changed by one bit"),
            ("listen", log_words(ours)),
            ("connect", log_words(theirs)),
            ("bank", f"{served['bytes']} bytes, all of the first order; then {served['end']}"),
        ]
    )
    screen.check(
        served["text"] == ORDER + "\n" and served["end"] == "ECONNRESET",
        "of the changed order the bank sees not one byte, and no EOF",
    )


async def _figures(stage: Stage, screen: Screen, cast: Cast) -> None:
    screen.scene("Bytes and latency")
    first = await cast.tap.recording(0)
    handshake = sum(item.size for item in first.items if item.kind is None)
    frames = sum(1 for item in first.items if item.kind is not None)
    closed = await cast.connect.line(event="connection closed")
    plain = closed["bytes_to_wire"] + closed["bytes_to_plain"]
    screen.say(
        f"The first connection: {plain} bytes of the applications', {first.size:,} on the wire: {handshake:,} for the handshake, "
        f"once, and {frames} frames with {FRAME_OVERHEAD} bytes each around their content."
    )
    columns = []
    for program in (cast.direct, cast.bank):
        told = await _customer(stage, program, "--rounds", str(_ROUNDS))
        opening, *rest = told["seconds"] or [0.0]
        if not rest or told["end"] != "EOF":
            raise DemoFailed(f"of {_ROUNDS} round trips only {len(told['seconds'])} were made; the customer saw {told['end']}")
        columns.append((_ms(opening), _ms(statistics.median(rest)), _ms(sorted(rest)[len(rest) * 99 // 100]), str(len(rest))))
    labels = ("connect and first answer", "round trip, median", "round trip, 99th percentile", "round trips made")
    screen.figures(["", "through the tunnel", "straight to the bank"], zip(labels, *columns, strict=True))
    screen.say("One run on this machine as busy as it is now: an impression, not a measurement.")


async def _the_end(screen: Screen, cast: Cast) -> None:
    """Stop every proxy, and check that it ends in order."""
    proxies = (cast.connect, cast.direct, cast.stranger, cast.listen)
    statuses: dict[Program, int] = {}

    async def stop(proxy: Program) -> None:
        statuses[proxy] = await proxy.stop()

    async with trio.open_nursery() as nursery:
        for proxy in proxies:
            nursery.start_soon(stop, proxy)
    screen.check(
        set(statuses.values()) == {0},
        "SIGTERM: every proxy says goodbye and exits with status 0",
        otherwise=f"{statuses.values()}",
    )


# -- helpers ---------------------------------------------------------------------------------------------------------------


async def _proxy(stage: Stage, role: str, to: int, *flags: str) -> Program:
    command = ["stcp-proxy", role, "--bind", "127.0.0.1:0", "--to", f"127.0.0.1:{to}", *flags]
    return await stage.start(f"stcp-proxy {role}", *command, "--drain", "1s", "--log-format", "json")


async def _port(program: Program) -> int:
    """The port on which a program listens; waits for the program's line about it."""
    address: str = (await program.line(event="listening"))["address"]
    return int(address.rpartition(":")[2])


async def _customer(stage: Stage, where: Program, *arguments: str) -> dict[str, Any]:
    """Run a customer against a program's listening port. Returns the customer's report."""
    customer = await stage.start("the customer", "app.py", "customer", str(await _port(where)), *arguments)
    return await customer.line(event="done")


async def _recording(cast: Cast, number: int) -> Recording:
    """The eavesdropper's recording of a wire leg; waits until the wire leg has ended."""
    with trio.move_on_after(PATIENCE):
        recording = await cast.tap.recording(number)
        await recording.ended.wait()
        return recording
    raise DemoFailed(f"the wire leg of connection {number + 1} did not end within {PATIENCE:g} s")


def _moments(recording: Recording, answer: str) -> list[tuple[str, str, list[Item]]]:
    """The frames of the first connection, each with the event of the applications that caused it."""
    handshake = [item for item in recording.items if item.kind is None]
    ends = [item for item in recording.items if item.kind == FrameType.FIN]
    between = [item for item in recording.items if item not in handshake and item not in ends]
    return [
        ("the customer connects", "", handshake),
        ("the customer sends", ORDER, [item for item in between if item.upwards]),
        ("the bank answers", answer, [item for item in between if not item.upwards]),
        ("both end: EOF each way", "", ends),
    ]


def _longest_piece(message: bytes, capture: bytes | bytearray) -> int:
    """Length of the longest piece of `message` that occurs anywhere in `capture`."""
    longest = 0
    for start in range(len(message)):
        while start + longest < len(message) and message[start : start + longest + 1] in capture:
            longest += 1
    return longest


def _ms(seconds: float) -> str:
    return f"{seconds * 1000:.2f} ms"


def _dialled(bank: Program) -> int:
    """The number of connections that the bank has accepted."""
    return sum(1 for line in bank.lines if line["event"] == "accepted")
