"""A relay that gives its wire leg back."""

from __future__ import annotations

import socket

from stcp_proxy.relay import kernel_abi as abi

from .peer import FIN, Relay


def keep(**options: object) -> Relay:
    return Relay(flags=abi.RELAY_KEEP, **options)  # type: ignore[arg-type]


def give_back(r: Relay) -> None:
    r.wire.setsockopt(abi.SOL_STCP, abi.GIVE_BACK, b"")


def take(r: Relay) -> abi.Status:
    """Waits for the end and takes the leg back."""
    status = r.wait_ended()
    assert (status.end, status.kept) == (abi.End.FINISHED, True)
    give_back(r)
    return status


def end_application(r: Relay) -> None:
    r.app.shutdown(socket.SHUT_WR)
    assert r.read_frame() == (FIN, b"")
