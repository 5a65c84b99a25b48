"""The ends of relayed connections."""

from __future__ import annotations

import enum
from typing import Self

from stcp_proxy.errors.judgement import BROKEN_END, BUG, ORDINARY_END, Judgement


class EndReason(enum.StrEnum):
    """Why a relayed connection ended: the label in logs and metrics.

    Attributes:
        judgement: what the end means.
        remedy: what to do about it where nobody wanted it. Empty for FINISHED, and for PEER_RESET, whose code has its own remedy.
    """

    judgement: Judgement
    remedy: str

    def __new__(cls, label: str, judgement: Judgement, remedy: str = "") -> Self:
        member = str.__new__(cls, label)
        member._value_, member.judgement, member.remedy = label, judgement, remedy
        return member

    FINISHED = "finished", ORDINARY_END
    """Both directions ended with FIN."""
    PLAIN_RESET = "plain_reset", ORDINARY_END, "look at the application on this side if it should not have reset the connection"
    """The application on this side reset its connection, or is gone."""
    PEER_RESET = "peer_reset", ORDINARY_END
    """The peer sent RESET; code and text are the peer's own."""
    TRUNCATED = (
        "truncated",
        BROKEN_END,
        "see in the peer's log whether the peer ended it; if not, look at the network between, its NAT and firewalls",
    )
    """The wire leg ended or broke without FIN."""
    BAD_FRAME = (
        "bad_frame",
        BROKEN_END,
        "run the same version on both sides; if they do, look for hardware or a middlebox that changes bytes",
    )
    """A frame that is malformed, out of place, or not authentic."""
    IDLE_TIMEOUT = "idle_timeout", ORDINARY_END, "raise idle_timeout, or let the application send something now and then"
    HALF_CLOSE_TIMEOUT = "half_close_timeout", ORDINARY_END, "raise half_close_timeout if an answer may take longer"
    ABORTED = "aborted", ORDINARY_END, "connect again"
    """This side's own decision, by `Relay.abort`."""
    INTERNAL_ERROR = "internal_error", BUG, "send this log line to the authors"
