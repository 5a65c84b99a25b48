"""A process that serves: start, signals, workers, reload, drain, and the application beside it.

- ``supervisor``      one process: start, signals, drain
- ``workers``         several processes; ``worker_sockets`` their listening sockets
- ``reload``          read the configuration again while the tunnels serve
- ``reload_losses``   what a reload may not take away unless it is forced
- ``reload_parent``   a reload with several workers, as the parent leads it; ``reload_worker`` as a worker follows it;
  ``reload_messages`` what they send to each other
- ``watch``           a reload when files of the configuration change
- ``takeover_client`` get the listening sockets of the process that runs; ``takeover_server`` hand them to a new process;
  ``takeover_messages`` what they send to each other; ``own_listeners`` and ``takeover_workers`` where the sockets are
- ``successor``       SIGUSR2: start the new process; ``detach`` how it leaves the old one
- ``drain``           let connections finish
- ``replaced``        revocations in a process that was replaced and drains
- ``span_exporter``   the program beside the proxy that exports spans
- ``companion``       what is served beside the tunnels: the admin address; ``companion_change`` how a reload changes it
- ``kernel_agent``    the agent of kernel sockets: start, reload, end
- ``running``         a running process, as the admin address sees it
- ``lifetimes_check`` which certificates should have been renewed, looked at while the proxy runs
- ``rules_check``     which rules of interception the host has, asked while the proxy runs
- ``deferred_imports`` modules that are imported at their first use; ``resting_memory`` memory that only the start needed
- ``sandbox``         the files that this process may reach; ``landlock`` how the kernel is told
- ``application``     a program beside the proxy: signals, status, and the duties of PID 1
- ``sd_notify``       what systemd is told
- ``running_clock``   deadlines leave out the time in which the process was paused
- ``signals``         every signal is held back or handled from the first instant on
- ``terminal``        whether SIGHUP means that the terminal has gone
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from stcp_proxy.config import Plan
    from stcp_proxy.process.companion import Companion
    from stcp_proxy.process.reload import Read
    from stcp_proxy.process.takeover_client import Takeover


def run(
    plan: Plan,
    read: Read | None = None,
    *,
    beside: Companion | None = None,
    takeover: Takeover | None = None,
) -> int:
    """Serve every tunnel of `plan` until SIGTERM or SIGINT.

    Args:
        plan: what to serve.
        read: reads the configuration again, for SIGHUP; None where it cannot be read again.
        beside: what is served in the same loop: the admin address.
        takeover: the takeover from an old process; None without one.

    Returns:
        Exit status: 0 after a stop that cut nobody off, 1 when it cut connections off or failed while running.
    """
    from stcp_proxy.process import supervisor  # trio and the engines are loaded only by those who serve

    return supervisor.run(plan, read, beside, takeover)
