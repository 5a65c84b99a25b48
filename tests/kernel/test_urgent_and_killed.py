"""Urgent bytes and a killed owner, for relays inside the kernel."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys

import pytest

from stcp_proxy.relay import kernel_abi as abi

from .peer import (
    DATA,
    FIN,
    KEY_DOWN,
    KEY_UP,
    PATIENCE,
    Cipher,
    args,
    how_it_ends,
    noise,
    read_exactly,
    tcp_pair,
    ulp,
)


def test_urgent_bytes_stay_in_the_stream() -> None:
    """The plain leg has SO_OOBINLINE, as the proxy sets it: no byte is lost, wherever the mark is."""
    (app, plain), (peer, wire) = tcp_pair(), tcp_pair()
    plain.setsockopt(socket.SOL_SOCKET, socket.SO_OOBINLINE, 1)
    for leg in (plain, wire):
        ulp(leg)
    app.send(b"?", socket.MSG_OOB)  # waits in the socket at the handover
    wire.setsockopt(abi.SOL_STCP, abi.RELAY, args(plain.fileno()))
    up, expected, found = Cipher(KEY_UP), b"?", b""
    for number in range(30):
        word = b"%d urgent" % number
        app.sendall(word)
        app.send(b"!", socket.MSG_OOB)
        expected += word + b"!"
    app.shutdown(socket.SHUT_WR)
    while True:
        header = read_exactly(peer, 4)
        text = up.open(header + read_exactly(peer, int.from_bytes(header[2:], "big")))
        if header[0] == FIN:
            break
        found += text
    assert found == expected
    for sock in (app, plain, peer, wire):
        sock.close()


@pytest.mark.parametrize("state", ["at rest", "the application has ended", "in the middle of an answer"])
def test_a_killed_owner_is_no_clean_end(state: str) -> None:
    """The application reads a reset, not an end of file that looks like the whole answer."""
    (app, plain), (peer, wire) = tcp_pair(), tcp_pair()
    script = (
        "import signal, socket, sys; from tests.kernel.peer import abi, args, ulp;"
        "p, w = [socket.socket(fileno=int(fd)) for fd in sys.argv[1:]]; ulp(p); ulp(w);"
        "w.setsockopt(abi.SOL_STCP, abi.RELAY, args(p.fileno())); p.close(); print('ready', flush=True); signal.pause()"
    )
    fds = plain.fileno(), wire.fileno()
    command = [sys.executable, "-c", script, *map(str, fds)]
    with subprocess.Popen(command, pass_fds=fds, stdout=subprocess.PIPE, text=True) as owner:
        assert owner.stdout is not None
        assert owner.stdout.readline() == "ready\n"
        plain.close()
        wire.close()
        up, down = Cipher(KEY_UP), Cipher(KEY_DOWN)
        expected = 0
        if state == "the application has ended":
            app.shutdown(socket.SHUT_WR)
            header = read_exactly(peer, 4)
            up.open(header + read_exactly(peer, int.from_bytes(header[2:], "big")))
        elif state == "in the middle of an answer":
            answer = noise(50_000)
            peer.sendall(down.seal(DATA, answer))
            assert read_exactly(app, len(answer)) == answer
            peer.sendall(down.seal(DATA, noise(60_000))[:30_000])
        owner.send_signal(signal.SIGKILL)
        owner.wait(PATIENCE)
    for sock in (app, peer):
        assert how_it_ends(sock) == (expected, "reset")
        sock.close()
