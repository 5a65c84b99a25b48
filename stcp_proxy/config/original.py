"""Checks of `to: original` and `allow_targets`: a listen tunnel dials the original destinations of its peers' clients.

Without a list of allowed targets, a peer could reach every address that this host can reach. So each setting requires the other.
"""

from __future__ import annotations

from stcp_proxy.config.source import KeyPath, Source
from stcp_proxy.config.tunnel_models import HandOnModel, TunnelModel
from stcp_proxy.config.value_types import ORIGINAL
from stcp_proxy.net.pattern import Pattern


def check_peer_is_named(source: Source, path: KeyPath, tunnel: TunnelModel) -> None:
    """Note `original` in place of the peer's address."""
    if tunnel.dials_original:
        what = "a connect tunnel dials its peer, and 'original' is not the address of a peer"
        source.report((*path, "to"), what, "write where the peer listens; 'to: original' belongs to its listen tunnel")


def allowed_targets(source: Source, path: KeyPath, model: HandOnModel, tunnel: TunnelModel) -> tuple[Pattern, ...] | None:
    """The original destinations that may be dialled; None when `to` has no `original`.

    Args:
        source: collects the mistakes.
        path: the key path of `model`.
        model: the tunnel or one of its services.
        tunnel: the source of the default where the model has no `allow_targets`.
    """
    _check_rules(source, path, model, tunnel)
    if not model.dials_original:
        return None
    to = model.to or []
    if to[0] != ORIGINAL or to.count(ORIGINAL) > 1:
        what = "'original' must be first, and once"
        source.report((*path, "to"), what, "write it first; the targets after it are dialled where it is not allowed")
    rules = tunnel.allow_targets if model.allow_targets is None else model.allow_targets
    if rules is None:
        what = "without 'allow_targets' a peer could reach every address that this host can reach"
        source.report((*path, "to"), what, "list the allowed destinations under 'allow_targets' in a file, like 10.0.0.0/8:6379")
    return tuple(rules or ())


def _check_rules(source: Source, path: KeyPath, model: HandOnModel, tunnel: TunnelModel) -> None:
    if model.allow_targets is None:
        return
    where = (*path, "allow_targets")
    users = [model]
    if model is tunnel:
        users += [service for service in (tunnel.services or {}).values() if service.allow_targets is None]
    if not any(user.dials_original for user in users):
        what = "no original destination is dialled here, so this has no effect"
        source.report(where, what, "write 'original' first under 'to', or remove this")
    for index, rule in enumerate(model.allow_targets):
        if rule.name is not None:
            what = f"{rule} is a name, and its name server would decide which address is dialled"
            source.report((*where, index), what, "write its address or network")
