"""How a tunnel keeps wire legs: its `keep` as part of the plan."""

from __future__ import annotations

from stcp_proxy.config.plan import KeepPlan
from stcp_proxy.config.source import KeyPath, Source
from stcp_proxy.config.tunnel_models import TunnelModel
from stcp_proxy.protocol.wire import MAX_KEEP


def keep_plan(source: Source, path: KeyPath, tunnel: TunnelModel) -> KeepPlan | None:
    """The plan of `keep`; None where each connection has a wire leg of its own.

    Args:
        source: collects the mistakes.
        path: the tunnel's place in the file.
        tunnel: its settings.
    """
    keep = tunnel.keep
    if keep is None:
        return None
    path = (*path, "keep")
    if not 1 <= keep.idle <= MAX_KEEP:
        source.report((*path, "idle"), f"a wire leg is kept for 1 to {MAX_KEEP} seconds", "write 30s, for example")
    if keep.ready:
        path = (*path, "ready")
        if tunnel.mode == "listen":
            source.report(path, "a listen tunnel makes no wire legs", "set it in the connect tunnel of the peer")
        elif tunnel.intercept is not None:
            source.report(path, "an intercepting tunnel makes no wire legs ahead", "remove it")
        elif keep.ready > keep.legs:
            source.report(path, f"at most {keep.legs} wire legs wait in this tunnel", "raise 'legs' too")
    return KeepPlan(keep.idle, keep.max_age, keep.legs, keep.ready)
