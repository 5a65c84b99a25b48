"""Starts the exporter of spans, starts it again where it ends, and ends it: one exporter for all worker processes.

The parent of worker processes looks after the exporter, or the one process that serves. The channel exists before the fork,
with or without spans in the file, so that a reload can begin with them; without worker processes it is made when it is needed.

A thread starts the exporter, waits for its end, and starts the next one: so there is never more than one. For other settings it
is told to end, and records wait in the channel meanwhile. Between fork and exec the exporter has a copy of every descriptor,
for less than a millisecond.

The exporter logs each failure of its collector. What ends the exporter itself is logged here.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from typing import Final

import structlog

from stcp_proxy import __version__
from stcp_proxy.config import OtlpPlan, Plan
from stcp_proxy.process.drain import LAST_SPANS
from stcp_proxy.spans import orders, sink
from stcp_proxy.spans.channel import Channel

_FIRST_PAUSE, _LONGEST_PAUSE = 1.0, 60.0
"""Seconds before an exporter that has ended is started again: the first pause, which doubles, and the longest."""
_LASTED: Final = 60.0
"""After an exporter that lasted this long, the next one starts after the first pause again."""
_HELD_BACK: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)

_PROGRAM: Final = """\
import json, sys
sys.path[:] = json.loads(sys.argv[1])
from stcp_proxy.spans import exporter
exporter.main(*map(int, sys.argv[2:]))
"""

_log = structlog.get_logger("stcp_proxy.spans")


class SpanExporter:
    """The spans of a process that serves, or of the parent of worker processes.

    Args:
        plan: what the process serves, all worker processes together.
    """

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._channel = Channel() if plan.otlp is not None or plan.workers > 1 else None
        self._looks_after = plan.workers == 1
        self._own = {
            "service.version": __version__,
            "service.instance.id": os.urandom(16).hex(),
            "host.name": socket.gethostname(),
        }
        self._lock = threading.Lock()
        """Held to read or change what follows."""
        self._child: subprocess.Popen[bytes] | None = None
        self._thread: threading.Thread | None = None
        self._is_wanted = False
        self._is_owed = False
        """Whether one more is started even after the end: for the first records, or what a child has left to the next one."""
        self._was_told = False
        """Whether the current child has been asked to end."""
        self._wake = threading.Event()
        """Ends the pause before another start."""
        self._choose()

    def forked(self, worker: int | None) -> None:
        """After a fork: keep only what this process needs.

        Args:
            worker: which worker process this is; None is the parent, which looks after the exporter.
        """
        assert self._channel is not None  # noqa: S101
        if worker is None:
            self._looks_after = True
            self._channel.close_writer()
            sink.use(None)
            self.start()
        else:
            self._channel.close_reader()

    def start(self) -> None:
        """Start the exporter, where the plan wants one and this process looks after it."""
        if self._looks_after and self._plan.otlp is not None:
            with self._lock:
                self._is_wanted = True
                if self._thread is None:
                    self._is_owed = True
                    self._thread = threading.Thread(target=self._look_after, name="stcp-spans", daemon=True)
                    self._thread.start()

    def prepare(self, plan: Plan) -> SpanChange | None:
        """Prepare a reload; None where it changes nothing here."""
        return None if (plan.otlp, plan.log) == (self._plan.otlp, self._plan.log) else SpanChange(self, plan)

    def change(self, plan: Plan) -> None:
        """Follow a plan from now on."""
        self._plan = plan
        if plan.otlp is not None and self._channel is None:
            self._channel = Channel()
        self._choose()
        if self._looks_after:
            self._let_end(followed=plan.otlp is not None)
            self.start()

    def close(self) -> None:
        """End the exporter. It sends what is left, for a few seconds."""
        sink.use(None)
        if self._channel is not None:
            self._channel.close_writer()
        self._let_end(followed=False)
        if (thread := self._thread) is None:
            return
        thread.join(LAST_SPANS)
        with self._lock:
            child = self._child
        if child is not None:
            child.kill()
            remedy = "look whether this machine is short of memory or processor time"
            _log.warning("spans lost at the stop", why=f"the exporter did not end within {LAST_SPANS:g} s", remedy=remedy)

    def _choose(self) -> None:
        """Whether this process makes records, and of which connections."""
        plan, channel = self._plan.otlp, self._channel
        if plan is not None and channel is not None:
            channel.sample(plan.sample)
        is_served_here = not (self._looks_after and self._plan.workers > 1)
        sink.use(channel if plan is not None and is_served_here else None)

    # -- the exporter's process

    def _look_after(self) -> None:
        """Start exporters one after the other while they are wanted, in a thread."""
        pause = _FIRST_PAUSE
        while True:
            with self._lock:
                plan, was_told = self._plan.otlp, not self._is_wanted
                # A stop may follow a start or a change at once: then the next one still sends what is in the channel.
                if plan is None or self._channel is None or (was_told and not self._is_owed):
                    self._thread = None
                    return
                child = self._child = self._started(plan, self._channel)
                self._was_told, self._is_owed = was_told, False
                if was_told and child is not None and child.stdin is not None:
                    child.stdin.close()
                self._wake.clear()
            began = time.monotonic()
            status = None if child is None else child.wait()
            with self._lock:
                self._child, was_told = None, self._was_told
            if child is not None and child.stdin is not None:
                child.stdin.close()
            if was_told:
                pause = _FIRST_PAUSE
                continue
            if child is not None:
                remedy = "look for its last words above, or for the kernel's about memory; it is started again"
                _log.error("the exporter of spans has ended", status=status, remedy=remedy)
            pause = _FIRST_PAUSE if time.monotonic() - began >= _LASTED else pause
            self._wake.wait(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)

    def _started(self, plan: OtlpPlan, channel: Channel) -> subprocess.Popen[bytes] | None:
        """A new process. Signals that ask for an end wait in it: a service manager sends them to all processes."""
        ordered = orders.write(orders.orders_for(plan, self._plan.log, self._own))
        descriptors = (channel.reader, channel.counts, ordered)
        before = signal.pthread_sigmask(signal.SIG_BLOCK, _HELD_BACK)
        try:
            return subprocess.Popen(  # noqa: S603  (our own interpreter and program)
                [sys.executable, "-P", "-c", _PROGRAM, json.dumps(sys.path), *map(str, descriptors)],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                pass_fds=descriptors,
                process_group=0,
                bufsize=0,
            )
        except OSError as exc:
            remedy = "make room for a further process; it is tried again"
            _log.error("the exporter of spans cannot be started", why=f"{sys.executable}: {exc.strerror}", remedy=remedy)
            return None
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
            os.close(ordered)

    def _let_end(self, *, followed: bool) -> None:
        """Tell the process to end.

        Args:
            followed: whether another one follows, which takes what is in the channel.
        """
        with self._lock:
            self._is_wanted = False
            self._was_told = True
            self._wake.set()
            if self._child is not None and self._child.stdin is not None and not self._child.stdin.closed:
                if followed:
                    self._is_owed = True
                    with contextlib.suppress(OSError):  # it has ended
                        self._child.stdin.write(orders.FOLLOWED)
                self._child.stdin.close()


class SpanChange:
    """A prepared change of the spans."""

    def __init__(self, exporter: SpanExporter, plan: Plan) -> None:
        self._exporter, self._plan = exporter, plan

    def commit(self) -> None:
        """Make the change. It cannot fail."""
        self._exporter.change(self._plan)
