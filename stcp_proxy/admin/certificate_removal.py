"""Whether a certificate can be removed from the file. `key_removal` answers the same for keys.

A certificate of an authority can be removed when it vouches for no open connection, and each peer that came with it has come
with another authority since. A certificate of a peer that has expired needs no authority.

Several hosts may share a name, and each may change its certificate at a time of its own. So the answer is "not known" when a
name has come with both authorities by turns.
"""

from __future__ import annotations

import collections
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Final, Literal

from stcp_proxy.admin.certificate_schema import AuthorityUse, CertificateStatus

Answer = tuple[Literal["yes", "no", "unknown"], str]
Uses = dict[str, dict[str, AuthorityUse]]

_NAMED: Final = 3
"""Peers that an answer names; the others are counted."""
_WITHOUT_EVIDENCE: Final[dict[str, Answer]] = {
    "certificate": ("no", "its tunnels have no other; a renewed one in its files replaces it without a cut"),
    "revocation list": ("no", "the certificates that it revokes would be admitted again"),
}


def judge(
    certificates: Sequence[CertificateStatus], uses: Sequence[AuthorityUse], forgotten: Mapping[str, int], now: float
) -> list[CertificateStatus]:
    """Return the same certificates, each with its answer.

    Args:
        certificates: the certificates, with their use in all worker processes.
        uses: which authority vouched for which peer, in all worker processes.
        forgotten: peers that are no longer among `uses`, by the authority's key.
        now: the time, in seconds since 1970.
    """
    by_peer: Uses = collections.defaultdict(dict)
    for use in uses:
        if use.not_after > now:
            by_peer[use.peer][use.key_id] = use
    authorities = [each for each in certificates if each.kind == "authority"]
    found = []
    for each in certificates:
        answer = _WITHOUT_EVIDENCE.get(each.kind) or _authority(each, authorities, by_peer, forgotten, now)
        found.append(replace(each, may_go=answer[0], why=answer[1]))
    return found


def _authority(
    each: CertificateStatus, authorities: Sequence[CertificateStatus], by_peer: Uses, forgotten: Mapping[str, int], now: float
) -> Answer:
    others = {other.key_id for other in authorities if other is not each and not _is_over(other, now)}
    if not others:
        return "no", "it is the only one"
    same = [other for other in authorities if other is not each and (other.name, other.key_id) == (each.name, each.key_id)]
    if any((other.not_after or 0.0) > (each.not_after or 0.0) for other in same):
        return "yes", "a later certificate of the same key is in the file"
    if each.connections:
        return "no", f"open connections: {each.connections}"
    if _is_over(each, now):
        return "yes", "it has expired"
    needed, by_turns = [], []
    for peer, known in by_peer.items():
        use = known.get(each.key_id)
        since = [other for key, other in known.items() if key in others and key != each.key_id]
        if use is None:
            continue
        if all(other.last <= use.last for other in since):
            needed.append(peer)
        elif all(other.first <= use.last for other in since):
            by_turns.append(peer)
    if needed:
        return "no", f"not seen with another authority since: {_names(needed)}"
    if by_turns:
        return "unknown", f"seen with this one and with another by turns, so several hosts may share the name: {_names(by_turns)}"
    if forgotten.get(each.key_id):
        return "unknown", f"more peers came with it than are remembered: {forgotten[each.key_id]:,} are not"
    if each.last_use is None:
        return "unknown", "no peer has come with it since the start"
    return "yes", "every peer has come with another authority since, or its certificate has expired"


def _is_over(each: CertificateStatus, now: float) -> bool:
    return each.not_after is not None and now > each.not_after


def _names(peers: Sequence[str]) -> str:
    found = sorted(peers)
    rest = f" and {len(found) - _NAMED:,} more" if len(found) > _NAMED else ""
    return ", ".join(found[:_NAMED]) + rest
