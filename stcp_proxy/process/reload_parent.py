"""A reload with several workers, as their parent leads it: in all of them or in none.

    the parent reads the file   plan: every worker receives it, and compares it with what runs
    the parent binds            doors: every worker takes its new listening sockets and prepares
    all have said yes           commit: every worker makes the change, which cannot fail

A worker that says no, or nothing in time, ends the round: all give up what they have prepared, and go on as before. The parent
reads, by a child process, and sends the same plan to every worker. Nothing is bound and sent before every worker has answered
once: listening sockets that lie unread before a worker that hangs would keep a port taken.

All this is in a thread, because the parent's own waits for its children.
"""

from __future__ import annotations

import contextlib
import select
import socket
import threading
import time
from collections.abc import Sequence
from typing import Any, Final

import structlog

from stcp_proxy.config import Plan, plan_bytes
from stcp_proxy.config.diff import PlanDiff
from stcp_proxy.errors import ConfigError, StcpError
from stcp_proxy.logs import log
from stcp_proxy.process import reload_messages, sd_notify
from stcp_proxy.process.reload import Read, compared, no_file, say_refused, summary
from stcp_proxy.process.worker_sockets import Door
from stcp_proxy.session.handover import stopping
from stcp_proxy.tunnel.listener_handover import inherit

_log = structlog.get_logger("stcp_proxy.reload")

PATIENCE: Final = 10.0
"""Seconds that the workers have for each step."""
_LAST_WORDS: Final = 2.0


def status(plan: Plan) -> str:
    """One line for the service manager."""
    return f"{len(plan.tunnels)} tunnels listen, {plan.workers} workers"


class Leader:
    """The parent's half of a reload.

    Args:
        plan: what runs.
        read: reads the file again; None where there is nothing to read.
        lines: the parent's end towards each worker; owned by this object.
        doors: where each tunnel is reached; likewise.
        patience: seconds that the workers have for each step.
    """

    def __init__(
        self, plan: Plan, read: Read | None, lines: Sequence[socket.socket], doors: dict[str, Door], *, patience: float = PATIENCE
    ) -> None:
        self.plan = plan
        self._read = read
        self._lines = dict(enumerate(lines))
        self._doors = doors
        self._patience = patience
        self._round = 0
        self._said: dict[int, reload_messages.Heard] = {}
        """Answers to what was said last."""
        self._asked: set[int] = set()
        """Workers that want a reload for somebody."""
        self._wanted = self._stopping = False
        self._hears, self._wakes = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._wakes.setblocking(False)
        self._thread = threading.Thread(target=self._run, name="stcp-reload", daemon=True)

    # -- for the parent's own thread -------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Lead from now on. Call it when everything is forked."""
        self._thread.start()

    def reload(self) -> None:
        """Read the file again, soon. Fit for a signal handler; what comes of it is in the log."""
        self._wanted = True
        with contextlib.suppress(OSError):
            self._wakes.send(b"!")

    def stop(self) -> None:
        """Begin no reload any more. Fit for a signal handler."""
        self._stopping = True

    def close(self) -> None:
        """The workers have ended: close what is left."""
        self.stop()
        self.reload()  # only to wake it
        self._thread.join(_LAST_WORDS)
        for door in list(self._doors.values()):
            door.close()
        for sock in (self._hears, self._wakes, *self._lines.values()):
            sock.close()

    # -- the thread ------------------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        while self._lines:
            self._listen(None)
            while (self._wanted or self._asked) and self._lines:
                asked, self._asked, self._wanted = sorted(self._asked), set(), False
                try:
                    self._reload(asked)
                except Exception as exc:
                    _log.error("a reload failed", why=f"{type(exc).__name__}: {exc}", remedy="restart the proxy", exc_info=exc)

    def _reload(self, asked: list[int]) -> None:
        self._round += 1
        opened: dict[str, Door] = {}
        sd_notify.reloading()
        try:
            try:
                plan, diff = self._agree(opened)
            except Exception as exc:
                for door in opened.values():
                    door.close()
                what = exc.what if isinstance(exc, StcpError) else f"{type(exc).__name__}: {exc}"
                self._tell("refused", why=what, remedy=exc.remedy if isinstance(exc, StcpError) else None, asked=asked)
                if not self._stopping:
                    say_refused(exc)
                return
            self._commit(plan, opened, asked)
        finally:
            if not self._stopping:
                sd_notify.ready(status(self.plan))
        log.change(plan.log)
        _log.info("reloaded", **summary(diff))

    def _agree(self, opened: dict[str, Door]) -> tuple[Plan, PlanDiff]:
        """Everything that can fail.

        Args:
            opened: filled with the doors that are new.

        Raises:
            StcpError: why it was refused.
        """
        if self._stopping:
            raise stopping()
        if self._read is None:
            raise no_file()
        plan = self._read()()
        diff = compared(self.plan, plan)
        self._send_plan(plan_bytes.dump(plan))
        handed = inherit(self.plan, plan, without={name for name, door in self._doors.items() if door.lost})
        kept = set(handed.values())
        leaving = {door.port for name, door in self._doors.items() if name not in kept}
        for tunnel in plan.tunnels:
            if tunnel.name not in handed:
                opened[tunnel.name] = Door.open(tunnel, plan.workers, leaving=leaving)
        self._hand_out(opened)
        if self._stopping:
            raise stopping()
        return plan, diff

    def _send_plan(self, plan: bytes) -> None:
        """Send the plan to every worker, each through a socket that nobody else has, and wait until all have said yes."""
        self._said.clear()
        for number in list(self._lines):
            ours, theirs = socket.socketpair()
            with ours:
                with theirs:
                    self._say(number, "plan", sockets=[theirs])
                ours.settimeout(self._patience)
                with contextlib.suppress(OSError):  # a worker that does not take it does not say yes either
                    ours.sendall(plan)
        self._wait()

    def _hand_out(self, opened: dict[str, Door]) -> None:
        self._said.clear()
        for number in list(self._lines):
            names, sockets = [], []
            for name, door in opened.items():
                names += [name] * len(door.sets[number])
                sockets += door.sets[number]
            for first in range(0, max(len(sockets), 1), reload_messages.MOST):
                end = first + reload_messages.MOST
                part = {"names": names[first:end], "last": end >= len(sockets)}
                self._say(number, "doors", sockets=sockets[first:end], **part)
        self._wait()

    def _commit(self, plan: Plan, opened: dict[str, Door], asked: list[int]) -> None:
        """Nothing here fails: a worker that does not answer finds the order when it goes on."""
        handed = {name: giver for name, giver in inherit(self.plan, plan).items() if name not in opened}
        doors = {name: self._doors[giver] for name, giver in handed.items()} | opened
        for name, door in self._doors.items():
            if name not in handed.values():
                door.close()  # the file goes first: whoever has connected already is let in by the workers
        self.plan, self._doors = plan, doors
        try:
            self._ask_all("commit", asked=asked)
        except StcpError as exc:
            if not self._stopping:
                _log.warning("a worker does not say that it has made the change", why=exc.what, remedy="restart the proxy")
        for tunnel in plan.tunnels:
            doors[tunnel.name].change_mode(tunnel.bind_mode)
        for door in opened.values():
            door.keep_what_is_ours()

    # -- with the workers ------------------------------------------------------------------------------------------------------

    def _ask_all(self, verb: str, **rest: Any) -> None:
        """Say something to every worker, and wait until all have said yes.

        Raises:
            StcpError: one has said no, or nothing.
        """
        self._said.clear()
        for number in list(self._lines):
            self._say(number, verb, **rest)
        self._wait()

    def _wait(self) -> None:
        deadline = time.monotonic() + self._patience
        workers = range(self.plan.workers)
        while True:
            for number, said in self._said.items():
                if said.verb == "no":
                    raise ConfigError(f"worker {number}: {said.rest['why']}", remedy=said.rest["remedy"])
            if self._lines.keys() != set(workers):
                raise stopping()  # one has ended, and the others follow
            silent = [number for number in workers if number not in self._said]
            if not silent:
                return
            left = deadline - time.monotonic()
            if left <= 0:
                raise _silent(silent[0], self._patience)
            self._listen(left)

    def _say(self, number: int, verb: str, *, sockets: Sequence[socket.socket] = (), **rest: Any) -> None:
        line = self._lines[number]
        deadline = time.monotonic() + self._patience
        while True:
            try:
                reload_messages.say(line, verb, self._round, sockets=sockets, **rest)
                return
            except BlockingIOError:
                left = deadline - time.monotonic()
                if left <= 0 or not _ready(line, select.POLLOUT, left):
                    raise _silent(number, self._patience) from None
            except ConnectionError:
                raise stopping() from None

    def _tell(self, verb: str, **rest: Any) -> None:
        """Say something to every worker that hears it."""
        for line in self._lines.values():
            with contextlib.suppress(OSError):
                reload_messages.say(line, verb, self._round, **rest)

    def _listen(self, seconds: float | None) -> None:
        """Take in what comes from the workers, or return when there is something else to do, or the time is over."""
        poll = select.poll()
        poll.register(self._hears, select.POLLIN)
        lines = {line.fileno(): number for number, line in self._lines.items()}
        for fd in lines:
            poll.register(fd, select.POLLIN)
        for fd, _ in poll.poll(None if seconds is None else max(1.0, seconds * 1000)):
            if fd == self._hears.fileno():
                self._hears.recv(1)
            else:
                self._hear(lines[fd])

    def _hear(self, number: int) -> None:
        heard = reload_messages.hear(self._lines[number])
        if heard is None:
            self._lines.pop(number).close()
        elif heard.verb == "ask":
            self._asked.add(number)
        elif heard.round == self._round:
            self._said[number] = heard


def _silent(number: int, seconds: float) -> ConfigError:
    what = f"worker {number} has not answered in {seconds:g} seconds"
    return ConfigError(what, remedy="try again; restart the proxy if it stays so")


def _ready(sock: socket.socket, event: int, seconds: float) -> bool:
    poll = select.poll()
    poll.register(sock, event)
    return bool(poll.poll(seconds * 1000))
