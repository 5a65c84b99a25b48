"""Make the certificates of a plan from their settings. Each mistake is noted at its place in the source."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from stcp_proxy.config.certificate_plan import AuthorityPlan, CertificateAuth, Encoded, OwnCertificate, Revoked, Trusted
from stcp_proxy.config.models import ConfigModel
from stcp_proxy.config.source import KeyPath, Source
from stcp_proxy.credentials.names import NamePattern
from stcp_proxy.errors import ConfigError
from stcp_proxy.keys import PublicKey
from stcp_proxy.protocol.wire import Role
from stcp_proxy.redact import shown

if TYPE_CHECKING:
    from stcp_proxy.config.certificate_models import AuthorityModel


class Certificates:
    """The certificates of one configuration. Every file is read once, used or unused.

    Args:
        source: collects the mistakes.
        config: the configuration.

    Attributes:
        trusted: the authorities, and what is revoked.
        revoked_keys: public keys of peers that are revoked.
    """

    def __init__(self, source: Source, config: ConfigModel) -> None:
        self._source = source
        self._config = config
        self._now = time.time()
        self._own = self._load_own()
        found = [self._authority(name, model) for name, model in config.authorities.items()]
        authorities = tuple(authority for authority in found if authority is not None)
        self._check_distinct(authorities)
        revoked, self.revoked_keys = self._load_revoked()
        self.trusted = Trusted(authorities, revoked)

    def auth(self, path: KeyPath, mode: str, patterns: Sequence[tuple[KeyPath, NamePattern]]) -> CertificateAuth | None:
        """The authentication of a tunnel by certificates; None after a mistake.

        Args:
            path: the key path of the tunnel.
            mode: "listen" or "connect".
            patterns: the names of its peers, each with its key path; at least one.
        """
        key, source = self._source.key, self._source
        if self._config.certificate is None:
            remedy = f"set {key('certificate')} to this side's own; each side presents one"
            if source.from_flags:
                remedy = "give --certificate and --certificate-key of this side; each side presents one"
            source.report(patterns[0][0], "this names a certificate, and this side has none", remedy)
        if not self._config.authorities:
            remedy = "name the authority that issued the peer's certificate"
            what = f"{key('authorities')} is missing, so nobody could vouch for this name"
            source.report(patterns[0][0], what, remedy)
        if self._own is None or not self.trusted.authorities:
            return None
        self._check_role(path, mode, self._own)
        texts = tuple(dict.fromkeys(pattern.text for _, pattern in patterns))
        return CertificateAuth(self._own, self.trusted, texts, self._config.expired == "end")

    def _check_role(self, path: KeyPath, mode: str, own: OwnCertificate) -> None:
        from stcp_proxy.config.certificate_files import role_problem

        problem = role_problem(own, Role.RESPONDER if mode == "listen" else Role.INITIATOR)
        if problem is not None:
            remedy = "issue it with the extended key usage of this side, or with none"
            self._source.report(path, f"{problem}, as this {mode} tunnel needs it", remedy)

    def _load_own(self) -> OwnCertificate | None:
        if self._config.certificate is None:
            return None
        from stcp_proxy.config.certificate_files import load_own

        try:
            return load_own(self._file(self._config.certificate.chain), self._file(self._config.certificate.key), now=self._now)
        except ConfigError as exc:
            self._source.blame(("certificate",), exc)
            return None

    def _authority(self, name: str, model: AuthorityModel) -> AuthorityPlan | None:
        from stcp_proxy.config.certificate_files import load_lists, load_roots

        where: KeyPath = ("authorities", name)
        try:
            roots = load_roots(self._file(model.bundle), now=self._now)
        except ConfigError as exc:
            self._source.blame((*where, "bundle"), exc)
            return None
        refuses_overdue = model.crl_overdue == "refuse"
        lists: list[Encoded] = []
        for index, file in enumerate(model.crl or []):
            try:
                lists += load_lists(self._file(file), roots, signed=refuses_overdue)
            except ConfigError as exc:
                self._source.blame((*where, "crl", index), exc)
        names = tuple(pattern.text for pattern in model.names or [])
        if refuses_overdue and not model.crl:
            remedy = "name the revocation lists of the authority, or remove the setting"
            self._source.report((*where, "crl_overdue"), "'refuse' has no list that could be overdue: 'crl' is missing", remedy)
        return AuthorityPlan(name, roots, names, tuple(lists), refuses_overdue)

    def _check_distinct(self, authorities: Sequence[AuthorityPlan]) -> None:
        """Two authorities with one root key would be one: a peer's certificate does not say which of them vouches for it."""
        owners: dict[str, str] = {}
        for authority in authorities:
            first = next((name for root in authority.roots if (name := owners.get(root.facts.key_id)) is not None), None)
            if first is not None:
                what = f"it has the key of a certificate that {shown(first)} has too"
                remedy = "name all certificates of one key under one authority"
                self._source.report(("authorities", authority.name, "bundle"), what, remedy)
            owners.update((root.facts.key_id, authority.name) for root in authority.roots)

    def _load_revoked(self) -> tuple[Revoked, frozenset[PublicKey]]:
        if self._config.revoked is None:
            return Revoked(), frozenset()
        from stcp_proxy.config.certificate_files import load_revoked

        try:
            return load_revoked(self._file(self._config.revoked), frozenset(self._config.authorities))
        except ConfigError as exc:
            self._source.blame(("revoked",), exc)
            return Revoked(), frozenset()

    def _file(self, name: str) -> Path:
        return self._source.file(name)
