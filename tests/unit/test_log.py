"""What log lines may show."""

from __future__ import annotations

import pytest
import structlog

from stcp_proxy.config import LogPlan
from stcp_proxy.counters import Ledger
from stcp_proxy.logs import log
from stcp_proxy.relay.engine import RelayEnd
from stcp_proxy.session import record
from stcp_proxy.session.record import Connection


class Owner:
    ledger = Ledger()

    def settle(self, connection: Connection, end: RelayEnd) -> None:
        raise AssertionError

    def forget(self, connection: Connection) -> None:
        pass


@pytest.mark.parametrize("style", ["text", "json"])
def test_a_bug_is_logged_with_its_traceback_and_without_local_variables(
    style: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(said: bytes) -> None:
        raise KeyError("a bug")

    log.configure(LogPlan(format="text" if style == "text" else "json"))
    monkeypatch.setattr(record, "_log", structlog.get_logger())  # a logger keeps the stream that it used first
    try:
        fail(bytes(range(ord("A"), ord("Z"))))
    except KeyError as exc:
        Connection("web", "127.0.0.1:1", Owner()).failed(exc)
    finally:
        structlog.reset_defaults()
    shown = capsys.readouterr().err
    assert "a bug" in shown
    assert "in fail" in shown
    assert "ABCDEF" not in shown


def test_what_is_hidden_is_not_even_put_together() -> None:
    assert not log.is_hidden("info")  # as long as nothing is configured
    log.configure(LogPlan(level="warning"))
    try:
        assert log.is_hidden("info")
        assert not log.is_hidden("warning")
        log.change(LogPlan(level="debug"))
        assert not log.is_hidden("debug")
    finally:
        structlog.reset_defaults()
