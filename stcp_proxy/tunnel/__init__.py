"""Tunnels: what happens to a connection, a listener, a process.

- ``exchange``    handshake and OPEN over any stream, up to the handover
- ``greet``       the connecting side's handshake, for a session or a probe
- ``reach``       whether a tunnel's far target answers, end to end
- ``session``     one connection from accept to handover, for either role
- ``intercepted`` one that rules of the host sent here: ``route`` where it goes, ``whereabouts`` the addresses of routes
  by name, ``clear`` passes on what the file lets pass unencrypted
- ``announced``   the PROXY header that somebody sends ahead of a connection; ``client`` who its client is said to be
- ``offer``       what a listen tunnel offers, and which of it a peer gets
- ``destination``  where a peer's client was going, dialled when the file allows it
- ``trust``       who may talk to whom, and whom a new rule no longer covers
- ``keyring``     which of several keys a connect tunnel uses
- ``targets``     where a tunnel's connections go; ``turn`` one connection's way through them, ``balance`` the order, ``endpoint``
  how one address has fared, ``probe`` whether it answers again
- ``service``     one tunnel: its listeners, limits, live connections; ``strangers`` who of them has proved nothing
- ``tunnels``     all of them, and the step from one plan to the next
- ``engines``     what carries their connections
- ``reload``      reading the configuration again while they serve
- ``workers``     several processes; ``doors`` their listening sockets; ``leader`` and ``follower`` how they reload as one, and
  ``between`` what they say to each other
- ``supervisor``  a process: start, signals, drain
- ``terminal``    whether SIGHUP means that the terminal has gone
- ``notify``      what systemd is told
- ``application`` a program beside the proxy: signals, status, and what PID 1 has to do
- ``record``      what is known of a connection, and its one log line
- ``running``     a process that serves, as the admin address sees it
- ``quiet``       which log lines can be silenced together
- ``repeats``     repeated log lines, counted
- ``log``         how log lines look
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from stcp_proxy.config import Plan
    from stcp_proxy.tunnel.running import Companion


def run(plan: Plan, read: Callable[[], Plan] | None = None, *, beside: Companion | None = None) -> int:
    """Serve every tunnel of `plan` until SIGTERM or SIGINT.

    Args:
        plan: what to serve.
        read: reads the configuration again, for SIGHUP; None where it cannot be read again.
        beside: what is served in the same loop, from start to end: the admin address.

    Returns:
        Exit status: 0 after a stop that cut nobody off, 1 when it cut connections off or failed while running.
    """
    from stcp_proxy.tunnel import supervisor  # trio and the engines are loaded only by those who serve

    return supervisor.run(plan, read, beside)
