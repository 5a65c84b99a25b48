"""Where the pump cannot be driven by Trio's thread, it has one of its own."""

from __future__ import annotations

import os

import pytest
import trio

from stcp_proxy.relay import inloop
from stcp_proxy.relay.pump import PumpEngine


def test_without_proc(monkeypatch: pytest.MonkeyPatch) -> None:
    def listdir(path: str) -> list[str]:
        raise FileNotFoundError(2, "No such file or directory", path)

    engine = PumpEngine()

    async def main() -> None:
        with monkeypatch.context() as patch:
            patch.setattr(os, "listdir", listdir)
            inloop.start(engine)

    trio.run(main)
    assert engine.has_thread
    engine.close()
