"""How the stress client uses its connections: apart, because the command line needs it before anything runs."""

from __future__ import annotations

import enum


class Mode(enum.StrEnum):
    """What becomes of a connection after some messages."""

    STEADY = "steady"
    CHURN = "churn"
