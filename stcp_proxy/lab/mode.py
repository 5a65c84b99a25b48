"""How the stress client uses its connections. In its own module, because the command line needs it without the rest."""

from __future__ import annotations

import enum


class Mode(enum.StrEnum):
    """The fate of a connection after some messages."""

    STEADY = "steady"
    CHURN = "churn"
