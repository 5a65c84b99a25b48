"""Checks of a reload for losses: a file that is half written or old is refused, unless the reload is forced.

A refused reload changes nothing. A start has no plan to compare with, so it accepts every valid file.
"""

from __future__ import annotations

from stcp_proxy.config import Plan
from stcp_proxy.config.certificate_plan import Facts, time_text
from stcp_proxy.errors import ConfigError
from stcp_proxy.redact import shown


def check_losses(old: Plan, new: Plan) -> None:
    """Refuse a plan that has lost more than half of something, or an authority's newest revocation list.

    Args:
        old: what runs.
        new: what was read.

    Raises:
        ConfigError: what is lost.
    """
    _check_not_cut_off(old, new)
    _check_peers_remain(old, new)
    _check_authorities_remain(old, new)
    _check_revocations_remain(old, new)
    _check_lists_are_no_older(old, new)


def _check_peers_remain(old: Plan, new: Plan) -> None:
    """Refuse a change that takes away more than half of the peers of directories: a directory may be half written.

    A peer with another key, or with another name, is still there.

    Raises:
        ConfigError: the change is not forced.
    """
    before, names = set(old.included.values()), set(new.included.values())
    kept = {name for key, name in old.included.items() if name in names or key in new.known}
    if 2 * len(kept) < len(before):
        what = f"the peer directories have {len(kept)} of {len(before)} peers left, as if they were still being written"
        raise ConfigError(what, remedy="if they are complete, 'stcp-proxy reload --force' applies them; or restart")


def _check_authorities_remain(old: Plan, new: Plan) -> None:
    """Refuse a change that takes away more than half of the authorities' certificates: their peers would lose their connections.

    Raises:
        ConfigError: the change is not forced.
    """
    before, after = _roots(old), _roots(new)
    kept = len(before & after)
    if 2 * kept < len(before):
        what = f"{kept} of {len(before)} certificates of authorities are left, and the peers of the others would be refused"
        remedy = (
            "keep the old certificates in the bundle beside the new ones for a while; or 'stcp-proxy reload --force', or restart"
        )
        raise ConfigError(what, remedy=remedy)


def _check_revocations_remain(old: Plan, new: Plan) -> None:
    """Refuse a change that takes away more than half of what is revoked: these peers would be admitted again.

    A revoked serial number ends with its authority, and does not count then.

    Raises:
        ConfigError: the change is not forced.
    """
    authorities = {authority.name for authority in new.trusted.authorities}
    before, after = old.trusted.revoked, new.trusted.revoked
    were = {*before.keys, *(each for each in before.serials if each[0] in authorities)}
    kept = len(were & {*after.keys, *after.serials})
    if 2 * kept < len(were):
        what = f"the file of 'revoked' has {kept} of {len(were)} entries left, as if it were still being written"
        raise ConfigError(what, remedy="if it is complete, 'stcp-proxy reload --force' applies it; or restart")


def _check_not_cut_off(old: Plan, new: Plan) -> None:
    """Refuse a file that has lost more than half of its tunnels: one that is still being written looks the same.

    Raises:
        ConfigError: the file does not say that it is whole.
    """
    before, after = len(old.tunnels), len(new.tunnels)
    if 2 * after < before and not new.whole:
        what = f"the file has {after} of {before} tunnels left, as if it had been cut off"
        raise ConfigError(what, remedy="if this is all of it, end it with a line '...', or run 'stcp-proxy reload --force'")


def _check_lists_are_no_older(old: Plan, new: Plan) -> None:
    """Refuse an older revocation list in the place of a newer one: whom the authority has revoked since would be admitted again.

    Lists are compared that one authority of the file has from one issuer, unless they name different keys. A list that the file
    no longer names is not missed.

    Raises:
        ConfigError: the change is not forced.
    """
    lists = {authority.name: [each.facts for each in authority.lists] for authority in old.trusted.authorities}
    for authority in new.trusted.authorities:
        found = [each.facts for each in authority.lists]
        for before in lists.get(authority.name, []):
            same = [each for each in found if _have_one_signer(each, before)]
            if same and all(_is_older(each, before) for each in same):
                what = (
                    f"the revocation list of {shown(before.subject)} for authority {shown(authority.name)} is older than the one "
                )
                what += f"in force: {_list_text(same[0])} instead of {_list_text(before)}"
                remedy = "fetch the newest list; if the authority counts anew, 'stcp-proxy reload --force' applies it, or restart"
                raise ConfigError(what, remedy=remedy)


def _have_one_signer(one: Facts, other: Facts) -> bool:
    """Whether one issuer made two lists, as far as they say which key signed them."""
    return one.issuer == other.issuer and (one.key_id == other.key_id or not one.key_id or not other.key_id)


def _is_older(one: Facts, other: Facts) -> bool:
    """Whether an authority made a list before another one. The number decides, and the time where the number does not."""
    if one.serial and other.serial and one.serial != other.serial:
        return int(one.serial) < int(other.serial)
    return one.not_before < other.not_before


def _list_text(facts: Facts) -> str:
    return f"{f'number {facts.serial}' if facts.serial else 'a list'} of {time_text(facts.not_before)}"


def _roots(plan: Plan) -> set[bytes]:
    return {root.der for authority in plan.trusted.authorities for root in authority.roots}
