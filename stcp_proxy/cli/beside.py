"""What is served beside the tunnels of a process: the admin address, and the spans of connections."""

from __future__ import annotations

import socket
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

from stcp_proxy.cli.admin_companion import AdminCompanion
from stcp_proxy.config import Plan
from stcp_proxy.process.companion_change import Change

if TYPE_CHECKING:
    from stcp_proxy.process.running import Running
    from stcp_proxy.process.span_exporter import SpanChange, SpanExporter


class Beside:
    """See `stcp_proxy.process.companion.Companion`; a context manager.

    Args:
        plan: what the process serves, all worker processes together.
        listeners: listening sockets of an old process at the admin address; None to bind.

    Raises:
        ConfigError: the admin address cannot be listened on.
    """

    def __init__(self, plan: Plan, listeners: list[socket.socket] | None = None) -> None:
        self._plan = plan
        self._admin = AdminCompanion(plan, listeners)
        self._spans: SpanExporter | None = None
        if plan.otlp is not None or plan.workers > 1:
            self._spans = self._made(plan)

    def __enter__(self) -> Beside:
        return self

    def __exit__(self, *exc: object) -> None:
        self._admin.__exit__(*exc)
        if self._spans is not None:
            self._spans.close()

    def forked(self, worker: int | None) -> None:
        """See `Companion.forked`."""
        self._admin.forked(worker)
        if self._spans is not None:
            self._spans.forked(worker)

    @property
    def listeners(self) -> list[socket.socket]:
        """See `Companion.listeners`."""
        return self._admin.listeners

    def hand_over(self, taken: Collection[socket.socket]) -> None:
        """See `Companion.hand_over`."""
        self._admin.hand_over(taken)

    def prepare(self, plan: Plan, given: Sequence[socket.socket] | None = None) -> Change | None:
        """See `Changing.prepare`."""
        if self._spans is None and plan.otlp is not None:
            self._spans = self._made(self._plan)
        spans = None if self._spans is None else self._spans.prepare(plan)
        admin = self._admin.prepare(plan, given)
        return admin if spans is None else _Both(admin, spans)

    async def serve(self, running: Running) -> None:
        """See `Companion.serve`."""
        if self._spans is not None:
            self._spans.start()
        await self._admin.serve(running)

    @staticmethod
    def _made(plan: Plan) -> SpanExporter:
        from stcp_proxy.process.span_exporter import SpanExporter  # only where spans are wanted, now or by a reload

        return SpanExporter(plan)


class _Both:
    """See `stcp_proxy.process.companion_change.Change`."""

    def __init__(self, admin: Change | None, spans: SpanChange) -> None:
        self._admin, self._spans = admin, spans

    @property
    def listeners(self) -> list[socket.socket] | None:
        """See `Change.listeners`."""
        return None if self._admin is None else self._admin.listeners

    def commit(self) -> None:
        """See `Change.commit`."""
        if self._admin is not None:
            self._admin.commit()
        self._spans.commit()

    def close(self) -> None:
        """See `Change.close`."""
        if self._admin is not None:
            self._admin.close()
