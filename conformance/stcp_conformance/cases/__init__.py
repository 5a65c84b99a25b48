"""The cases. Importing this package fills `registry.CASES`."""

from stcp_conformance.cases import credentials, ends, frames, handshake_initiator, handshake_responder, keep, order  # noqa: F401
