"""What a reload would change: the difference between two plans, as data.

A pure function of the two plans: `apply` of `difference(old, new)` to `old` gives `new`. Settings are compared field by field, so
a new setting needs no line here. A difference never shows a secret: keys appear by their public half.
"""

from __future__ import annotations

import dataclasses
import enum
import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from stcp_proxy.config.auth_plan import KeyAuth, PskAuth
from stcp_proxy.config.certificate_plan import CertificateAuth
from stcp_proxy.config.plan import Plan, TunnelPlan
from stcp_proxy.keys import PublicKey

_OWN: Final = "own"
_PEER: Final = "peer"


@dataclass(frozen=True, slots=True)
class Setting:
    """A setting with different values in the two plans.

    Attributes:
        name: the field's name in the plan.
        old, new: its values in the two plans.
    """

    name: str
    old: Any
    new: Any

    def words(self) -> tuple[str, str]:
        """Both values as text for a person, without secrets."""
        if self.name == "auth":
            return _auth_words(self.old, self.new), _auth_words(self.new, self.old)
        return words(self.old), words(self.new)


@dataclass(frozen=True, slots=True)
class TunnelChange:
    """A tunnel that is in both plans, with different settings.

    Attributes:
        name: the tunnel's name.
        settings: the settings that differ, at least one.
    """

    name: str
    settings: tuple[Setting, ...]


@dataclass(frozen=True, slots=True)
class NamedKey:
    """A public key with its role.

    Attributes:
        role: "own" for a key that this side proves, "peer" for one that it trusts.
        name: the peer's name; empty for an own key.
        key: the public key.
    """

    role: str
    name: str
    key: PublicKey

    def __str__(self) -> str:
        return f"{self.name or '(own)'} {self.key}"


@dataclass(frozen=True, slots=True)
class PlanDiff:
    """The changes from one plan to another plan.

    Attributes:
        added: tunnels that only the new plan has.
        removed: tunnels that only the old plan has.
        changed: tunnels that are in both plans with different settings.
        untouched: names of the tunnels that are equal in both plans.
        settings: the settings of the whole process that differ.
        keys_in: keys that only the new plan uses.
        keys_out: keys that only the old plan uses.
        order: names of the new plan's tunnels, in their order.
    """

    added: tuple[TunnelPlan, ...] = ()
    removed: tuple[TunnelPlan, ...] = ()
    changed: tuple[TunnelChange, ...] = ()
    untouched: tuple[str, ...] = ()
    settings: tuple[Setting, ...] = ()
    keys_in: tuple[NamedKey, ...] = ()
    keys_out: tuple[NamedKey, ...] = ()
    order: tuple[str, ...] = ()

    @property
    def empty(self) -> bool:
        """Whether the plans have the same tunnels and settings."""
        return not (self.added or self.removed or self.changed or self.settings)

    def lines(self) -> list[str]:
        """One line for each change, which begins with `+`, `-` or `~`, and one line for the unchanged tunnels."""
        found = [f"+ tunnel {tunnel.name} ({tunnel.mode}, {tunnel.bind})" for tunnel in self.added]
        found += [f"- tunnel {tunnel.name} ({tunnel.mode}, {tunnel.bind})" for tunnel in self.removed]
        for change in self.changed:
            for setting in change.settings:
                found.append(f"~ tunnel {change.name}: {_arrow(setting)}")
        found += [f"~ {_arrow(setting)}" for setting in self.settings]
        found += [f"+ key {key}" for key in self.keys_in]
        found += [f"- key {key}" for key in self.keys_out]
        if self.untouched:
            found.append(f"= untouched: {', '.join(self.untouched)}")
        return found

    def as_json(self) -> dict[str, Any]:
        """The changes as JSON for a program. A changed setting is a list of its old and its new value as text."""
        return {
            "added": [tunnel.name for tunnel in self.added],
            "removed": [tunnel.name for tunnel in self.removed],
            "changed": {change.name: _settings(change.settings) for change in self.changed},
            "untouched": list(self.untouched),
            "settings": _settings(self.settings),
            "keys_in": [_key_json(key) for key in self.keys_in],
            "keys_out": [_key_json(key) for key in self.keys_out],
        }


def difference(old: Plan, new: Plan) -> PlanDiff:
    """The changes from `old` to `new`."""
    before = {tunnel.name: tunnel for tunnel in old.tunnels}
    after = {tunnel.name: tunnel for tunnel in new.tunnels}
    both = [(before[name], tunnel) for name, tunnel in after.items() if name in before]
    found = [TunnelChange(mine.name, _compare(mine, theirs)) for mine, theirs in both]
    old_keys, new_keys = dict.fromkeys(keys_of(old)), dict.fromkeys(keys_of(new))  # thousands of keys: a look-up must be fast
    return PlanDiff(
        added=tuple(tunnel for name, tunnel in after.items() if name not in before),
        removed=tuple(tunnel for name, tunnel in before.items() if name not in after),
        changed=tuple(change for change in found if change.settings),
        untouched=tuple(change.name for change in found if not change.settings),
        settings=tuple(setting for setting in _compare(old, new) if setting.name != "tunnels"),
        keys_in=tuple(key for key in new_keys if key not in old_keys),
        keys_out=tuple(key for key in old_keys if key not in new_keys),
        order=tuple(after),
    )


def apply(diff: PlanDiff, old: Plan) -> Plan:
    """Apply the changes to `old`."""
    tunnels = {tunnel.name: tunnel for tunnel in (*old.tunnels, *diff.added)}
    for change in diff.changed:
        new = {setting.name: setting.new for setting in change.settings}
        tunnels[change.name] = dataclasses.replace(tunnels[change.name], **new)
    settings = {setting.name: setting.new for setting in diff.settings}
    return dataclasses.replace(old, tunnels=tuple(tunnels[name] for name in diff.order), **settings)


def keys_of(plan: Plan) -> list[NamedKey]:
    """Every key that a plan's tunnels and its agent use, own keys first. A key with two names is listed twice."""
    auths = [auth for auth in plan.auths if isinstance(auth, KeyAuth)]
    own = [NamedKey(_OWN, "", identity.public) for auth in auths for identity in auth.ring]
    peers = [NamedKey(_PEER, name, key) for auth in auths for key, name in auth.peers.items()]
    return list(dict.fromkeys(own + peers))


def words(value: Any) -> str:
    """A setting's value as text for a person. The text of a secret is redacted."""
    if value is None:
        return "none"
    if isinstance(value, enum.Enum):
        return str(value.name).lower() if isinstance(value, int) else str(value)
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, frozenset):
        return ", ".join(sorted(map(words, value))) or "none"
    if isinstance(value, tuple | list):
        return ", ".join(map(words, value)) or "none"
    if isinstance(value, Mapping):
        return ", ".join(f"{words(key)}: {words(item)}" for key, item in value.items()) or "none"
    if dataclasses.is_dataclass(value) and type(value).__str__ is object.__str__:
        parts = ((field.name, getattr(value, field.name)) for field in dataclasses.fields(value))
        return ", ".join(f"{name} {words(part)}" for name, part in parts)
    return str(value)


def _compare(old: Any, new: Any) -> tuple[Setting, ...]:
    """The fields that differ between two dataclass objects of one type."""
    fields = (field.name for field in dataclasses.fields(old) if field.compare)
    pairs = ((name, getattr(old, name), getattr(new, name)) for name in fields)
    return tuple(Setting(name, mine, theirs) for name, mine, theirs in pairs if mine != theirs)


def _arrow(setting: Setting) -> str:
    old, new = setting.words()
    return f"{setting.name} {old} -> {new}"


def _settings(settings: tuple[Setting, ...]) -> dict[str, list[str]]:
    return {setting.name: list(setting.words()) for setting in settings}


def _key_json(key: NamedKey) -> dict[str, str]:
    return {"role": key.role, "name": key.name, "key": str(key.key)}


def _auth_words(auth: KeyAuth | PskAuth, other: KeyAuth | PskAuth) -> str:
    """The keys and peers of `auth` that are missing in `other`, as text."""
    if isinstance(auth, PskAuth):
        return "a shared secret" if isinstance(other, KeyAuth) else "another shared secret"
    theirs = set(_auth_parts(other)) if isinstance(other, KeyAuth) else set()
    found = [f"{name} {key}" for name, key in _auth_parts(auth) if (name, key) not in theirs]
    before = other.psk if isinstance(other, KeyAuth) else None
    if auth.psk is not None and auth.psk != before:
        found.append("a shared secret beside keys" if before is None else "another shared secret beside keys")
    return ", ".join(found) or "none"


def _auth_parts(auth: KeyAuth) -> Iterator[tuple[str, object]]:
    for identity in auth.ring:
        yield "own key", identity.public
    for key, name in auth.peers.items():
        yield name, key
    if auth.audit is not None:
        yield "audit until", auth.audit.date
    if auth.certificates is not None:
        yield from _certificate_parts(auth.certificates)


def _certificate_parts(auth: CertificateAuth) -> Iterator[tuple[str, object]]:
    yield "own certificate", auth.own.facts
    for pattern in auth.allow:
        yield "peer", pattern
    for authority in auth.trusted.authorities:
        for root in authority.roots:
            yield f"authority {authority.name}", root.facts
        for each in authority.lists:
            yield f"revocation list of {authority.name}", each.facts
        if authority.refuses_overdue:
            yield f"authority {authority.name} with an overdue list", "refuses"
        yield f"authority {authority.name} may vouch for", words(authority.names) if authority.names else "all names"
    for key in auth.trusted.revoked.keys:
        yield "revoked key", hashlib.sha256(key).hexdigest()[:16]
    for name, serial in auth.trusted.revoked.serials:
        yield f"revoked certificate of {name}", f"serial {serial:x}"
    if auth.ends_expired:
        yield "connections of expired certificates", "end"
