"""First messages that were answered lately: what is known, for how long, and in how much memory."""

from __future__ import annotations

from stcp_proxy.tunnel.replays import MOST, WINDOW, Replays


def key(number: int) -> bytes:
    return number.to_bytes(32, "little")


def test_known_for_the_window() -> None:
    replays = Replays()
    assert not replays.has(key(1))
    replays.add(key(1), 0)
    assert replays.has(key(1))
    assert not replays.has(key(2))
    for at in range(1, int(WINDOW)):
        replays.add(key(100 + at), at)
        assert replays.has(key(1))
    replays.add(key(2), WINDOW)
    assert replays.has(key(1))
    replays.add(key(3), 2 * WINDOW)
    assert not replays.has(key(1))
    assert replays.has(key(2))


def test_who_fills_it_shortens_the_window_and_takes_no_memory() -> None:
    replays = Replays()
    for number in range(3 * MOST):
        replays.add(key(number), 0.0)
        if number % 1000 == 0:
            assert len(replays) <= 2 * MOST
            assert replays.has(key(max(0, number - MOST + 1)))
    assert not replays.has(key(0))
