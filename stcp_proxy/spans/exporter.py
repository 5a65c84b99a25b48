"""The exporter: a program beside the proxy that takes records from the channel and sends them as spans, in batches.

Only this program imports OpenTelemetry's and Google's libraries, TLS and an HTTP client. It does one thing at a time:

1. Take records until a batch is full, or its first record is `DELAY` seconds old.
2. Send the batch. Where the collector may take it later, wait and send it again, for `PATIENCE` seconds at most.

While it sends, records wait in the channel; what finds no room there is dropped by the process that serves. So memory is
bounded, and a collector that is slow or gone costs spans and nothing else.

It ends when the proxy closes its standard input, or when all processes that serve are gone. Then it sends all that is left in
the channel, within `LAST` seconds. Where another exporter follows, with other settings, the proxy writes `FOLLOWED` first: then
it sends what it has taken, and leaves the channel to the next one. Signals that ask for an end are not for it: a service
manager sends them to every process, and spans come until the end.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import time
from typing import Final

import structlog
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from stcp_proxy.config import LogPlan
from stcp_proxy.logs import log
from stcp_proxy.spans import counts
from stcp_proxy.spans.collector import Collector, Outcome
from stcp_proxy.spans.counts import Counts
from stcp_proxy.spans.orders import FOLLOWED, Orders, read
from stcp_proxy.spans.span import request_of, span_of

BATCH: Final = 512
"""The largest number of spans in a request."""
DELAY: Final = 2.0
"""Seconds that a record waits for others."""
PATIENCE: Final = 60.0
"""Seconds for which the same batch is sent again."""
FIRST_WAIT, LONGEST_WAIT = 1.0, 15.0
"""Seconds between two attempts: the first pause, which doubles, and the longest."""
LAST: Final = 3.0
"""Seconds for everything that is left at the end."""
_REMEDY_AT_END: Final = "give the collector more capacity, and let it end after the proxies"
_READ: Final = 1 << 16
_CONTROL: Final = 0
_BLOCKED: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)

_log = structlog.get_logger("stcp_proxy.spans")


def main(channel: int, counted: int, ordered: int) -> None:
    """Export until the end of the proxy.

    Args:
        channel: the descriptor to read records from.
        counted: the descriptor of the counts.
        ordered: the descriptor of the orders.
    """
    signal.pthread_sigmask(signal.SIG_SETMASK, _BLOCKED)
    orders = read(ordered)
    log.configure(LogPlan(level=orders.level, format=orders.format))
    for each in (channel, _CONTROL):
        os.set_blocking(each, False)
    Exporter(channel, counted, orders).run()


class Exporter:
    """See the module.

    Args:
        channel: the descriptor to read records from, non-blocking.
        counted: the descriptor of the counts.
        orders: the settings.
        control: the descriptor whose end is the end of the exporter, non-blocking.
    """

    def __init__(self, channel: int, counted: int, orders: Orders, control: int = _CONTROL) -> None:
        self._channel, self._counted, self._control = channel, counted, control
        found = counts.read(counted)
        self._counts = found._replace(failed=found.taken - found.exported)  # those before this one have ended
        counts.write(counted, self._counts)
        self._orders = orders
        self._collector = Collector(orders)
        self._part = b""
        """The beginning of a record whose rest was not read yet."""
        self._spans: list[Span] = []
        self._due = 0.0
        """When the present batch has to be sent."""
        self._end: float | None = None
        """The deadline for everything; None until the end has begun."""
        self._is_followed = False
        self._lost = 0
        """Spans that were lost since the collector last accepted some."""
        self._failing = ""
        """The last failure that was logged; empty while spans are accepted."""

    def run(self) -> None:
        """Work until the end."""
        while self._end is None:
            if len(self._spans) >= BATCH or (self._spans and time.monotonic() >= self._due):
                self._export()
            else:
                self._take()
        more = True
        while more or self._spans:
            more = more and (not self._is_followed or bool(self._part)) and self._read_records()
            if len(self._spans) >= BATCH or (self._spans and not more):
                self._export()
        if self._lost:
            self._warn(f"{self._lost} spans were lost", "look for the first such line above")

    # -- what comes in

    def _take(self) -> None:
        """Wait for records, the end, or the time at which the batch is due."""
        wait = max(0.0, self._due - time.monotonic()) if self._spans else None
        ready = _poll(wait, self._control, self._channel)
        if self._control in ready:
            self._hear()
        elif self._channel in ready:
            self._read_records()

    def _hear(self) -> None:
        """Read from the standard input: it ends, or another exporter follows."""
        with contextlib.suppress(BlockingIOError):
            self._is_followed = os.read(self._control, len(FOLLOWED)) == FOLLOWED
            self._begin_end()

    def _begin_end(self) -> None:
        if self._end is None:
            self._end = time.monotonic() + LAST

    def _read_records(self) -> bool:
        """Take records that wait. Returns False where none waits."""
        try:
            data = os.read(self._channel, _READ)
        except BlockingIOError:
            return False
        if not data:
            self._begin_end()
            return False
        *lines, self._part = (self._part + data).split(b"\n")
        before = len(self._spans)
        if not before:
            self._due = time.monotonic() + DELAY
        for line in lines:
            with contextlib.suppress(ValueError, KeyError, TypeError):
                self._spans.append(span_of(json.loads(line)))
        self._count(taken=len(lines), failed=len(lines) - (len(self._spans) - before))
        return True

    # -- what goes out

    def _export(self) -> None:
        """Send one batch, until it is accepted or given up."""
        batch, self._spans = self._spans[:BATCH], self._spans[BATCH:]
        body = request_of(batch, self._orders.resource)
        given_up, wait = time.monotonic() + PATIENCE, FIRST_WAIT
        while True:
            outcome = self._send(body, len(batch))
            now = time.monotonic()
            if not outcome.retry or now >= given_up or (self._end is not None and now + wait >= self._end):
                break
            self._note(outcome)
            self._pause(min(outcome.wait or wait, given_up - now))
            wait = min(2 * wait, LONGEST_WAIT)
        self._lost += outcome.refused
        self._count(exported=len(batch) - outcome.refused, failed=outcome.refused)
        self._note(outcome)
        self._due = time.monotonic() + DELAY

    def _send(self, body: bytes, spans: int) -> Outcome:
        outcome = Outcome(spans) if self._is_over() else self._collector.send(body, spans, is_over=self._is_over)
        if outcome.refused and self._is_over():
            return Outcome(spans, f"not all spans were accepted within {LAST:g} s after the end of the proxy", _REMEDY_AT_END)
        return outcome

    def _is_over(self) -> bool:
        """Whether there is no time left for spans. During a request it is asked by a signal handler."""
        if self._end is None and _poll(0, self._control):
            self._hear()
        return self._end is not None and time.monotonic() >= self._end

    def _pause(self, seconds: float) -> None:
        """Wait between two attempts; the end is heard meanwhile."""
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            if _poll(left, *([self._control] if self._end is None else [])):
                self._hear()
                return

    def _count(self, *, taken: int = 0, exported: int = 0, failed: int = 0) -> None:
        now = self._counts
        self._counts = Counts(now.taken + taken, now.exported + exported, now.failed + failed)
        counts.write(self._counted, self._counts)

    def _note(self, outcome: Outcome) -> None:
        """Log the beginning of a failure, another failure, and its end: not every request."""
        if not outcome.why:
            if self._failing:
                _log.info("spans accepted again", lost=self._lost)
            self._failing, self._lost = "", 0
        elif outcome.why != self._failing:
            self._failing = outcome.why
            self._warn(outcome.why, outcome.remedy)

    def _warn(self, why: str, remedy: str) -> None:
        _log.warning("spans not accepted", why=why, remedy=remedy, endpoint=self._orders.endpoint)


def _poll(wait: float | None, *descriptors: int) -> set[int]:
    """The descriptors that can be read, or have reached their end, within `wait` seconds."""
    poll = select.poll()
    for each in descriptors:
        poll.register(each, select.POLLIN)
    return {fd for fd, _ in poll.poll(None if wait is None else wait * 1000)}
