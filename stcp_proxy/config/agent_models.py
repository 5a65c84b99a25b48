"""The settings of the agent of kernel sockets, as `models` has those of the whole file."""

from __future__ import annotations

from typing import Annotated, Final

from pydantic import Field

from stcp_proxy.config.agent_plan import AgentPlan
from stcp_proxy.config.setting import Flag, Model, Setting, default_of
from stcp_proxy.config.tunnel_models import KEY_FLAG, KEYS, LIMITS, PSK_FLAG, OnePeer, Suites
from stcp_proxy.config.value_types import Allowed, File, Identity, Limit, Name, Rule, Several, User

_AGENT: Final = ("agent",)


class ExpectedPeerModel(Model):
    """One entry of `connect:` of an identity"""

    match: Annotated[Rule, Setting("Addresses that sockets connect to: a network, with a port or a range of ports.")]
    peer: Annotated[
        OnePeer | None,
        Setting(
            "The peer that answers there: a name from peers, a public key, or the name of its certificate.",
            default="none; required with keys",
        ),
    ] = None
    service: Annotated[
        Name | None, Setting("The service to ask for where a socket names none.", default="none: what the peer has without one")
    ] = None


class IdentityModel(Model):
    """One entry of `identities:` of the agent"""

    users: Annotated[
        list[User],
        Several(),
        Field(min_length=1),
        Setting(
            "Users whose sockets may use this identity: names or numbers, or all.",
            flag=Flag(
                "USER",
                name="user",
                text="A user whose sockets may use this identity: a name or a number, or all.",
                repeated=_AGENT,
                required=_AGENT,
            ),
        ),
    ]
    allow: Annotated[
        list[Allowed] | None,
        Several(),
        Setting(
            "Peers that may connect to listening sockets: names from peers, @groups, public keys, or names of certificates.",
            default="nobody",
            flag=Flag(
                "[NAME=]PUBKEY",
                panel=KEYS,
                text="A public key that may connect to listening sockets, or the name of a certificate: dns:NAME or a URI.",
                repeated=_AGENT,
            ),
        ),
    ] = Field(None, min_length=1)
    services: Annotated[
        list[Name] | None,
        Several(),
        Setting(
            "Services that a peer may ask listening sockets for. A peer may always name none.",
            default="none",
            flag=Flag("NAME", name="service", text="A service that a peer may ask listening sockets for.", repeated=_AGENT),
        ),
    ] = Field(None, min_length=1)
    connect: Annotated[
        list[ExpectedPeerModel] | None,
        Setting(
            "The peers that sockets may connect to; the first entry that matches decides. A socket without one gets ENOKEY.",
            default="none",
            flag=Flag(
                "ADDR[=PEER]",
                name="peer",
                panel=KEYS,
                text="Addresses that sockets may connect to, and the public key or certificate name that answers there.",
                repeated=_AGENT,
            ),
        ),
    ] = Field(None, min_length=1)
    identity: Annotated[
        Identity | None,
        Setting(
            "The identity's own private key files.",
            default="the file's 'identity'",
            flag=KEY_FLAG,
        ),
    ] = None
    psk: Annotated[
        File | None,
        Setting(
            "A file with a shared secret, the same on both sides: instead of keys, or beside them as a second proof.",
            default="the file's 'psk' where the identity has no keys",
            flag=PSK_FLAG,
        ),
    ] = None
    suite: Annotated[
        Suites | None,
        Setting(
            "Key exchange: the one that connecting sockets send, all that listening sockets accept.",
            default="the file's 'suite', else hybrid",
            flag=Flag(panel=KEYS, text="The key exchange: X25519 with ML-KEM-768, or X25519 alone.", repeated=_AGENT),
        ),
    ] = None


class AgentModel(Model):
    """`agent:`"""

    identities: Annotated[
        dict[Name, IdentityModel],
        Field(min_length=1),
        Setting("Identities by name. A socket names one by STCP_IDENTITY; the identity 'default' is for sockets that name none."),
    ]
    max_handshakes: Annotated[
        Limit,
        Setting(
            "Handshakes at a time. Beyond it a newcomer takes the place of a stranger, or waits.", flag=Flag("N", panel=LIMITS)
        ),
    ] = default_of(AgentPlan, "max_handshakes")
