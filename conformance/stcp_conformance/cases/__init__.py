"""The cases. Importing this package fills `registry.CASES`."""

from stcp_conformance.cases import (  # noqa: F401
    credentials,
    ends,
    frames,
    handshake_initiator,
    handshake_responder,
    keep,
    keep_initiator,
    order,
    ready,
)
