"""Settings of certificates; ``models`` explains the format."""

from __future__ import annotations

from typing import Annotated, Final, Literal

from pydantic import Field

from stcp_proxy.config.setting import Flag, Model, Setting
from stcp_proxy.config.value_types import CertificateName, File, Several

CERTIFICATES: Final = "Certificates"


class CertificateModel(Model):
    """`certificate:`"""

    chain: Annotated[
        File,
        Setting(
            "A PEM file with the certificate of this side, then its intermediates.",
            flag=Flag("FILE", name="certificate", panel=CERTIFICATES, text="The certificate of this side, as PEM."),
        ),
    ]
    key: Annotated[
        File,
        Setting(
            "A PEM file with its private key, which only its owner may read.",
            flag=Flag("FILE", name="certificate-key", panel=CERTIFICATES, text="The private key of the certificate, as PEM."),
        ),
    ]


class AuthorityModel(Model):
    """One entry of `authorities:`"""

    bundle: Annotated[
        File,
        Setting(
            "A PEM file with the certificates of the authority; several while one replaces another. All certificates of one key "
            "belong to one authority."
        ),
    ]
    crl: Annotated[list[File] | None, Several(), Setting("PEM files with revocation lists of the authority.", default="none")] = (
        Field(None, min_length=1)
    )
    crl_overdue: Annotated[
        Literal["warn", "refuse"],
        Setting(
            "What follows when a revocation list was not replaced in time: a warning, or the refusal of new connections by all "
            "certificates of the authority. With 'refuse', a certificate of the bundle has to have signed each list."
        ),
    ] = "warn"
    names: Annotated[
        list[CertificateName] | None,
        Several(),
        Setting("Names that it may vouch for, with '*' within a part and '**' for path segments.", default="all names"),
    ] = Field(None, min_length=1)
