"""The taxonomy of failures: who caused each, its code on the wire, its label in logs and metrics, and what it means.

Every expected failure is an `StcpError`. Its text is one sentence of the form *what happened: why; what to do*, fit for an
operator's log. A failure judges itself: the log, the metrics, failover and health all read its `Judgement`.

- ``base``       `StcpError`, and the wire code of any exception
- ``judgement``  what a failure means for the log, for failover, and for the health of an endpoint
- ``codes``      the codes of REJECT and RESET: meaning, remedy, judgement
- ``ends``       the ends of relayed connections
- ``handshake``  failures of a peer that has not authenticated
- ``peer``       failures of an authenticated peer
- ``local``      failures on this side: configuration, application, target, limits
"""

from stcp_proxy.errors.base import Cause, StcpError, code_for
from stcp_proxy.errors.codes import Code, describe, remedy_for
from stcp_proxy.errors.ends import EndReason
from stcp_proxy.errors.handshake import (
    BindingRefused,
    CertificateChainRefused,
    CertificateExpired,
    CertificateNameRefused,
    CertificateNotAllowed,
    CertificateNotYetValid,
    CertificateRevoked,
    CertificateRoleRefused,
    ConnectCheck,
    CredentialRefused,
    HandshakeClosed,
    HandshakeError,
    HandshakeNotAuthentic,
    HandshakeTimedOut,
    MalformedHandshake,
    MessageReplayed,
    NotStcp,
    PeerLeft,
    SuiteRefused,
    UnknownAuthority,
    UnknownPeer,
    VersionRefused,
)
from stcp_proxy.errors.judgement import REFUSED, Judgement, LogClass, NextPeer, Severity
from stcp_proxy.errors.local import (
    ClientGone,
    ConfigError,
    KeyFileError,
    LifetimeOver,
    NoRoute,
    NotIntercepted,
    OverLimit,
    OwnConnection,
    PeerOverLimit,
    ProxyHeaderRefused,
    RulesRefused,
    ShuttingDown,
    TargetError,
    TargetRefused,
    TargetTimedOut,
    TargetUnreachable,
)
from stcp_proxy.errors.peer import (
    CounterExhausted,
    Denied,
    FirstFrameError,
    FirstFrameNotAuthentic,
    FrameError,
    FrameNotAuthentic,
    KeyRevoked,
    NoAnswer,
    PeerRejected,
    PeerUnreachable,
    ServiceUnknown,
    Truncated,
)

__all__ = [
    "REFUSED",
    "BindingRefused",
    "Cause",
    "CertificateChainRefused",
    "CertificateExpired",
    "CertificateNameRefused",
    "CertificateNotAllowed",
    "CertificateNotYetValid",
    "CertificateRevoked",
    "CertificateRoleRefused",
    "ClientGone",
    "Code",
    "ConfigError",
    "ConnectCheck",
    "CounterExhausted",
    "CredentialRefused",
    "Denied",
    "EndReason",
    "FirstFrameError",
    "FirstFrameNotAuthentic",
    "FrameError",
    "FrameNotAuthentic",
    "HandshakeClosed",
    "HandshakeError",
    "HandshakeNotAuthentic",
    "HandshakeTimedOut",
    "Judgement",
    "KeyFileError",
    "KeyRevoked",
    "LifetimeOver",
    "LogClass",
    "MalformedHandshake",
    "MessageReplayed",
    "NextPeer",
    "NoAnswer",
    "NoRoute",
    "NotIntercepted",
    "NotStcp",
    "OverLimit",
    "OwnConnection",
    "PeerLeft",
    "PeerOverLimit",
    "PeerRejected",
    "PeerUnreachable",
    "ProxyHeaderRefused",
    "RulesRefused",
    "ServiceUnknown",
    "Severity",
    "ShuttingDown",
    "StcpError",
    "SuiteRefused",
    "TargetError",
    "TargetRefused",
    "TargetTimedOut",
    "TargetUnreachable",
    "Truncated",
    "UnknownAuthority",
    "UnknownPeer",
    "VersionRefused",
    "code_for",
    "describe",
    "remedy_for",
]
