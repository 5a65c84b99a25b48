"""The demo's applications: a bank and its customer. Plain sockets; they know nothing of the proxies and import nothing of theirs.

    app.py bank                      listen on a free port of 127.0.0.1
    app.py customer PORT LINE…       send each line, wait for its answer, end
    app.py customer PORT --rounds N  the same line N times, or as often as half a second allows

Both tell what they saw in JSON lines on standard output.
"""

from __future__ import annotations

import errno
import itertools
import json
import socket
import sys
import threading
import time

PATIENCE = 15.0
"""Seconds that the customer waits for an answer."""
ROUNDS_TIME = 0.5
"""Seconds for all round trips of a customer that counts them."""


def tell(**fields: object) -> None:
    """Print one line of JSON with one write, because threads share the stream."""
    sys.stdout.write(json.dumps(fields) + "\n")
    sys.stdout.flush()


def answer(line: str) -> str:
    """The bank's answer to an order."""
    return f"Done: {line.removeprefix('Transfer ')}. Your balance is 7,310 EUR."


def serve(sock: socket.socket, number: int) -> None:
    """Serve one customer until the connection ends. Then report the received bytes and the way in which it ended."""
    received = b""
    end = "EOF"
    answered = 0
    try:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        while data := sock.recv(65536):
            received += data
            lines = received.split(b"\n")[:-1]
            for line in lines[answered:]:
                sock.sendall(answer(line.decode("utf-8", "replace")).encode() + b"\n")
            answered = len(lines)
    except OSError as exc:
        end = errno.errorcode.get(exc.errno or 0, str(exc))
    sock.close()
    tell(event="served", number=number, bytes=len(received), text=received[:4096].decode("utf-8", "replace"), end=end)


def bank() -> None:
    """Serve customers until this process is killed."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        tell(event="listening", address=f"127.0.0.1:{listener.getsockname()[1]}")
        for number in itertools.count(1):
            sock, _ = listener.accept()
            tell(event="accepted", number=number)
            threading.Thread(target=serve, args=(sock, number), daemon=True).start()


def customer(port: int, lines: list[str], *, until: float = float("inf")) -> None:
    """Send each order and wait for its answer. Send no new order from `until` on."""
    answers: list[str] = []
    seconds: list[float] = []
    started = time.perf_counter()
    end = ""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE) as sock, sock.makefile("rb") as incoming:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for line in lines:
                sock.sendall(line.encode() + b"\n")
                reply = incoming.readline()
                if not reply:
                    end = "EOF"
                    break
                answers.append(reply.decode("utf-8", "replace").rstrip("\n"))
                now = time.perf_counter()
                seconds.append(now - started)
                started = now
                if now > until and len(seconds) > 1:
                    break
            if not end:
                sock.shutdown(socket.SHUT_WR)
                end = "EOF" if incoming.read() == b"" else "more than an answer"
    except TimeoutError:
        end = "no answer"
    except OSError as exc:
        end = errno.errorcode.get(exc.errno or 0, str(exc))
    tell(event="done", answers=answers, seconds=seconds, end=end)


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["bank"]:
            bank()
        case ["customer", port, "--rounds", rounds]:
            customer(int(port), ["Transfer 0 EUR to myself"] * int(rounds), until=time.perf_counter() + ROUNDS_TIME)
        case ["customer", port, *lines]:
            customer(int(port), lines)
        case _:
            sys.exit(__doc__)
