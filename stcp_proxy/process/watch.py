"""`watch`: a reload when the files of the configuration have changed.

    every `watch` seconds: compare the content of all files with the digests of the plan in force
    a difference: wait until the content stays the same (SETTLE), then reload as SIGHUP does

Invariants:
- The content decides. Times of change and events of a file system say nothing: a directory of Kubernetes is exchanged through a
  symbolic link, and some file systems have no events. So there is no inotify here; a shorter `watch` is as quick.
- Files are read in a thread. The connections do not wait.
- A content that was refused is tried again with growing pauses: a wrong file mode or a taken address may be corrected, and
  neither changes the content.
- Worker 0 watches for all worker processes.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from typing import Final

import structlog
import trio

from stcp_proxy.config.inputs import changed
from stcp_proxy.process.reload import Reloader

_log = structlog.get_logger("stcp_proxy.watch")

SETTLE: Final = 1.0
"""Seconds in which the content has to stay the same before a reload: a program that writes several files is done by then."""
_MOST_LOOKS: Final = 20
"""Looks at files that never settle. Then they are read as they are: the reload checks them."""
_LONGEST_PAUSE: Final = 300.0
_MOST_DOUBLINGS: Final = 32
"""Doublings of the pause. Without a bound a file that stays wrong for days would end the process: no float holds 2**1024."""
_MOST_NAMES: Final = 10

Look = Callable[[Mapping[str, bytes]], dict[str, bytes]]
"""Returns the files whose content differs from the given digests, with their digests now."""


class Watcher:
    """Reloads when files change.

    Args:
        reloader: has the plan in force, and reloads.
        look: compares files; it runs in a thread.
    """

    def __init__(self, reloader: Reloader, look: Look = changed) -> None:
        self._reloader = reloader
        self._look_at = look
        self._reloaded = trio.Event()
        self._refused: dict[str, bytes] = {}
        """The content that was refused last."""
        self._attempts = 0
        self._again = 0.0
        """When that content is tried again."""
        reloader.after.append(self._wake)

    async def serve(self) -> None:
        """Watch until cancelled, or until this process drains. A reload starts and ends the watch as its plan says."""
        while True:
            self._reloaded = trio.Event()
            interval = self._reloader.now.watch
            if interval is None:
                await self._reloaded.wait()
                continue
            with trio.move_on_after(interval):
                await self._reloaded.wait()
                continue
            if self._reloader.stopping:
                return
            await self._look(interval)

    def _wake(self) -> None:
        self._reloaded.set()

    async def _look(self, interval: float) -> None:
        found = await self._changed()
        if found and found == self._refused and trio.current_time() < self._again:
            return
        found = await self._settled(found, min(SETTLE, interval))
        if not found:
            self._refused = {}
            return
        if found != self._refused:
            self._attempts = 0
            _log.info("files changed", files=_names(found))
        self._attempts = min(self._attempts + 1, _MOST_DOUBLINGS)
        self._refused, self._again = found, trio.current_time() + min(interval * 2**self._attempts, _LONGEST_PAUSE)
        with contextlib.suppress(Exception):  # it is in the log, and everything goes on as before
            await self._reloader.reload()
            self._refused = {}

    async def _settled(self, found: dict[str, bytes], seconds: float) -> dict[str, bytes]:
        """The changed files once their content stays the same; empty when nothing differs any more."""
        for _ in range(_MOST_LOOKS):
            if not found:
                break
            await trio.sleep(seconds)
            before, found = found, await self._changed()
            if found == before:
                break
        return found

    async def _changed(self) -> dict[str, bytes]:
        inputs = self._reloader.now.inputs
        return await trio.to_thread.run_sync(self._look_at, inputs, abandon_on_cancel=True)


def _names(found: Mapping[str, bytes]) -> list[str]:
    names = sorted(found)
    more = len(names) - _MOST_NAMES
    return names if more <= 0 else [*names[:_MOST_NAMES], f"and {more} more"]
