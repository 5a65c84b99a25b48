"""The parent's part of a reload with several workers: it is applied in all of them or in none.

    the parent reads the file   plan: every worker receives it, and compares it with what runs
    the parent binds            listeners: every worker takes its new listening sockets and prepares
    all have said yes           commit: every worker makes the change, which cannot fail

A worker that says no, or nothing in time, ends the round: all give up what they have prepared, and go on as before. The parent
reads, by a child process, and sends the same plan to every worker. Nothing is bound and sent before every worker has answered
once: listening sockets that lie unread before a worker that hangs would keep a port taken. All this is in a thread, because the
parent's own waits for its children.
"""

from __future__ import annotations

import contextlib
import functools
import queue
import select
import socket
import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Final, TypeVar

import structlog

from stcp_proxy.config import Plan, plan_bytes
from stcp_proxy.config.diff import PlanDiff
from stcp_proxy.errors import ConfigError, StcpError
from stcp_proxy.logs import log
from stcp_proxy.net.unix_socket import inode_of, made_here
from stcp_proxy.process import reload_messages, sd_notify
from stcp_proxy.process.companion_change import Change, Changing
from stcp_proxy.process.reload import Read, compared, log_refused, no_file, summary, workers_status
from stcp_proxy.process.worker_sockets import WorkerListeners
from stcp_proxy.session.handover import stopping
from stcp_proxy.tunnel.listener_handover import inherit

_log = structlog.get_logger("stcp_proxy.reload")

_T = TypeVar("_T")
PATIENCE: Final = 10.0
"""Seconds that a worker has for each step."""
_LAST_WORDS: Final = 2.0


class ReloadParent:
    """Leads reloads, in a thread of the parent.

    Args:
        plan: what runs.
        read: reads the file again; None where there is nothing to read.
        links, listeners: the parent's end towards each worker, and where each tunnel is reached; owned by this object.
        beside: what is served beside the tunnels; None for nothing.
        patience: seconds that the workers have for each step.

    Attributes:
        was_replaced: whether a new process serves, and the workers drain.
    """

    def __init__(
        self,
        plan: Plan,
        read: Read | None,
        links: Sequence[socket.socket],
        listeners: dict[str, WorkerListeners],
        beside: Changing | None = None,
        *,
        patience: float = PATIENCE,
    ) -> None:
        self.plan = plan
        self._read = read
        self._links = dict(enumerate(links))
        self._listeners = listeners
        self._beside = beside
        self._admin: Change | None = None
        self._patience = patience
        self._round = 0
        self._answers: dict[int, reload_messages.Message] = {}
        """Answers to the last message, by worker."""
        self._given: list[tuple[int, reload_messages.Message]] = []
        """Listening sockets that workers have sent, with the worker's number."""
        self._calls: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        """What other threads want done in this one."""
        self._asked: set[int] = set()
        """Workers that were asked for a reload."""
        self._force = False
        """Whether one of them was asked to force it."""
        self._wanted = self._stopping = False
        self.was_replaced = False
        self._hears, self._wakes = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._wakes.setblocking(False)
        self._thread = threading.Thread(target=self._run, name="stcp-reload", daemon=True)

    # -- for the parent's own thread -------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Start the thread. Call it after the last fork."""
        self._thread.start()

    def reload(self) -> None:
        """Request a reload; its result is logged. May be called by a signal handler."""
        self._wanted = True
        self._wake()

    def _wake(self) -> None:
        with contextlib.suppress(OSError):
            self._wakes.send(b"!")

    def stop(self) -> None:
        """Refuse further reloads. May be called by a signal handler."""
        self._stopping = True

    def close(self) -> None:
        """Close everything; the workers have ended."""
        self.stop()
        self.reload()  # only to wake it
        self._thread.join(_LAST_WORDS)
        for each in list(self._listeners.values()):
            each.close()
        for sock in (self._hears, self._wakes, *self._links.values()):
            sock.close()

    # -- for a takeover, in a further thread -----------------------------------------------------------------------------------

    def collect(self) -> list[tuple[int, reload_messages.Message]]:
        """The listening sockets of every worker, as copies, in `sockets` messages with the worker's number.

        Raises:
            StcpError: a worker refuses, or does not answer; nothing has changed.
        """
        return self._call(self._collect)

    def replaced(self, taken: Mapping[int, Sequence[int]], kept: Collection[int]) -> None:
        """Let every worker close its listening sockets and drain: a new process serves.

        Args:
            taken: for each worker, the numbers of its sockets that the new process has.
            kept: inodes of those sockets.
        """
        self._call(functools.partial(self._replaced, taken, kept), certain=True)

    def made_files(self) -> set[int]:
        """The inodes of the unix sockets whose files the parent has made."""
        unix = (each for each in self._listeners.values() if each.port is None)
        return {inode_of(sock) for each in unix for sock in each.sets[0] if made_here(sock)}

    def _call(self, work: Callable[[], _T], *, certain: bool = False) -> _T:
        """Run something in this object's thread, and wait for it.

        Args:
            work: what to run.
            certain: whether to wait for the end of a reload that is under way, however long that takes.

        Raises:
            StcpError: it was not run and will not be, because a reload takes too long or this proxy stops.
        """
        from concurrent.futures import Future  # rarely used, and it takes 0.2 MiB

        future: Future[_T] = Future()

        def run() -> None:
            if not future.set_running_or_notify_cancel():
                return  # nobody waits for it any more
            try:
                future.set_result(work())
            except BaseException as exc:
                future.set_exception(exc)

        self._calls.put(run)
        self._wake()
        while True:
            try:
                return future.result(3 * self._patience)
            except TimeoutError:
                if not (certain and self._thread.is_alive()) or future.done():
                    break
        if not future.cancel():  # it runs: each of its steps has a deadline
            return future.result()
        if self._stopping or not self._thread.is_alive():
            raise stopping()  # this object's thread ends with the last worker
        raise ConfigError("a reload is under way, and takes long", remedy="wait until it has ended, then try again")

    def _collect(self) -> list[tuple[int, reload_messages.Message]]:
        if self._stopping or self.was_replaced:
            raise stopping()
        self._round += 1
        self._given = []
        try:
            self._ask_all("give")
            if not all(message.complete for _, message in self._given):
                raise ConfigError("no descriptor is left for the workers' sockets", remedy="raise LimitNOFILE, or ulimit -n")
        except BaseException:
            for _, message in self._given:
                for sock in message.sockets:
                    sock.close()
            raise
        found, self._given = self._given, []
        return found

    def _replaced(self, taken: Mapping[int, Sequence[int]], kept: Collection[int]) -> None:
        self.was_replaced = True
        self._answers.clear()
        try:
            for number in list(self._links):
                self._send(number, "replaced", taken=list(taken.get(number, ())))
            self._wait()
        except StcpError as exc:
            _log.warning("a worker does not say that it drains", why=exc.what, remedy="see that it has ended")
        for each in self._listeners.values():
            each.hand_over(kept)

    # -- the thread ------------------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        while self._links:
            self._listen(None)
            with contextlib.suppress(queue.Empty):
                while True:
                    self._calls.get_nowait()()
            while (self._wanted or self._asked) and self._links:
                asked, self._asked, self._wanted = sorted(self._asked), set(), False
                force, self._force = self._force, False
                try:
                    self._reload(asked, force=force)
                except Exception as exc:
                    _log.error("a reload failed", why=f"{type(exc).__name__}: {exc}", remedy="restart the proxy", exc_info=exc)

    def _reload(self, asked: list[int], *, force: bool) -> None:
        self._round, self._admin = self._round + 1, None
        opened: dict[str, WorkerListeners] = {}
        sd_notify.reloading()
        try:
            try:
                plan, diff = self._agree(opened, force=force)
            except Exception as exc:
                for each in (*opened.values(), *([self._admin] if self._admin is not None else [])):
                    each.close()
                what = exc.what if isinstance(exc, StcpError) else f"{type(exc).__name__}: {exc}"
                self._send_to_all("refused", why=what, remedy=exc.remedy if isinstance(exc, StcpError) else None, asked=asked)
                if not self._stopping:
                    log_refused(exc)
                return
            self._commit(plan, opened, asked)
        finally:
            if not self._stopping:
                sd_notify.ready(workers_status(self.plan))
        log.change(plan.log)
        _log.info("reloaded", **summary(diff))

    def _agree(self, opened: dict[str, WorkerListeners], *, force: bool) -> tuple[Plan, PlanDiff]:
        """Do every step that can fail.

        Args:
            opened: filled with the listeners that are new.
            force: see `compared`.

        Raises:
            StcpError: why it was refused.
        """
        if self._stopping or self.was_replaced:
            raise stopping()
        if self._read is None:
            raise no_file()
        plan = self._read()()
        diff = compared(self.plan, plan, force=force)
        self._send_plan(plan_bytes.dump(plan), force=force)
        handed = inherit(self.plan, plan, without={name for name, each in self._listeners.items() if each.lost})
        kept = set(handed.values())
        leaving = {each.port for name, each in self._listeners.items() if name not in kept}
        for tunnel in plan.tunnels:
            if tunnel.name not in handed:
                opened[tunnel.name] = WorkerListeners.open(tunnel, plan.workers, leaving=leaving)
        self._admin = self._beside.prepare(plan) if self._beside is not None else None
        self._send_listeners(opened)
        if self._stopping:
            raise stopping()
        return plan, diff

    def _send_plan(self, plan: bytes, *, force: bool) -> None:
        """Send the plan to every worker, each through a socket of its own, and wait until all have prepared it."""
        self._answers.clear()
        for number in list(self._links):
            ours, theirs = socket.socketpair()
            with ours:
                with theirs:
                    self._send(number, "plan", sockets=[theirs], force=force)
                ours.settimeout(self._patience)
                with contextlib.suppress(OSError):  # a worker that does not take it does not say yes either
                    ours.sendall(plan)
        self._wait()

    def _send_listeners(self, opened: dict[str, WorkerListeners]) -> None:
        self._answers.clear()
        for number in list(self._links):
            admin = (self._admin.listeners or []) if self._admin is not None and number == 0 else []  # the first worker serves it
            found = {name: each.sets[number] for name, each in opened.items()} | {reload_messages.ADMIN: admin}
            for sockets, part in reload_messages.listeners_in_parts(found):
                self._send(number, "listeners", sockets=sockets, **part)
        self._wait()

    def _commit(self, plan: Plan, opened: dict[str, WorkerListeners], asked: list[int]) -> None:
        """Apply the change. It cannot fail: a worker that does not answer in time applies it when it runs again."""
        handed = {name: giver for name, giver in inherit(self.plan, plan).items() if name not in opened}
        listeners = {name: self._listeners[giver] for name, giver in handed.items()} | opened
        for name, each in self._listeners.items():
            if name not in handed.values():
                each.close()  # the file goes first: whoever has connected already is let in by the workers
        self.plan, self._listeners = plan, listeners
        try:
            self._ask_all("commit", asked=asked)
        except StcpError as exc:
            if not self._stopping:
                _log.warning("a worker does not say that it has made the change", why=exc.what, remedy="restart the proxy")
        for tunnel in plan.tunnels:
            listeners[tunnel.name].change_mode(tunnel.bind_mode)
        for each in opened.values():
            each.close_tcp_sockets()
        if self._admin is not None:
            self._admin.commit()

    # -- with the workers ------------------------------------------------------------------------------------------------------

    def _ask_all(self, verb: str, **rest: Any) -> None:
        """Send a message to every worker, and wait until all have answered yes.

        Raises:
            StcpError: one has said no, or nothing.
        """
        self._answers.clear()
        for number in list(self._links):
            self._send(number, verb, **rest)
        self._wait()

    def _wait(self) -> None:
        deadline = time.monotonic() + self._patience
        workers = range(self.plan.workers)
        while True:
            for number, said in self._answers.items():
                if said.verb == "no":
                    raise ConfigError(f"worker {number}: {said.rest['why']}", remedy=said.rest["remedy"])
            if self._links.keys() != set(workers):
                raise stopping()  # one has ended, and the others follow
            silent = [number for number in workers if number not in self._answers]
            if not silent:
                return
            left = deadline - time.monotonic()
            if left <= 0:
                raise reload_messages.silent(silent[0], self._patience)
            self._listen(left)

    def _send(self, number: int, verb: str, *, sockets: Sequence[socket.socket] = (), **rest: Any) -> None:
        link = self._links[number]
        deadline = time.monotonic() + self._patience
        while True:
            try:
                reload_messages.send(link, verb, self._round, sockets=sockets, **rest)
                return
            except BlockingIOError:
                left = deadline - time.monotonic()
                if left <= 0 or not reload_messages.is_ready(link, select.POLLOUT, left):
                    raise reload_messages.silent(number, self._patience) from None
            except ConnectionError:
                raise stopping() from None

    def _send_to_all(self, verb: str, **rest: Any) -> None:
        """Send a message to every worker; one that cannot receive is skipped."""
        for link in self._links.values():
            with contextlib.suppress(OSError):
                reload_messages.send(link, verb, self._round, **rest)

    def _listen(self, seconds: float | None) -> None:
        """Receive messages of the workers. Return after the first ones, on a request of this process, or at the deadline."""
        poll = select.poll()
        poll.register(self._hears, select.POLLIN)
        links = {link.fileno(): number for number, link in self._links.items()}
        for fd in links:
            poll.register(fd, select.POLLIN)
        for fd, _ in poll.poll(None if seconds is None else max(1.0, seconds * 1000)):
            if fd == self._hears.fileno():
                self._hears.recv(1)
            else:
                self._receive(links[fd])

    def _receive(self, number: int) -> None:
        heard = reload_messages.receive(self._links[number])
        if heard is None:
            self._links.pop(number).close()
        elif heard.verb == "ask":
            self._asked.add(number)
            self._force |= bool(heard.rest.get("force"))
        elif heard.round != self._round:
            for sock in heard.sockets:
                sock.close()
        else:
            if heard.verb == "sockets":
                self._given.append((number, heard))
            if heard.rest.get("last", True):
                self._answers[number] = heard
