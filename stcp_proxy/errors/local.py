"""Failures on this side: the configuration, the application, the target, limits, a stop."""

from __future__ import annotations

from stcp_proxy.errors.base import Cause, StcpError
from stcp_proxy.errors.codes import Code
from stcp_proxy.errors.judgement import CLIENT_LEFT, REFUSED, UNREACHABLE

# -- the configuration: reported before anything starts, exit status 2 ----------------------------------------------------


class ConfigError(StcpError):
    """A flag, a file or a key that cannot be used as it is."""

    cause = Cause.CONFIG
    label = "config"
    judgement = REFUSED


class RulesRefused(StcpError):
    """The system refuses to install or remove the rules that intercept connections."""

    cause = Cause.CONFIG
    label = "rules_refused"
    judgement = REFUSED


class KeyFileError(ConfigError):
    """A key file or key text that is missing, malformed, or open to others."""

    label = "key_file"
    judgement = REFUSED


# -- the application ------------------------------------------------------------------------------------------------------


class ClientGone(StcpError):
    """The application reset its connection before it could be carried."""

    cause = Cause.CLIENT
    code = Code.PLAIN_RESET
    label = "plain_reset"
    judgement = CLIENT_LEFT
    usual_remedy = "look at the application: it gave up, or was ended"


class ProxyHeaderRefused(StcpError):
    """The client sent no PROXY header where one must be, a malformed one, or one that it may not send."""

    cause = Cause.CLIENT
    code = Code.DENIED
    label = "proxy_header"
    judgement = REFUSED
    usual_remedy = "let only proxies that send a PROXY header connect here"


class NotIntercepted(StcpError):
    """A tunnel that accepts only intercepted connections got a connection that no rule had redirected."""

    cause = Cause.CLIENT
    code = Code.DENIED
    label = "not_intercepted"
    judgement = REFUSED


class NoRoute(StcpError):
    """The application dialled a destination that the tunnel's routes do not cover."""

    cause = Cause.CLIENT
    code = Code.DENIED
    label = "no_route"
    judgement = REFUSED


class OwnConnection(StcpError):
    """The interception rules redirected one of the proxy's own connections."""

    cause = Cause.CONFIG
    code = Code.DENIED
    label = "own_connection"
    judgement = REFUSED


class NoIdentity(StcpError):
    """No rule of the agent gives a kernel socket an identity, or a peer at its address."""

    cause = Cause.CONFIG
    code = Code.DENIED
    label = "no_identity"
    judgement = REFUSED


class AgentUnavailable(ConfigError):
    """The kernel does not let this process be the agent of its sockets."""

    label = "agent_unavailable"
    judgement = REFUSED


# -- the target -----------------------------------------------------------------------------------------------------------


class TargetError(StcpError):
    """The target could not be reached."""

    cause = Cause.TARGET
    code = Code.TARGET_UNREACHABLE
    label = "target_unreachable"
    judgement = UNREACHABLE


class TargetRefused(TargetError):
    """The target refused the connection."""

    code = Code.TARGET_REFUSED
    label = "target_refused"
    judgement = UNREACHABLE


class TargetTimedOut(TargetError):
    """The target did not answer before the dial deadline."""

    code = Code.TARGET_TIMED_OUT
    label = "target_timed_out"
    judgement = UNREACHABLE


class TargetUnreachable(TargetError):
    """No route, no such name, no such socket."""

    label = "target_unreachable"
    judgement = UNREACHABLE


# -- limits and our own state ---------------------------------------------------------------------------------------------


class OverLimit(StcpError):
    """A configured limit is reached, or this machine lacks a resource."""

    cause = Cause.LIMIT
    code = Code.OVER_LIMIT
    label = "over_limit"
    judgement = REFUSED
    usual_remedy = "raise the limit if this load is expected"


class PeerOverLimit(OverLimit):
    """An authenticated peer is beyond its own limit.

    Args:
        what: the limit in a sentence.
        setting: the name of the setting.
        often: whether the peer has been told so many times lately. Then it gets no more time to read its REJECT.
    """

    label = "peer_over_limit"
    judgement = REFUSED

    def __init__(self, what: str, setting: str, *, often: bool = False) -> None:
        super().__init__(what, remedy=f"raise {setting} if this load is expected; otherwise look at the application of this peer")
        self.setting = setting
        self.often = often


class LifetimeOver(OverLimit):
    """A connection has lived for as long as the file allows."""

    label = "lifetime_over"
    judgement = REFUSED
    usual_remedy = "connect again; raise max_lifetime if connections may live longer"


class ShuttingDown(StcpError):
    """This side is stopping and takes nothing new."""

    cause = Cause.OURS
    code = Code.SHUTTING_DOWN
    label = "shutting_down"
    judgement = CLIENT_LEFT
    usual_remedy = "connect again once it runs"
