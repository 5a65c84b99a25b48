"""How the stress client uses its connections. A module of its own, because the command line needs only this part."""

from __future__ import annotations

import enum


class Mode(enum.StrEnum):
    """What the stress client does with a connection after some messages."""

    STEADY = "steady"
    CHURN = "churn"
